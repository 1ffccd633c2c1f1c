"""Where a process's log lines go."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from realrl.base.terminal import printable


@contextmanager
def logging_to(path: Path | str | None, rank: str) -> Iterator[None]:
    """This process's log, warnings included, goes to a file meanwhile, or to stderr for None; nowhere else.

    `rank` stands in each line: a worker's global rank, or a name such as `master`. A file is appended to.
    """
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers[:], handler = [], _handler(path, rank)
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.handlers[:] = handlers
        root.setLevel(level)
        with suppress(OSError):  # of a full disk
            handler.close()


def _handler(path: Path | str | None, rank: str) -> logging.Handler:
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    handler = logging.StreamHandler() if path is None else _LogFile(path, encoding="utf-8")
    # A rank is data, not a format.
    shown = rank.replace("%", "%%")
    handler.setFormatter(_Formatter(f"%(asctime)s %(levelname)s [{shown}] %(name)s: %(message)s"))
    return handler


class _Formatter(logging.Formatter):
    """Escapes what a terminal would obey: people read logs there."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


class _LogFile(logging.FileHandler):
    """Loses what it cannot write; that a disk is full is for others to say, once."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)
