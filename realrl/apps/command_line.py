"""What the commands share: exit codes, and one message for whatever is refused."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

OK, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


class Parser(argparse.ArgumentParser):
    """Refuses like everything else here: with one message."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; see --help")


def run_command(command: Callable[[Sequence[str]], int], argv: Sequence[str] | None) -> int:
    """A command's exit code, also where a person or a closed pipe ends it."""
    try:
        return command(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:
        return complain("stopped by Ctrl-C", INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK


def complain(message: str, code: int) -> int:
    sys.stderr.write(f"realrl: error: {message}\n")
    return code
