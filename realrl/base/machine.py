"""The memory and the processor time that this process may use.

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
    """Return this host's memory, or a container's limit, in bytes."""
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    num_pages = os.sysconf("SC_PHYS_PAGES")
    return min([page_bytes * num_pages, *memory_limits()])


def memory_limits(root: Path = _GROUPS, own: Path = _OWN_GROUPS) -> Iterator[int]:
    """Yield the limits, in bytes, of this process's control group and of the groups above it."""
    for folder in _folders(root, own, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            text = _read(folder / name)
            if text.isdigit():
                yield int(text)


def cpu_quotas(root: Path = _GROUPS, own: Path = _OWN_GROUPS) -> Iterator[float]:
    """Yield the limits, in cores, of this process's control group and of the groups above it."""
    for folder in _folders(root, own, "cpu"):
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        if quota.isdigit() and period.isdigit():
            yield int(quota) / int(period)
        # Version 1 has a file for each of the two numbers.
        quota = _read(folder / "cpu.cfs_quota_us")
        period = _read(folder / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit():
            yield int(quota) / int(period)


def _folders(root: Path, own: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of this process's groups and of the groups above.

    There are those of version 2, and those of version 1 for a controller. In a container, the own group may
    be shown as the root, or by a path that exists only on the host.
    """
    for line in _read(own).splitlines():
        _, controllers, path = line.split(":", 2)
        is_version_2 = not controllers
        if not is_version_2 and controller not in controllers.split(","):
            continue
        top = root if is_version_2 else root / controllers
        group = Path(f"{top}{path}")
        for folder in (group, *group.parents):
            if folder.is_relative_to(top):
                yield folder


def _read(path: Path) -> str:
    """Return a file's text; empty if it cannot be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
