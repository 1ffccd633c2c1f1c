"""A process that gives up what it does not need: network, programs, other processes, files.

Source: Linux, seccomp(2), Documentation/userspace-api/seccomp_filter.rst, include/uapi/linux/seccomp.h;
system calls by number from arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

from realrl.base.bpf import (
    Instruction,
    give,
    give_if_any_bit,
    give_if_at_least,
    give_if_equal,
    give_unless_any_bit,
    give_unless_equal,
    load,
    program,
    skip_unless_equal,
)

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, (16, 24, 32)
"""Offsets in what a filter sees of a system call; both architectures are little-endian."""
_CLONE_THREAD = 0x10000
_OTHER_INTERFACE = 0x40000000
"""From here on numbers are of x86-64's x32 interface."""
_MOST_FILES = 64


class _Architecture(NamedTuple):
    audit: int
    clone: int
    opens: dict[int, int]
    """open where there is one, and openat: which argument has the flags."""
    tgkill: int
    prlimit: int
    refused: tuple[int, ...]
    """socket, socketpair, fork and vfork where there are, execve, execveat, kill, tkill, ptrace,
    process_vm_readv, process_vm_writev, rt_sigqueueinfo and rt_tgsigqueueinfo.
    """
    changes: tuple[int, ...]
    """What changes files by name or size: creat, truncate, ftruncate, fallocate, rename, mkdir, rmdir, link,
    unlink, symlink, mknod, chmod, chown, their kind with `f`, `l`, `at` and `2`, mount and umount2.
    """


_ARCHITECTURES = {
    "x86_64": _Architecture(
        audit=0xC000003E,
        clone=56,
        opens={2: 1, 257: 2},
        tgkill=234,
        prlimit=302,
        refused=(41, 53, 57, 58, 59, 322, 62, 200, 101, 310, 311, 129, 297),
        changes=(85, 76, 77, 285, *range(82, 85), *range(86, 89), *range(90, 95), 133, *range(258, 261))
        + (263, 264, 265, 266, 268, 316, 165, 166),
    ),
    "aarch64": _Architecture(
        audit=0xC00000B7,
        clone=220,
        opens={56: 2},
        tgkill=131,
        prlimit=261,
        refused=(198, 199, 221, 281, 129, 130, 117, 270, 271, 138, 240),
        changes=(*range(33, 39), 39, 40, 45, 46, 47, *range(52, 56), 276),
    ),
}
_REFUSED_EVERYWHERE = (424, 425, 434, 438, 452)
"""pidfd_send_signal, io_uring_setup (which knows sockets of its own), pidfd_open, pidfd_getfd, fchmodat2."""
_CLONE3, _OPENAT2 = 435, 437
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def confine(*, memory_bytes: int) -> None:
    """Take from this process, for good, what it does not need: sockets, programs, other processes, changing
    files, and memory beyond `memory_bytes`. Threads are left, reading files, and what is open.

    Raises:
        OSError: the kernel does not filter system calls, or does not know this architecture's.
    """
    for kind, most in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, _MOST_FILES),
    ):
        limit(kind, most)
    _filter_system_calls()


def check_confinement() -> None:
    """Confine a process that does nothing else.

    Raises:
        OSError: that is not possible here.
    """
    command = [sys.executable, "-m", "realrl.base.confinement"]
    folders = os.pathsep.join(os.path.abspath(folder) for folder in sys.path)
    done = subprocess.run(command, env={"PYTHONPATH": folders}, capture_output=True, text=True)
    if done.returncode:
        *_, last = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise OSError(last)


def limit(kind: int, most: int) -> None:
    """Bound a resource for good; what this process may not have anyway stays the bound."""
    _, hard = resource.getrlimit(kind)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (most, most))


def limit_softly(kind: int, most: int) -> None:
    """Bound a resource until the next call, within what this process may have."""
    _, hard = resource.getrlimit(kind)
    soft = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (soft, hard))


def _filter_system_calls() -> None:
    """A limit on processes would count the user's others, and not bind root: so the calls are refused."""
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        raise OSError(errno.ENOSYS, f"no system calls are known for {machine}")
    call = ctypes.CDLL(None, use_errno=True).prctl
    compiled = program(_steps(_ARCHITECTURES[machine]))
    # Without this only root may filter; and no program could be started with more rights than this process.
    if call(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or call(
        _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(compiled), 0, 0
    ):
        raise OSError(ctypes.get_errno(), f"system calls: {os.strerror(ctypes.get_errno())}")


def _steps(architecture: _Architecture) -> Iterator[Instruction]:
    refuse, unknown = _FAIL | errno.EPERM, _FAIL | errno.ENOSYS
    yield load(_ARCHITECTURE)
    yield from give_unless_equal(architecture.audit, refuse)
    yield load(_NUMBER)
    yield from give_if_at_least(_OTHER_INTERFACE, refuse)
    for number in (*architecture.refused, *architecture.changes, *_REFUSED_EVERYWHERE):
        yield from give_if_equal(number, refuse)
    # Their flags lie in memory, which a filter cannot read; without them the C library takes the older calls.
    for number in (_CLONE3, _OPENAT2):
        yield from give_if_equal(number, unknown)
    for number, argument in architecture.opens.items():
        yield from _when(number, argument, give_if_any_bit(_WRITES, refuse))
    yield from _when(architecture.tgkill, 0, give_unless_equal(os.getpid(), refuse))
    yield from _when(architecture.prlimit, 0, give_unless_equal(0, refuse))
    yield from _when(architecture.clone, 0, give_unless_any_bit(_CLONE_THREAD, refuse))
    yield give(_ALLOW)


def _when(number: int, argument: int, steps: list[Instruction]) -> list[Instruction]:
    """In the call of that number, `steps` on one of its arguments, the first being 0."""
    return skip_unless_equal(number, [load(_ARGUMENTS[argument]), *steps, load(_NUMBER)])


if __name__ == "__main__":
    confine(memory_bytes=1 << 30)
