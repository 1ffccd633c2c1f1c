"""The failure of a transfer."""


class TransferFailed(RuntimeError):
    """Weights or samples did not arrive as they were sent; the content of their target is undefined."""
