"""A process that gives up for good what it does not need: network, programs, other processes, files.

The kernel filters its system calls by a list of what is allowed. Filters add up: a process that forks has one
that leaves it this, and each fork puts the stricter one on top.

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

_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _SECCOMP_MODE_FILTER = 1, 22, 38, 2
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000
_REFUSE, _UNKNOWN = _FAIL | errno.EPERM, _FAIL | errno.ENOSYS
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, (16, 24, 32)
"""Offsets in what a filter sees of a system call; both architectures are little-endian."""
_WORD, _NEGATIVE = 0xFFFFFFFF, 0x80000000
_MOST_FILES = 64

_READS = os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | 0o100000
"""Flags of an open that changes nothing; the last is O_LARGEFILE, which is 0 in Python."""
_DESCRIPTOR_COMMANDS = (fcntl.F_DUPFD, fcntl.F_DUPFD_CLOEXEC, fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_GETFL)
"""Of fcntl; F_SETOWN and F_SETSIG would have the kernel send signals to others."""
_FILE_COMMANDS = (termios.FIOCLEX, termios.FIONCLEX, termios.TCGETS)
"""Of ioctl: what opening a file needs."""
_CLONE_CHILD_SETTID, _CLONE_CHILD_CLEARTID = 0x01000000, 0x00200000
_FORK_FLAGS = signal.SIGCHLD | _CLONE_CHILD_SETTID | _CLONE_CHILD_CLEARTID
"""Of clone, as the C library's fork passes them: no thread, nothing shared, no namespaces."""


def confine(*, memory_bytes: int, may_fork: bool = False) -> None:
    """Take from this process, for good, what computing does not need; files can be read still, and what is
    open is left.

    One that may fork can kill processes as well: it is to run nothing but what it was written for.

    Raises:
        OSError: the kernel does not filter system calls, or does not know this architecture's.
    """
    for kind, most in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, _MOST_FILES),
    ):
        _limit(kind, most)
    _put_on(_filter(may_fork))


def fork_confinement() -> Callable[[], None]:
    """Prepare, in a process that may fork, what each of its forks calls to be confined as it need not be."""
    compiled = _filter(may_fork=False)
    return lambda: _put_on(compiled)


def check_confinement() -> None:
    """Confine a process that does nothing else, and a fork of it.

    Raises:
        OSError: that is not possible here.
    """
    command = [sys.executable, "-m", "realrl.base.confinement"]
    folders = os.pathsep.join(os.path.abspath(folder) for folder in sys.path)
    done = subprocess.run(command, env={"PYTHONPATH": folders}, capture_output=True, text=True)
    if done.returncode:
        *_, last = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise OSError(last)


def _limit(kind: int, most: int) -> None:
    """Bound a resource for good; what this process may not have anyway stays the bound."""
    _, hard = resource.getrlimit(kind)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (most, most))


def _filter(may_fork: bool) -> Program:
    machine = platform.machine()
    if not is_known(machine):
        raise OSError(errno.ENOSYS, f"no system calls are known for {machine}")
    return program(_steps(audit_architecture(machine), may_fork))


def _put_on(compiled: Program) -> None:
    call = ctypes.CDLL(None, use_errno=True).prctl
    # Without this only root may filter; and no program could be started with more rights than this process.
    if call(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or call(
        _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(compiled), 0, 0
    ):
        raise OSError(ctypes.get_errno(), f"system calls: {os.strerror(ctypes.get_errno())}")


def _steps(architecture: int, may_fork: bool) -> Iterator[Instruction]:
    yield load(_ARCHITECTURE)
    yield from give_unless_equal(architecture, _REFUSE)
    yield load(_NUMBER)
    for name in (*COMPUTING, *(FORKING if may_fork else ())):
        yield from _when(name, [give(_ALLOW)])
    # Their flags lie in memory, which a filter cannot read; without them the C library takes the older calls.
    for name in ("clone3", "openat2"):
        yield from _when(name, [give(_UNKNOWN)])
    for name, argument in (("open", 1), ("openat", 2)):
        yield from _when(name, [*_refuse_bits(argument, ~_READS & _WORD), give(_ALLOW)])
    yield from _when("fcntl", _allow_if(1, _DESCRIPTOR_COMMANDS))
    yield from _when("ioctl", _allow_if(1, _FILE_COMMANDS))
    # Of this process alone, which 0 stands for.
    yield from _when("prlimit64", _allow_if(0, [0]))
    yield from _when("sched_getaffinity", _allow_if(0, [0]))
    if may_fork:
        yield from _when("clone", _allow_if(0, [_FORK_FLAGS]))
        yield from _when("prctl", _allow_if(0, [_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS]))
        yield from _when("kill", _steps_of_kill())
    yield give(_REFUSE)


def _steps_of_kill() -> list[Instruction]:
    """One process may be killed: not a group of them (0 and below), and by no other signal."""
    one = [load(_ARGUMENTS[0]), *give_if_equal(0, _REFUSE), *give_if_at_least(_NEGATIVE, _REFUSE)]
    return [*one, *_allow_if(1, [signal.SIGKILL])]


def _refuse_bits(argument: int, bits: int) -> list[Instruction]:
    return [load(_ARGUMENTS[argument]), *give_if_any_bit(bits, _REFUSE)]


def _allow_if(argument: int, values: Iterable[int]) -> list[Instruction]:
    """Allow the call if that argument, the first being 0, is one of the values; refuse it otherwise."""
    steps = [load(_ARGUMENTS[argument])]
    for value in values:
        steps += give_if_equal(value, _ALLOW)
    return [*steps, give(_REFUSE)]


def _when(name: str, steps: list[Instruction]) -> list[Instruction]:
    """In the system call of that name, `steps`, which end with a verdict."""
    number = number_of(name)
    return [] if number is None else skip_unless_equal(number, steps)


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
