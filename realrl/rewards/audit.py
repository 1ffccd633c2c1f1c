"""Refuses a process that judges an answer what judging does not need, whatever its libraries try.

The kernel's filter bounds what a process can do to others. This hook finds a scorer that evaluates an answer,
or takes it for the name of a file: then there is an error in place of a score.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from types import CodeType, FrameType
from typing import Any

_REFUSED = ("os.", "subprocess.", "shutil.", "socket.", "ctypes.", "pty.", "tempfile.")
"""Beginnings of the names of audit events that judging never causes."""
_LISTING = ("os.listdir", "os.scandir")
_IMPORTS = "<frozen importlib._bootstrap>"
_WRITES_CODE = "/sympy/polys/monomials.py"
"""A module that evaluates code that it writes itself: products of a known number of powers."""


class Audit:
    """Refuses every action that judging does not need, for good: an audit hook cannot be removed."""

    def __init__(self, evaluators: Sequence[Callable[..., object]]) -> None:
        """Add the hook; `evaluators` are the functions that may evaluate a text, as they check it first."""
        self.refused = ""
        """The first action that was refused; empty if none was."""
        self._evaluators = {function.__code__ for function in evaluators}
        self._folders = _folders_of_code()
        sys.addaudithook(self._look)

    def _look(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Raise PermissionError for an event that is not allowed; Python calls this before each."""
        if self._is_allowed(event, arguments):
            return
        if not self.refused:
            asker = sys._getframe(1).f_code
            action = _described(event, arguments)
            self.refused = f"judging asked for {action} ({asker.co_name} in {asker.co_filename})"
        raise PermissionError(self.refused)

    def _is_allowed(self, event: str, arguments: tuple[Any, ...]) -> bool:
        if event == "exec":
            # This method's caller is the hook, and the hook's caller the frame that evaluates.
            evaluating = sys._getframe(2)
            return self._may_run(arguments[0], evaluating)
        if event == "open":
            path, _, flags = arguments
            is_for_writing = flags & (os.O_WRONLY | os.O_RDWR)
            return not is_for_writing and self._is_of_code(path)
        if event in _LISTING:
            return self._is_of_code(arguments[0])
        return not event.startswith(_REFUSED)

    def _may_run(self, code: CodeType, caller: FrameType) -> bool:
        """Return whether code is a module's, or a text that no model wrote.

        A module evaluates its own texts while it is imported, and an evaluator has checked its text.
        """
        if code.co_filename.startswith((os.sep, "<frozen ")):
            return True
        if caller.f_code.co_filename.endswith(_WRITES_CODE):
            return True
        for frame in _callers(caller):
            running = frame.f_code
            if running in self._evaluators or running.co_filename == _IMPORTS:
                return True
        return False

    def _is_of_code(self, path: object) -> bool:
        """Return whether a path is in a folder of modules, which import others and read their data late."""
        if not isinstance(path, str | bytes):
            return False
        absolute = os.path.abspath(os.fsdecode(path))
        return f"{absolute}/".startswith(self._folders)


def _folders_of_code() -> tuple[str, ...]:
    """Return the folders on Python's path, each with a slash at its end."""
    names = (*sys.path, sys.prefix, sys.base_prefix)
    folders = {os.path.abspath(folder) for folder in names}
    # The working directory, which is the root, is on Python's path but has no code.
    folders.discard(os.sep)
    return tuple(f"{folder}/" for folder in sorted(folders))


def _callers(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield a frame and the frames that called it, the nearest first."""
    while frame:
        yield frame
        frame = frame.f_back


def _described(event: str, arguments: tuple[Any, ...]) -> str:
    if event == "exec":
        return "a text to be evaluated as Python"
    return f"{event} of {arguments[0]!r:.100}" if arguments else event
