"""How much memory this process may take."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP_LIMITS = (
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)
"""Of the group that this process is in, as its container shows them: version 2 and version 1.

Source: Linux, Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
"""


def memory_bytes() -> int:
    """Return this host's memory, or what a container leaves of it, in bytes."""
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = (_limit(Path(path)) for path in _CGROUP_LIMITS)
    return min([host, *(limit for limit in limits if limit is not None)])


def _limit(path: Path) -> int | None:
    """Return a group's limit; None where there is none, or no such file."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
