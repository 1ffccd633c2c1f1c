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
from collections.abc import Iterator
from typing import NamedTuple

from realrl.base.bpf import (
    Instruction,
    give,
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
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
"""Offsets in what a filter sees of a system call; both architectures are little-endian."""
_CLONE_THREAD = 0x10000
_OTHER_INTERFACE = 0x40000000
"""From here on numbers are of x86-64's x32 interface."""
_MOST_FILES = 64


class _Architecture(NamedTuple):
    audit: int
    clone: int
    refused: tuple[int, ...]
    """socket, socketpair, fork and vfork where there are, execve, execveat, kill, tkill, ptrace,
    process_vm_readv and process_vm_writev.
    """


_ARCHITECTURES = {
    "x86_64": _Architecture(0xC000003E, 56, (41, 53, 57, 58, 59, 322, 62, 200, 101, 310, 311)),
    "aarch64": _Architecture(0xC00000B7, 220, (198, 199, 221, 281, 129, 130, 117, 270, 271)),
}
_REFUSED_EVERYWHERE = (424, 425, 434, 438)
"""pidfd_send_signal, io_uring_setup (which knows sockets of its own), pidfd_open, pidfd_getfd."""
_CLONE3 = 435


def confine(*, memory_bytes: int) -> None:
    """Take from this process, for good, what it does not need: sockets, programs, other processes, writing to
    files, and memory beyond `memory_bytes`. Threads are left, and what files and pipes are open.

    Raises:
        OSError: the kernel does not filter system calls, or does not know this architecture's.
    """
    for kind, most in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, _MOST_FILES),
    ):
        resource.setrlimit(kind, (most, most))
    _filter_system_calls()


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
    refuse = _FAIL | errno.EPERM
    yield load(_ARCHITECTURE)
    yield from give_unless_equal(architecture.audit, refuse)
    yield load(_NUMBER)
    yield from give_if_at_least(_OTHER_INTERFACE, refuse)
    for number in (*architecture.refused, *_REFUSED_EVERYWHERE):
        yield from give_if_equal(number, refuse)
    # Its flags lie in memory, which a filter cannot read; without it the C library takes `clone`.
    yield from give_if_equal(_CLONE3, _FAIL | errno.ENOSYS)
    thread_only = [load(_FIRST_ARGUMENT), *give_unless_any_bit(_CLONE_THREAD, refuse)]
    yield from skip_unless_equal(architecture.clone, thread_only)
    yield give(_ALLOW)
