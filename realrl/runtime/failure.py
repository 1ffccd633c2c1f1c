"""How a run ends badly."""


class RunFailed(Exception):
    """The run cannot go on; the message is for the person who started it."""

    def __init__(self, what: str, see: str = "") -> None:
        """`what` is the same where the same happens again; `see` says where more of this time stands."""
        super().__init__(f"{what}; {see}" if see else what)
        self.what = what
