"""What a process that judges an answer refuses to its own libraries, whatever an answer makes them try.

The kernel's filter bounds what a process can do to others. This finds a scorer that evaluates an answer, or
takes it for the name of a file: then there is an error in place of a score.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from types import CodeType, FrameType

_REFUSED = ("os.", "subprocess.", "shutil.", "socket.", "ctypes.", "pty.", "tempfile.")
_LISTING = ("os.listdir", "os.scandir")
_IMPORTS = "<frozen importlib._bootstrap>"
_WRITES_CODE = "/sympy/polys/monomials.py"
"""A module that evaluates what it writes itself: products of a known number of powers."""


class Audit:
    """Refuses what judging has no need of, for good: a hook cannot be removed."""

    def __init__(self, evaluators: Sequence[Callable[..., object]]) -> None:
        """`evaluators` are the functions within which a text may be evaluated: they check it first."""
        self.refused = ""
        """What was asked for first; empty if nothing was."""
        self._evaluators = {function.__code__ for function in evaluators}
        self._folders = _folders_of_code()
        sys.addaudithook(self._look)

    def _look(self, event: str, arguments: Sequence[object]) -> None:
        if self._is_allowed(event, arguments):
            return
        asker = sys._getframe(1).f_code
        asked = f"judging asked for {_described(event, arguments)} ({asker.co_name} in {asker.co_filename})"
        self.refused = self.refused or asked
        raise PermissionError(self.refused)

    def _is_allowed(self, event: str, arguments: Sequence[object]) -> bool:
        if event == "exec":
            # From the caller of this method's caller, which is the hook: the frame that evaluates.
            return self._may_run(arguments[0], sys._getframe(2))
        if event == "open":
            path, _, flags = arguments
            return not flags & (os.O_WRONLY | os.O_RDWR) and self._is_of_code(path)
        if event in _LISTING:
            return self._is_of_code(arguments[0])
        return not event.startswith(_REFUSED)

    def _may_run(self, code: CodeType, caller: FrameType) -> bool:
        """Whether code is a module's, or a text that was not written by a model: a module evaluates its own
        while it is imported, and an evaluator has checked what it was given.
        """
        is_of_a_file = code.co_filename.startswith((os.sep, "<frozen "))
        if is_of_a_file or caller.f_code.co_filename.endswith(_WRITES_CODE):
            return True
        return any(
            frame.f_code in self._evaluators or frame.f_code.co_filename == _IMPORTS
            for frame in _callers(caller)
        )

    def _is_of_code(self, path: object) -> bool:
        """Whether a file or folder lies where modules do: they are imported, and their data read, when they
        are needed.
        """
        return isinstance(path, str | bytes) and f"{os.path.abspath(os.fsdecode(path))}/".startswith(
            self._folders
        )


def _folders_of_code() -> tuple[str, ...]:
    folders = {os.path.abspath(folder) for folder in (*sys.path, sys.prefix, sys.base_prefix)}
    # The folder that this process was started in is on Python's path, but holds no code.
    return tuple(f"{folder}/" for folder in sorted(folders) if folder != os.sep)


def _callers(frame: FrameType | None) -> Iterator[FrameType]:
    while frame:
        yield frame
        frame = frame.f_back


def _described(event: str, arguments: Sequence[object]) -> str:
    if event == "exec":
        return "a text to be evaluated as Python"
    return f"{event} of {arguments[0]!r:.100}" if arguments else event
