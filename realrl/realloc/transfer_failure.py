"""How a transfer fails."""


class TransferFailed(RuntimeError):
    """Weights or samples did not arrive, or not as they were sent; what they were to fill is of no use."""
