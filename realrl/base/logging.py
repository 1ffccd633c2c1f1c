"""The destination of a process's log lines."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from realrl.base.terminal import printable


@contextmanager
def logging_to(path: Path | str | None, rank: str) -> Iterator[None]:
    """Within the context, write this process's log and warnings to a file, or to stderr for None.

    `rank` is in each line: a worker's global rank, or a name such as `master`. Lines are appended to a file.
    """
    root = logging.getLogger()
    handlers = root.handlers[:]
    level = root.level
    handler = _handler(path, rank)
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.handlers[:] = handlers
        root.setLevel(level)
        # The disk may be full.
        with suppress(OSError):
            handler.close()


def _handler(path: Path | str | None, rank: str) -> logging.Handler:
    handler: logging.Handler
    if path is None:
        handler = logging.StreamHandler()
    else:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        handler = _LogFile(path, encoding="utf-8")

    # A rank is data, not a format.
    shown = rank.replace("%", "%%")
    handler.setFormatter(_Formatter(f"%(asctime)s %(levelname)s [{shown}] %(name)s: %(message)s"))
    return handler


class _Formatter(logging.Formatter):
    """Escapes control characters, because people read logs in terminals."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as printable text."""
        return printable(super().format(record))


class _LogFile(logging.FileHandler):
    """Drops what it cannot write: a full disk is reported once, by others."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Report an error of a record, except one of the file."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)
