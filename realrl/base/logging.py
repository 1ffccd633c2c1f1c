"""Where a process's log lines go."""

from __future__ import annotations

import logging
import sys
from pathlib import Path


def setup_logging(path: Path | str | None, rank: str, *, level: int = logging.INFO) -> None:
    """Send this process's log, warnings included, to a file, or to stderr for None.

    `rank` stands in each line: a worker's global rank, or a name such as `master`. A file is appended to.
    """
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    handler = logging.StreamHandler() if path is None else _LogFile(path, encoding="utf-8")
    # A rank is data, not a format.
    shown = rank.replace("%", "%%")
    handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)s [{shown}] %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)


class _LogFile(logging.FileHandler):
    """Loses what it cannot write; that a disk is full is for others to say, once."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)
