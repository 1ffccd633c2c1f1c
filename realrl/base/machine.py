"""How much memory and how many cores' time this process may take.

Source: Linux, cgroups(7); Documentation: admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst,
    scheduler/sched-bwc.rst.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")


def memory_bytes() -> int:
    """Return this host's memory, or what a container leaves of it, in bytes."""
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([host, *memory_limits()])


def memory_limits(root: Path = _GROUPS, own: Path = _OWN_GROUPS) -> Iterator[int]:
    """The limits, in bytes, of this process's control group and of those above it, if they have one."""
    for folder in _folders(root, own, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            text = _read(folder / name)
            if text.isdigit():
                yield int(text)


def cpu_quotas(root: Path = _GROUPS, own: Path = _OWN_GROUPS) -> Iterator[float]:
    """How many cores' time this process's control group and those above it may use, if they have a limit."""
    for folder in _folders(root, own, "cpu"):
        old = f"{_read(folder / 'cpu.cfs_quota_us')} {_read(folder / 'cpu.cfs_period_us')}"
        for text in (_read(folder / "cpu.max"), old):
            quota, _, period = text.partition(" ")
            if quota.isdigit() and period.isdigit():
                yield int(quota) / int(period)


def _folders(root: Path, own: Path, controller: str) -> Iterator[Path]:
    """The folders of this process's groups and of those above: version 2's, and version 1's of a controller.

    In a container the own group may be shown as the root, or by a path that only the host has.
    """
    for line in _read(own).splitlines():
        _, controllers, path = line.split(":", 2)
        top = root / controllers if controllers else root
        if controller in controllers.split(",") or not controllers:
            group = Path(f"{top}{path}")
            yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(top))


def _read(path: Path) -> str:
    """A file's text; empty where it cannot be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
