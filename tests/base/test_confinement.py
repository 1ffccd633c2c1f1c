"""What a confined process cannot do, and an ordinary one can."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from realrl.base.confinement import check_confinement

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
    "a file cut to nothing": "os.truncate(sys.argv[1], 0)",
    "a file taken away": "os.unlink(sys.argv[1])",
    "a file written as memory": "os.open(sys.argv[1], os.O_RDWR)",
    "a folder": "os.mkdir(sys.argv[1] + '.d')",
    "a signal to a thread elsewhere": "import ctypes; c = ctypes.CDLL(None, use_errno=True); "
    "os._exit(c.tgkill(os.getppid(), os.getppid(), 0) and ctypes.get_errno())",
    "limits of another process": "import resource; resource.prlimit(os.getppid(), resource.RLIMIT_CORE)",
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
    files = [tmp_path / "ordinary", tmp_path / "confined"]
    for file in files:
        file.write_text("there")
    ordinary = attempt(ATTEMPTS[what], files[0], port)
    assert ordinary.returncode == 0, ordinary.stderr
    confined = attempt(ATTEMPTS[what], files[1], port, before=CONFINED)
    assert confined.returncode == (errno.EMFILE if what == "many files" else errno.EPERM), confined.stderr
    assert files[1].read_text() == "there"


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


REFUSED = """
import ctypes, errno, platform
from realrl.base import bpf, confinement
from realrl.base.confinement import _ALLOW, _ARGUMENTS, _FAIL, _NUMBER, check_confinement
prctl = {"x86_64": 157, "aarch64": 167}[platform.machine()]
refuse = [bpf.load(_ARGUMENTS[0]), *bpf.give_if_equal(22, _FAIL | errno.EPERM), bpf.load(_NUMBER)]
steps = [bpf.load(_NUMBER), *bpf.skip_unless_equal(prctl, refuse), bpf.give(_ALLOW)]
call, compiled = ctypes.CDLL(None).prctl, bpf.program(steps)
assert not call(38, 1, 0, 0, 0) and not call(22, 2, ctypes.byref(compiled), 0, 0)
try:
    check_confinement()
except OSError as error:
    print(error)
"""
"""A container whose profile forbids to filter system calls."""


def test_a_system_that_confines_nothing_is_found_before_a_run_starts():
    check_confinement()
    done = subprocess.run([sys.executable, "-c", REFUSED], cwd=ROOT, capture_output=True, text=True)
    assert "PermissionError: [Errno 1] system calls: Operation not permitted" in done.stdout, done.stderr
