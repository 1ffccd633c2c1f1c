"""A process that gives up for good what it does not need: network, programs, other processes, files.

The kernel filters its system calls by a list of allowed ones. Filters add up: a process that forks has a
filter that allows forks, and each fork adds the stricter one.

    process ──confine(may_fork=True)──▶ computes, forks, kills what it forked
                                          │ fork
                                          ▼
                                        fork ──confine_fork()──▶ computes

Source: Linux, seccomp(2), Documentation/userspace-api/seccomp_filter.rst, include/uapi/linux/seccomp.h.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import resource
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterable, Iterator

from realrl.base.bpf import (
    Instruction,
    Program,
    give,
    give_if_any_bit,
    give_if_at_least,
    give_if_equal,
    give_unless_equal,
    load,
    program,
    skip_unless_equal,
)
from realrl.base.system_calls import COMPUTING, FORKING, audit_architecture, is_known, number_of

_PR_SET_PDEATHSIG = 1
_PR_SET_SECCOMP = 22
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_MODE_FILTER = 2
_ALLOW = 0x7FFF0000
_FAIL = 0x00050000
_REFUSE = _FAIL | errno.EPERM
_UNKNOWN = _FAIL | errno.ENOSYS
_NUMBER = 0
_ARCHITECTURE = 4
_ARGUMENTS = (16, 24, 32)
"""These are offsets in a system call as a filter sees it; both architectures are little-endian."""
_WORD = 0xFFFFFFFF
_NEGATIVE = 0x80000000
_MOST_FILES = 64

_READS = os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | 0o100000
"""Flags of an open that changes nothing; the last is O_LARGEFILE, which is 0 in Python."""
_DESCRIPTOR_COMMANDS = (fcntl.F_DUPFD, fcntl.F_DUPFD_CLOEXEC, fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_GETFL)
"""Allowed commands of fcntl; with F_SETOWN and F_SETSIG the kernel would send signals to others."""
_FILE_COMMANDS = (termios.FIOCLEX, termios.FIONCLEX, termios.TCGETS)
"""Allowed commands of ioctl, which opening a file needs."""
_CLONE_CHILD_SETTID = 0x01000000
_CLONE_CHILD_CLEARTID = 0x00200000
_FORK_FLAGS = signal.SIGCHLD | _CLONE_CHILD_SETTID | _CLONE_CHILD_CLEARTID
"""Flags of clone that the C library's fork passes: no thread, nothing shared, no namespaces."""


def confine(*, memory_bytes: int, may_fork: bool = False) -> None:
    """Take from this process, for good, what computing does not need.

    Files can still be read, and open files stay open. A process that may fork can also kill processes: it
    must run nothing but its own code.

    Raises:
        OSError: the kernel does not filter system calls, or the architecture's calls are not known.
    """
    _limit(resource.RLIMIT_AS, memory_bytes)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_NOFILE, _MOST_FILES)
    _add_filter(_filter(may_fork))


def fork_confinement() -> Callable[[], None]:
    """Return a function that confines a fork of this process, which may fork, more strictly."""
    compiled = _filter(may_fork=False)
    return lambda: _add_filter(compiled)


def check_confinement() -> None:
    """Confine a process that does nothing else, and a fork of it.

    Raises:
        OSError: that is not possible on this host.
    """
    folders = [os.path.abspath(folder) for folder in sys.path]
    done = subprocess.run(
        [sys.executable, "-m", "realrl.base.confinement"],
        env={"PYTHONPATH": os.pathsep.join(folders)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        message = lines[-1] if lines else f"exit code {done.returncode}"
        raise OSError(message)


def _limit(kind: int, most: int) -> None:
    """Bound a resource for good; a lower bound of this process stays."""
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(kind, (most, most))


def _filter(may_fork: bool) -> Program:
    machine = platform.machine()
    if not is_known(machine):
        raise OSError(errno.ENOSYS, f"no system calls are known for {machine}")
    architecture = audit_architecture(machine)
    return program(_steps(architecture, may_fork))


def _add_filter(compiled: Program) -> None:
    # Without this, only root may filter. No program that is started gets more rights than this process.
    _prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(compiled), 0, 0)


def _prctl(*arguments: object) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"system calls: {os.strerror(number)}")


def _steps(architecture: int, may_fork: bool) -> Iterator[Instruction]:
    yield load(_ARCHITECTURE)
    yield from give_unless_equal(architecture, _REFUSE)
    yield load(_NUMBER)
    for name in COMPUTING:
        yield from _when(name, [give(_ALLOW)])
    # Their flags lie in memory, which a filter cannot read. The C library then uses the older calls.
    yield from _when("clone3", [give(_UNKNOWN)])
    yield from _when("openat2", [give(_UNKNOWN)])
    yield from _when("open", _allow_reads(1))
    yield from _when("openat", _allow_reads(2))
    yield from _when("fcntl", _allow_if(1, _DESCRIPTOR_COMMANDS))
    yield from _when("ioctl", _allow_if(1, _FILE_COMMANDS))
    # 0 is this process, the only one that they may look at.
    yield from _when("prlimit64", _allow_if(0, [0]))
    yield from _when("sched_getaffinity", _allow_if(0, [0]))
    if may_fork:
        yield from _steps_of_forking()
    yield give(_REFUSE)


def _steps_of_forking() -> Iterator[Instruction]:
    for name in FORKING:
        yield from _when(name, [give(_ALLOW)])
    own_settings = [_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS]
    yield from _when("clone", _allow_if(0, [_FORK_FLAGS]))
    yield from _when("prctl", _allow_if(0, own_settings))
    yield from _when("kill", _steps_of_kill())


def _steps_of_kill() -> list[Instruction]:
    """Allow to kill one process, but no group (0 and below), and with no other signal."""
    return [
        load(_ARGUMENTS[0]),
        *give_if_equal(0, _REFUSE),
        *give_if_at_least(_NEGATIVE, _REFUSE),
        *_allow_if(1, [signal.SIGKILL]),
    ]


def _allow_reads(argument: int) -> list[Instruction]:
    """Allow to open a file if the flags, which are that argument, change nothing."""
    return [
        load(_ARGUMENTS[argument]),
        *give_if_any_bit(~_READS & _WORD, _REFUSE),
        give(_ALLOW),
    ]


def _allow_if(argument: int, values: Iterable[int]) -> list[Instruction]:
    """Allow the call if that argument, counted from 0, is one of the values; refuse it otherwise."""
    steps = [load(_ARGUMENTS[argument])]
    for value in values:
        steps += give_if_equal(value, _ALLOW)
    return [*steps, give(_REFUSE)]


def _when(name: str, steps: list[Instruction]) -> list[Instruction]:
    """Run `steps`, which end with a verdict, in the system call of that name."""
    number = number_of(name)
    if number is None:
        return []
    return skip_unless_equal(number, steps)


def _main() -> None:
    confine(memory_bytes=1 << 30, may_fork=True)
    confine_fork = fork_confinement()
    if os.fork() == 0:
        confine_fork()
        os._exit(0)

    _, status = os.wait()
    if status:
        raise OSError(errno.EPERM, "a fork of a confined process cannot be confined")


if __name__ == "__main__":
    _main()
