"""How a run ends badly."""


class RunFailed(Exception):
    """The run cannot go on; the message is for the person who started it."""
