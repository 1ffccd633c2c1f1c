"""How a run ends badly."""


class RunFailed(Exception):
    """The run cannot continue; the message is for the person who started it."""

    def __init__(self, what: str, see: str = "") -> None:
        """`what` is the same for the same failure; `see` says where to find more of this occurrence."""
        super().__init__(f"{what}; {see}" if see else what)
        self.what = what


class RunRefused(RunFailed, ValueError):
    """The run does not start: a person has to decide or repair something, and a restart would not help."""


class Terminated(BaseException):
    """SIGTERM asked the run to stop; the message says what it resumes from. Like Ctrl-C, it is no error."""
