"""The system calls that a process which only computes needs, by number.

Source: Linux, arch/x86/entry/syscalls/syscall_64.tbl; include/uapi/asm-generic/unistd.h (aarch64).
"""

from __future__ import annotations

import platform
from typing import NamedTuple

X86_64, AARCH64 = "x86_64", "aarch64"


class _Numbers(NamedTuple):
    """The numbers of one system call; None where an architecture has none."""

    x86_64: int | None
    aarch64: int | None


COMPUTING = {
    # Open files, and the attributes of others. `open` and `openat` depend on their flags.
    "read": _Numbers(0, 63),
    "write": _Numbers(1, 64),
    "close": _Numbers(3, 57),
    "close_range": _Numbers(436, 436),
    "lseek": _Numbers(8, 62),
    "pread64": _Numbers(17, 67),
    "readv": _Numbers(19, 65),
    "writev": _Numbers(20, 66),
    "dup": _Numbers(32, 23),
    "dup2": _Numbers(33, None),
    "dup3": _Numbers(292, 24),
    "stat": _Numbers(4, None),
    "fstat": _Numbers(5, 80),
    "lstat": _Numbers(6, None),
    "newfstatat": _Numbers(262, 79),
    "statx": _Numbers(332, 291),
    "access": _Numbers(21, None),
    "faccessat": _Numbers(269, 48),
    "faccessat2": _Numbers(439, 439),
    "readlink": _Numbers(89, None),
    "readlinkat": _Numbers(267, 78),
    "getdents64": _Numbers(217, 61),
    "getcwd": _Numbers(79, 17),
    "poll": _Numbers(7, None),
    "ppoll": _Numbers(271, 73),
    "select": _Numbers(23, None),
    "pselect6": _Numbers(270, 72),
    # Memory of its own.
    "mmap": _Numbers(9, 222),
    "mprotect": _Numbers(10, 226),
    "munmap": _Numbers(11, 215),
    "mremap": _Numbers(25, 216),
    "madvise": _Numbers(28, 233),
    "brk": _Numbers(12, 214),
    "futex": _Numbers(202, 98),
    # Time, random numbers, and the process's identity.
    "clock_gettime": _Numbers(228, 113),
    "clock_getres": _Numbers(229, 114),
    "clock_nanosleep": _Numbers(230, 115),
    "nanosleep": _Numbers(35, 101),
    "gettimeofday": _Numbers(96, 169),
    "time": _Numbers(201, None),
    "times": _Numbers(100, 153),
    "getrandom": _Numbers(318, 278),
    "getpid": _Numbers(39, 172),
    "getppid": _Numbers(110, 173),
    "gettid": _Numbers(186, 178),
    "getuid": _Numbers(102, 174),
    "geteuid": _Numbers(107, 175),
    "getgid": _Numbers(104, 176),
    "getegid": _Numbers(108, 177),
    "uname": _Numbers(63, 160),
    "sysinfo": _Numbers(99, 179),
    "getcpu": _Numbers(309, 168),
    "getrlimit": _Numbers(97, 163),
    "getrusage": _Numbers(98, 165),
    # Its own signals, threads' housekeeping, and its end.
    "rt_sigaction": _Numbers(13, 134),
    "rt_sigprocmask": _Numbers(14, 135),
    "rt_sigreturn": _Numbers(15, 139),
    "sigaltstack": _Numbers(131, 132),
    "restart_syscall": _Numbers(219, 128),
    "sched_yield": _Numbers(24, 124),
    "set_robust_list": _Numbers(273, 99),
    "rseq": _Numbers(334, 293),
    "exit": _Numbers(60, 93),
    "exit_group": _Numbers(231, 94),
}
"""Calls that are allowed with any arguments: none changes a file, another process or the system."""

FORKING = {
    "pipe2": _Numbers(293, 59),
    "wait4": _Numbers(61, 260),
}
"""Calls that are also allowed with any arguments in a process that forks."""

DEPENDING = {
    "open": _Numbers(2, None),
    "openat": _Numbers(257, 56),
    "fcntl": _Numbers(72, 25),
    "ioctl": _Numbers(16, 29),
    "prlimit64": _Numbers(302, 261),
    "sched_getaffinity": _Numbers(204, 123),
    "clone": _Numbers(56, 220),
    "kill": _Numbers(62, 129),
    "prctl": _Numbers(157, 167),
    "clone3": _Numbers(435, 435),
    "openat2": _Numbers(437, 437),
}
"""Calls that are allowed or refused by their arguments."""

_AUDIT = {X86_64: 0xC000003E, AARCH64: 0xC00000B7}


def audit_architecture(machine: str) -> int:
    """Return the kernel's number of an architecture (include/uapi/linux/audit.h)."""
    return _AUDIT[machine]


def is_known(machine: str) -> bool:
    """Whether the numbers of an architecture's system calls are known."""
    return machine in _AUDIT


def number_of(name: str, machine: str = platform.machine()) -> int | None:
    """Return the number of a system call; None if the architecture has none of this name."""
    known = COMPUTING | FORKING | DEPENDING
    numbers = known[name]
    if machine == X86_64:
        return numbers.x86_64
    return numbers.aarch64
