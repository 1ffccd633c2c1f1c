"""Probes of memory, shared memory and the limits on files and processes."""

from __future__ import annotations

import mmap
import os
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

from realrl.apps.doctor.finding import Finding, Probe, in_gib, note, ok, problem
from realrl.base.machine import memory_bytes

_LITTLE_BYTES = 4 << 30
"""Two workers of the demo take a little less."""
_SHM = Path("/dev/shm")
_LITTLE_SHM_BYTES = 1 << 30
_FEW_FILES = 1024
_ENOUGH_FILES = 8192
"""A master has some open files for each worker, and each worker some for each other one."""


def look_at_memory() -> Iterator[Finding]:
    """Yield how much memory is available, within the container's limit."""
    total, available = _of_host()
    limit = memory_bytes()
    found = f"{in_gib(available)} of {in_gib(total)} available"
    usable = available
    if limit < total:
        found += f", the container's limit is {in_gib(limit)}"
        usable = min(available, limit)
    if usable < _LITTLE_BYTES:
        means = "the demo of two workers may run out of memory, and the kernel then kills it"
        yield note("memory", found, means, "free memory, or raise the container's limit; use one worker")
    else:
        yield ok("memory", found)


def _of_host() -> tuple[int, int]:
    """Return the bytes in all, and those available without swapping. Source: Linux, proc_meminfo(5)."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    sizes = {}
    for line in lines:
        name, _, size = line.partition(":")
        kib = int(size.split()[0])
        sizes[name] = kib << 10
    return sizes["MemTotal"], sizes["MemAvailable"]


def look_at_shared_memory() -> Iterator[Finding]:
    """Yield whether anonymous shared memory works, and how much room `/dev/shm` has."""
    descriptor = os.memfd_create("realrl-doctor", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, mmap.PAGESIZE)
    with mmap.mmap(descriptor, mmap.PAGESIZE) as pages:
        pages[:4] = b"page"
        held = os.pread(descriptor, 4, 0) == b"page"
    os.close(descriptor)
    if held:
        yield ok("memfd", "anonymous shared memory works")
    else:
        yield problem(
            "memfd", "what one mapping wrote another does not see", "weights cannot move", "report it"
        )
    if not _SHM.is_dir():
        yield note("/dev/shm", "there is none", "NCCL and vLLM use it", "mount a tmpfs there")
    elif (free := shutil.disk_usage(_SHM).free) < _LITTLE_SHM_BYTES:
        means = "NCCL and vLLM use it, and fail where it is full; realrl's own messages do not"
        yield note("/dev/shm", f"{in_gib(free)} free", means, "for docker: --shm-size=8g, or --ipc=host")
    else:
        yield ok("/dev/shm", f"{in_gib(free)} free")


def look_at_limits() -> Iterator[Finding]:
    """Yield how many files a process may open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    is_limited = hard != resource.RLIM_INFINITY
    most = hard if is_limited else float("inf")
    found = f"{soft} open files, may be raised to {hard if is_limited else 'any number'}"
    do = "raise it: ulimit -Hn 65536, or LimitNOFILE of the service"
    if most < _FEW_FILES:
        yield problem("limits", found, "runs of several workers run out of files", do)
    elif most < _ENOUGH_FILES:
        yield note("limits", found, "runs of hundreds of workers run out of files", do)
    else:
        yield ok("limits", found)


PROBES = (
    Probe("memory", look_at_memory),
    Probe("memfd", look_at_shared_memory),
    Probe("limits", look_at_limits),
)
