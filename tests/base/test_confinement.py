"""What a confined process cannot do, and an ordinary one can."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MEMORY_BYTES = 1 << 30
CONFINED = f"from realrl.base.confinement import confine; confine(memory_bytes={MEMORY_BYTES})"
HARMLESS = "import threading; t = threading.Thread(target=lambda: os.write(1, b'done')); t.start(); t.join()"
ATTEMPTS = {
    "a socket": "import socket; socket.socket()",
    "a connection": "import socket; socket.create_connection(('127.0.0.1', int(sys.argv[2])))",
    "a pair of sockets": "import socket; socket.socketpair()",
    "a fork": "os.fork() or os._exit(0)",
    "a program": "import subprocess; subprocess.run(['true'], check=True)",
    "another program in its place": "os.execvp('true', ['true'])",
    "a signal to another process": "os.kill(os.getppid(), 0)",
    "a hold on another process": "os.pidfd_open(os.getppid())",
    "a written file": "os.write(os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY), b'x')",
    "many files": "files = [open('/dev/null') for _ in range(100)]",
}


@pytest.fixture(scope="module")
def port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def attempt(code: str, file: Path, port: int, *, before: str = "") -> subprocess.CompletedProcess:
    """A process that does `code`; it ends with the number of the error that it fails with."""
    lines = ["import os, sys", before, "try:", f"    {code}"]
    lines += ["except OSError as error:", "    os._exit(error.errno)"]
    command = [sys.executable, "-c", "\n".join(lines), str(file), str(port)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, timeout=60)


@pytest.mark.parametrize("what", ATTEMPTS)
def test_a_confined_process_is_refused_what_an_ordinary_one_gets(what, tmp_path, port):
    """By an error that it can handle, and with no trace of the attempt."""
    refusals = {"a written file": errno.EFBIG, "many files": errno.EMFILE}
    ordinary = attempt(ATTEMPTS[what], tmp_path / "ordinary", port)
    assert ordinary.returncode == 0, ordinary.stderr
    confined = attempt(ATTEMPTS[what], tmp_path / "confined", port, before=CONFINED)
    assert confined.returncode == refusals.get(what, errno.EPERM), confined.stderr


def test_a_confined_process_has_threads_and_what_was_open(tmp_path):
    """A judge reads its questions in a second thread."""
    done = attempt(HARMLESS, tmp_path / "file", 0, before=CONFINED)
    assert (done.returncode, done.stdout) == (0, b"done"), done.stderr


def test_memory_beyond_the_limit_is_not_to_be_had(tmp_path):
    """And a little less is."""
    for num_bytes, ends_well in ((MEMORY_BYTES // 2, True), (MEMORY_BYTES, False)):
        done = attempt(f"bytearray({num_bytes})", tmp_path / "file", 0, before=CONFINED)
        assert (done.returncode == 0) is ends_well, done.stderr
        assert ends_well or b"MemoryError" in done.stderr
