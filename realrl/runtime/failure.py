"""How a run ends badly."""


class RunFailed(Exception):
    """The run cannot continue; the message is for the person who started it."""

    def __init__(self, what: str, see: str = "") -> None:
        """`what` is the same where the same happens again; `see` says where more of this time stands."""
        super().__init__(f"{what}; {see}" if see else what)
        self.what = what


class RunRefused(RunFailed, ValueError):
    """The run does not start, because a person has to decide or repair something: no restart helps."""


class Terminated(BaseException):
    """SIGTERM asked the run to stop; the message says what it resumes from. As Ctrl-C, it is no error."""
