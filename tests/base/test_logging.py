"""Log lines carry the rank and reach their file."""

from __future__ import annotations

import logging
import subprocess
import sys
import warnings

from realrl.base.logging import logging_to

logger = logging.getLogger("realrl.here")


def test_a_line_names_rank_and_module(tmp_path):
    """A file's missing folder is made; what comes before and after goes where it went."""
    path = tmp_path / "logs" / "worker-3.log"
    with logging_to(tmp_path / "other.log", "9"):
        with logging_to(path, "rank 3, 100 %d"):
            logger.info("started %s", "now")
        logger.info("ended")
    handlers = logging.getLogger().handlers
    assert path.read_text().endswith("INFO [rank 3, 100 %d] realrl.here: started now\n")
    assert (tmp_path / "other.log").read_text().endswith("INFO [9] realrl.here: ended\n")
    assert not any(getattr(handler, "baseFilename", "").startswith(str(tmp_path)) for handler in handlers)


def test_warnings_are_logged(tmp_path):
    """What a library warns of stands in the worker's log, not on a terminal."""
    with warnings.catch_warnings(), logging_to(tmp_path / "log", "0"):
        warnings.simplefilter("always")
        warnings.warn("old option", stacklevel=1)
    assert "old option" in (tmp_path / "log").read_text()


def test_no_path_means_stderr():
    """stdout stays free for the command's own output."""
    code = (
        "import logging; from realrl.base.logging import logging_to\n"
        "with logging_to(None, 'master'): logging.getLogger('x').warning('hello')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert "WARNING [master] x: hello" in done.stderr


def test_a_full_disk_does_not_fill_the_terminal(capsys):
    """What a log cannot take is lost; who needs the disk says that it is full."""
    with logging_to("/dev/full", "master"):
        logger.warning("b")
    assert "No space" not in capsys.readouterr().err


def test_a_log_escapes_what_a_terminal_would_obey(tmp_path):
    """Also names of files that are no text, which no log could hold."""
    with logging_to(tmp_path / "log", "master"):
        logger.info("model \x1b[2J%s\nnext", "\udce9")
    assert (tmp_path / "log").read_text().endswith("model \\x1b[2J\\udce9\nnext\n")
