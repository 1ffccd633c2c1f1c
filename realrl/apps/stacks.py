"""Prints the Python stacks of a run's workers and master, as they are now: `realrl stacks RUN`.

RUN is a run's directory, or its experiment/trial below `runs`; users who may write there may ask. Exit codes:
0 done, 1 the master does not answer, 2 bad input, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from realrl.apps.command_line import BAD_INPUT, FAILED, OK, Parser, complain, run_command
from realrl.apps.status import find_trouble, read_status, run_of, run_parser
from realrl.base.terminal import show
from realrl.runtime.watch.stacks import STACKS, WANTED

_WITHIN_S = 30.0
_LOOK_EVERY_S = 0.1


def main(argv: Sequence[str] | None = None) -> int:
    """Print a run's stacks; return the exit code."""
    return run_command(_main, argv)


def _main(argv: Sequence[str]) -> int:
    try:
        arguments = make_parser().parse_args(list(argv))
        directory = run_of(arguments.run)
        read_status(directory)
        (directory / WANTED).touch()
    except ValueError as error:
        return complain(str(error), BAD_INPUT)
    except OSError as error:
        return complain(f"RUN: who asks for stacks must be able to write there: {error}", BAD_INPUT)
    try:
        show(_answer(directory))
    except TimeoutError as error:
        (directory / WANTED).unlink(missing_ok=True)
        return complain(str(error), FAILED)
    return OK


def make_parser() -> Parser:
    """Return the parser of the command's options."""
    about = "The Python stacks of a run's workers and master, as they are now: `realrl stacks RUN`."
    return run_parser("stacks", about)


def _answer(directory: Path) -> str:
    """Wait for the master's answer, and return it.

    Raises:
        TimeoutError: there is no answer.
    """
    answer = directory / STACKS
    before = _version(answer)
    deadline_s = time.monotonic() + _WITHIN_S
    while _version(answer) == before:
        status = read_status(directory)
        if status.is_over:
            raise TimeoutError(f"{directory} is over ({status.phase}), so it has no workers")
        trouble = find_trouble(status, time.time())
        if trouble:
            raise TimeoutError(trouble)
        if time.monotonic() > deadline_s:
            raise TimeoutError(
                f"the master of {directory}, process {status.pid} on {status.host}, did not answer within"
                f" {_WITHIN_S:g} s; see `realrl status {directory}`"
            )
        time.sleep(_LOOK_EVERY_S)
    return answer.read_text(encoding="utf-8")


def _version(path: Path) -> tuple[int, int] | None:
    """Return a value that differs for each file that ever had this path."""
    if not path.exists():
        return None
    found = path.stat()
    return found.st_ino, found.st_mtime_ns


if __name__ == "__main__":
    sys.exit(main())
