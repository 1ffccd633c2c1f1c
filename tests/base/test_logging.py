"""Log lines carry the rank and reach their file."""

from __future__ import annotations

import logging
import subprocess
import sys
import warnings
from contextlib import suppress

import pytest

from realrl.base.logging import setup_logging


@pytest.fixture(autouse=True)
def restored_root():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(False)
    for handler in root.handlers:
        if handler not in handlers:
            with suppress(OSError):  # of a full disk
                handler.close()
    root.handlers[:], root.level = handlers, level


def test_a_line_names_rank_and_module(tmp_path):
    """A file's missing folder is made, and a second setup replaces the first."""
    setup_logging(tmp_path / "other.log", "9")
    path = tmp_path / "logs" / "worker-3.log"
    setup_logging(path, "rank 3, 100 %d")
    logging.getLogger("realrl.here").info("started %s", "now")
    assert path.read_text().endswith("INFO [rank 3, 100 %d] realrl.here: started now\n")
    assert (tmp_path / "other.log").read_text() == ""


def test_warnings_are_logged(tmp_path):
    """What a library warns of stands in the worker's log, not on a terminal."""
    setup_logging(tmp_path / "log", "0")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old option", stacklevel=1)
        logging.captureWarnings(False)
    assert "old option" in (tmp_path / "log").read_text()


def test_no_path_means_stderr():
    """stdout stays free for the command's own output."""
    code = (
        "import logging; from realrl.base.logging import setup_logging; "
        "setup_logging(None, 'master'); logging.getLogger('x').warning('hello')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert "WARNING [master] x: hello" in done.stderr


def test_a_full_disk_does_not_fill_the_terminal(capsys):
    """What a log cannot take is lost; who needs the disk says that it is full."""
    setup_logging("/dev/full", "master")
    logging.getLogger("a").warning("b")
    assert "No space" not in capsys.readouterr().err
