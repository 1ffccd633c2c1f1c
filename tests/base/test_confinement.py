"""What a confined process cannot do, and an ordinary one can."""

from __future__ import annotations

import errno
import json
import os
import platform
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from realrl.base.confinement import check_confinement
from realrl.base.system_calls import COMPUTING, FORKING, number_of

ROOT = Path(__file__).parents[2]
MEMORY_BYTES = 1 << 30

ATTEMPTS = {
    "a socket": "socket.socket()",
    "a connection": "socket.create_connection(('127.0.0.1', port))",
    "a pair of sockets": "socket.socketpair()",
    "a thread": "call(56, 220, 0x10F00, 0, 0, 0, 0)",
    "a fork": "os.fork() or os._exit(0)",
    "a fork as a program is started": "call(58, 220, 0x4111, 0, 0, 0, 0)",
    "a program": "subprocess.run(['true'], check=True)",
    "another program in its place": "os.execvp('true', ['true'])",
    "a signal to another process": "os.kill(victim, 0)",
    "a signal to a group": "os.kill(-victim, 0)",
    "a signal to a thread elsewhere": "call(234, 131, victim, victim, 0)",
    "a signal to a thread by its number": "call(200, 130, victim, 0)",
    "a signal to itself": "os.kill(os.getpid(), 0)",
    "a signal with a value": "memory[8:12] = bytes([255] * 4); call(129, 138, victim, 0, memory)",
    "a hold on another process": "os.pidfd_open(victim)",
    "a signal when a file is ready": "fcntl.fcntl(file, fcntl.F_SETOWN, victim)",
    "a signal when a file is ready, by an ioctl": "fcntl.ioctl(pipe, 0x8901, victim.to_bytes(4, 'little'))",
    "which signal a file sends": "fcntl.fcntl(file, fcntl.F_SETSIG, 9)",
    "signals of a file": "fcntl.fcntl(pipe, fcntl.F_SETFL, os.O_ASYNC)",
    "a lease on a file": "fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)",
    "a lock": "fcntl.flock(file, fcntl.LOCK_EX)",
    "a lock on a part of a file": "fcntl.lockf(file, fcntl.LOCK_EX)",
    "the size of a pipe": "fcntl.fcntl(pipe, 1031, 65536)",
    "characters typed at a terminal": "fcntl.ioctl(pipe, 0x5412, b'x')",
    "niceness of another process": "os.setpriority(os.PRIO_PROCESS, victim, 5)",
    "niceness of its own": "os.nice(1)",
    "the disk's priority of another": "call(251, 30, 1, victim, (2 << 13) | 5)",
    "the processors of another": "os.sched_setaffinity(victim, os.sched_getaffinity(victim))",
    "the processors that another has": "os.sched_getaffinity(victim)",
    "the scheduler of another": "os.sched_setscheduler(victim, os.SCHED_BATCH, os.sched_param(0))",
    "the scheduler of another, in a newer way": "call(314, 274, victim, memory, 0)",
    "limits of another process": "resource.prlimit(victim, resource.RLIMIT_CORE)",
    "a group of another": "os.setpgid(victim, victim)",
    "a trace of another process": "call(101, 117, 16, victim, 0, 0)",
    "another's memory": "call(310, 270, victim, memory, 0, memory, 0, 0)",
    "a change of another's memory": "call(311, 271, victim, memory, 0, memory, 0, 0)",
    "advice on another's memory": "call(440, 440, -1, memory, 0, 0, 0)",
    "a written file": "os.write(os.open(path, os.O_CREAT | os.O_WRONLY), b'x')",
    "a file written as memory": "os.open(path, os.O_RDWR)",
    "a file opened to be cut": "os.open(path, os.O_RDONLY | os.O_TRUNC)",
    "a file that is made": "os.open(path + '.new', os.O_RDONLY | os.O_CREAT)",
    "a nameless file": "os.open(os.path.dirname(path), os.O_TMPFILE | os.O_WRONLY)",
    "a file opened without rights": "os.open(path, os.O_PATH)",
    "a file by its handle": "call(304, 265, -1, memory, 0)",
    "a file's handle": "call(303, 264, -1, memory, memory, memory, 0)",
    "a file cut to nothing": "os.truncate(path, 0)",
    "an open file cut to nothing": "os.ftruncate(file, 0)",
    "a hole in a file": "call(285, 47, file, 3, 0, 5)",
    "a file copied into another": "os.copy_file_range(pipe, file, 5)",
    "a file taken away": "os.unlink(path)",
    "a file renamed": "os.rename(path, path + '.r')",
    "a folder": "os.mkdir(path + '.d')",
    "a link": "os.symlink(path, path + '.l')",
    "a named pipe": "os.mkfifo(path + '.p')",
    "rights of a file": "os.chmod(path, 0o600)",
    "rights of an open file": "os.fchmod(file, 0o600)",
    "owner of a file": "os.chown(path, os.getuid(), -1)",
    "times of a file": "os.utime(path, (1, 1))",
    "times of an open file": "os.utime(file, (1, 1))",
    "times of a file, in an older way": "call(261, 88, -100, path.encode(), 0)",
    "attributes of a file": "os.setxattr(path, 'user.x', b'1')",
    "attributes of an open file": "os.setxattr(file, 'user.x', b'1')",
    "an attribute taken away": "os.removexattr(path, 'user.x')",
    "a watch on files": "call(294, 26, 0)",
    "a watch on all files": "call(300, 262, 0, 0)",
    "memory with a name": "os.memfd_create('x')",
    "memory with others": "call(29, 194, 0, 0, 0)",
    "a semaphore with others": "call(64, 190, 0, -1, 0)",
    "messages to others": "call(68, 186, 12345678, 0)",
    "a queue of messages": "call(240, 180, b'x', 0, 0, 0)",
    "a domain of execution": "call(135, 92, 0xFFFFFFFF)",
    "a mask for files": "call(95, 166, 0o22)",
    "a timer": "signal.setitimer(signal.ITIMER_REAL, 100)",
    "a timer that sends a signal": "call(222, 107, 1, 0, memory)",
    "a filter of its own": "call(317, 277, 2, 0, memory)",
    "a name": "call(157, 167, 15, memory)",
    "a key": "call(250, 219, 6, -1)",
    "a program in the kernel": "call(321, 280, 0, memory, 0)",
    "events of other processes": "call(298, 241, memory, -1, -1, -1, 0)",
    "faults of memory": "call(323, 282, 1)",
    "rings of requests": "call(425, 425, 0, memory)",
    "namespaces": "call(272, 97, 0)",
    "a namespace of another": "call(308, 268, -1, 0)",
    "a mount": "call(165, 40, 0, 0, 0, 0, 0)",
    "another root": "os.chroot('/')",
    "another folder": "os.chdir('/')",
    "another user": "os.setuid(os.getuid())",
    "a session": "os.setsid()",
    "other rights": "call(126, 91, memory, memory)",
    "memory that stays": "call(149, 228, 0, 0)",
    "the host's name": "call(170, 161, 0, -1)",
    "the host's messages": "call(103, 116, -1, 0, 0)",
    "a clock": "call(227, 112, 0, 0)",
    "the end of the host": "call(169, 142, 0, 0, 0, 0)",
}
"""Each is one line; `call` takes the number of a system call on x86-64 and on aarch64. Where the line would
change something of this host, its arguments are none that the kernel takes."""
MAY_NEED_A_PRIVILEGE = {
    *("a file by its handle", "a file's handle", "a trace of another process", "a watch on all files"),
    *("a program in the kernel", "events of other processes", "faults of memory", "a mount", "a clock"),
    *("other rights", "the host's name", "the host's messages", "the end of the host", "a session"),
    *("a namespace of another", "namespaces", "another's memory", "a change of another's memory"),
    *("characters typed at a terminal", "rings of requests", "advice on another's memory", "another root"),
    *("the scheduler of another, in a newer way", "a key", "a domain of execution"),
}
"""Which a user, or a container's profile, may be refused anyway."""

HEAD = """
import ctypes, errno, fcntl, json, os, resource, signal, socket, subprocess, sys, time
from realrl.base.confinement import confine
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
is_x86 = os.uname().machine == "x86_64"
memory = ctypes.create_string_buffer(256)

def raw(number, *arguments):
    given = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return libc.syscall(ctypes.c_long(number), *given)

def call(x86_64, aarch64, *arguments):
    if raw(x86_64 if is_x86 else aarch64, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "")
"""

TRY_ALL = f"""{HEAD}
attempts, folder, port, is_confined = json.load(sys.stdin)
sleeper = subprocess.Popen(["sleep", "100"], start_new_session=True)
victim, found = sleeper.pid, {{}}
for number, (what, line) in enumerate(attempts.items()):
    path = os.path.join(folder, str(number))
    with open(path, "w") as new:
        new.write("there")
    file, (_, pipe) = os.open(path, os.O_RDWR), os.pipe()
    child = os.fork()
    if child == 0:
        code = 0
        try:
            if is_confined:
                confine(memory_bytes={MEMORY_BYTES})
            exec(line)
        except OSError as error:
            code = error.errno
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    found[what] = [code, os.path.exists(path) and open(path).read() == "there"]
sleeper.kill()
print(json.dumps(found))
"""

OF_X32 = 0x40000001
"""A write by x86-64's other interface."""

WALK = f"""{HEAD}
skipped, may_fork = json.load(sys.stdin)
out, found = os.dup(1), {{}}
confine(memory_bytes={MEMORY_BYTES}, may_fork=may_fork)
for number in (*range(600), {OF_X32}):
    if number not in skipped:
        ctypes.set_errno(0)
        # No file has such a number, nothing lies at such an address: what is allowed fails otherwise.
        found[number] = ctypes.get_errno() if raw(number, *[-1] * 6) == -1 else 0
os.write(out, json.dumps(found).encode())
"""

END_THE_PROCESS = ("exit", "exit_group", "rt_sigreturn")
OF_PROBES = (335, 336) if platform.machine() == "x86_64" else ()
"""uretprobe and uprobe, which the kernel keeps from filters, and which end a process that is not probed."""


def run(script: str, given: object) -> dict:
    """What a process finds that runs a script."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps(given),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        # Where nothing is refused, a signal to its group reaches nobody else.
        start_new_session=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_confined_process_is_refused_what_an_ordinary_one_gets(tmp_path):
    """By an error that it can handle, and with no trace of the attempt."""
    found = {}
    with socket.create_server(("127.0.0.1", 0)) as server:
        for is_confined in (False, True):
            folder = tmp_path / str(is_confined)
            folder.mkdir()
            given = [ATTEMPTS, str(folder), server.getsockname()[1], is_confined]
            found[is_confined] = run(TRY_ALL, given)
    refused = [errno.EPERM, True]
    assert {what for what in ATTEMPTS if found[True][what] != refused} == set()
    refused_anyway = {what for what in ATTEMPTS if found[False][what][0] == errno.EPERM}
    assert refused_anyway <= MAY_NEED_A_PRIVILEGE
    # Each file of the confined one is there, and nothing beside them.
    assert len(os.listdir(tmp_path / "True")) == len(ATTEMPTS)


@pytest.mark.parametrize("may_fork", [False, True])
def test_no_system_call_is_allowed_but_those_on_the_list(may_fork):
    """By trying every number; those whose arguments decide refuse what they are tried with."""
    ends = [*map(number_of, END_THE_PROCESS), *OF_PROBES]
    found = run(WALK, [ends, may_fork])
    allowed = {number_of(name) for name in (*COMPUTING, *(FORKING if may_fork else ()))} - {None, *ends}
    unknown = {number_of(name) for name in ("clone3", "openat2")}
    for number, error in found.items():
        number = int(number)
        if number in allowed:
            assert error != errno.EPERM, number
        else:
            assert error == (errno.ENOSYS if number in unknown else errno.EPERM), number
    assert len(found) == 601 - len(ends)


COMPUTES = f"""{HEAD}
import threading
path = json.load(sys.stdin)
out = os.dup(1)
confine(memory_bytes={MEMORY_BYTES})
with open(path) as file:
    text = file.read()
copy = os.dup(out)
limits = resource.getrlimit(resource.RLIMIT_AS)
counts = [len(os.listdir(os.path.dirname(path))), len(os.sched_getaffinity(0)), (1 << 100_000).bit_length()]
files, too_many = [], 0
try:
    files = [open(path) for _ in range(100)]
except OSError as error:
    too_many = error.errno
sizes = []
for size in ({MEMORY_BYTES} // 2, {MEMORY_BYTES}):
    try:
        sizes.append(len(bytearray(size)))
    except MemoryError:
        sizes.append(None)
found = {{"text": text, "limits": limits, "too_many": too_many, "sizes": sizes, "counts": counts}}
os.write(copy, json.dumps(found).encode())
"""


def test_a_confined_process_computes_reads_files_and_has_what_was_open(tmp_path):
    """Within its bounds: half of the memory is to be had, and not all; 64 files, and no more."""
    (tmp_path / "file").write_text("there")
    found = run(COMPUTES, str(tmp_path / "file"))
    assert found["text"] == "there" and found["counts"][0] == 1 and found["counts"][2] == 100_001
    assert found["limits"] == [MEMORY_BYTES] * 2
    assert found["too_many"] == errno.EMFILE
    assert found["sizes"] == [MEMORY_BYTES // 2, None]


FORKS = f"""{HEAD}
from realrl.base.confinement import fork_confinement
sleeper = subprocess.Popen(["sleep", "100"], start_new_session=True)
victim, out = sleeper.pid, os.dup(1)
confine(memory_bytes={MEMORY_BYTES}, may_fork=True)
confine_fork = fork_confinement()

def tried(line):
    try:
        exec(line)
        return 0
    except OSError as error:
        return error.errno

results, output = os.pipe()
child = os.fork()
if child == 0:
    confine_fork()
    lines = ["os.fork()", "os.kill(victim, 9)", "os.pipe()", "call(157, 167, 1, 0)", "os.waitpid(-1, 0)"]
    os.write(output, json.dumps([tried(line) for line in lines]).encode())
    end_s = time.monotonic() + 60
    while time.monotonic() < end_s:
        pass
    os._exit(0)
of_fork = json.loads(os.read(results, 1000))
lines = ["os.kill(child, 0)", "os.kill(0, 9)", "os.kill(-victim, 9)", "call(157, 167, 15, memory)"]
of_itself = [tried(line) for line in lines]
os.kill(child, 9)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
was_killed = sleeper.poll()
os.kill(victim, 9)
found = {{"of_fork": of_fork, "of_itself": of_itself, "status": status, "was_killed": was_killed}}
os.write(out, json.dumps(found).encode())
"""


def test_a_process_that_may_fork_kills_its_fork_and_the_fork_has_less():
    """It signals nobody else than one process, with nothing but the end."""
    found = run(FORKS, None)
    refused = {"of_fork": [errno.EPERM] * 5, "of_itself": [errno.EPERM] * 4}
    assert found == {**refused, "status": -9, "was_killed": None}


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
