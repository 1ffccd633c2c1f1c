"""Prints the version: `realrl version`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from realrl import __version__
from realrl.apps.command_line import BAD_INPUT, OK, Parser, complain, run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Print the version; return the exit code."""
    return run_command(_main, argv)


def make_parser() -> Parser:
    """Return the parser of the command's options."""
    return Parser(prog="realrl version", description="Print the version of realrl")


def _main(argv: Sequence[str]) -> int:
    try:
        make_parser().parse_args(list(argv))
    except ValueError as error:
        return complain(str(error), BAD_INPUT)
    sys.stdout.write(f"realrl {__version__}\n")
    return OK


if __name__ == "__main__":
    sys.exit(main())
