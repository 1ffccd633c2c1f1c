"""What the processes of a run take, seen from outside.

Source: Linux, proc(5).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from realrl.launch.workers import WORKER_MODULE

_PROC = Path("/proc")
_OWN_MEMORY = ("Pss_Anon", "Pss_Shmem")
"""What files on disk take depends on who else has them open."""


class Usage(NamedTuple):
    """Of one process or more."""

    processes: int
    memory_bytes: int
    """Anonymous and in shared memory; of what several share, a part."""
    fds: int
    threads: int


def usage_by_role(master: int) -> dict[str, Usage]:
    """Of the process `master`, of each worker, and of all that workers start, together."""
    found: dict[str, Usage] = {}
    for role, pid in _tree(master):
        try:
            own = _usage(pid)
        except (FileNotFoundError, ProcessLookupError):  # it has ended
            continue
        found[role] = Usage(*map(sum, zip(found.get(role, (0, 0, 0, 0)), own)))
    return found


def peak_mib(master: int) -> float:
    """The most resident memory that one of a process's descendants has had so far, itself left out.

    A child that has not begun its own program yet still is a copy of the process, and left out too.
    """
    own_command = _command(master)
    found = [_high_water_mib(pid) for _, pid in _tree(master) if _command(pid) not in (own_command, b"")]
    return max(found, default=0.0)


def _command(pid: int) -> bytes:
    """Empty where the process has ended."""
    try:
        return (_PROC / str(pid) / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def _high_water_mib(pid: int) -> float:
    try:
        lines = (_PROC / str(pid) / "status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return 0.0
    kib = next((line.split()[1] for line in lines if line.startswith("VmHWM:")), 0)
    return int(kib) / 1024


def _tree(master: int) -> Iterator[tuple[str, int]]:
    """The master's descendants, with their roles."""
    parents = dict(_parents())
    yield "master", master
    role_of = {master: "master"}
    while new := {pid: parent for pid, parent in parents.items() if parent in role_of and pid not in role_of}:
        for pid in sorted(new):
            role_of[pid] = _worker(pid) or "their children"
            yield role_of[pid], pid


def _parents() -> Iterator[tuple[int, int]]:
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            try:
                _, _, rest = (entry / "stat").read_text().rpartition(")")
            except (FileNotFoundError, ProcessLookupError):
                continue
            yield int(entry.name), int(rest.split()[1])


def _worker(pid: int) -> str | None:
    """Its name, if it is a worker, by its log."""
    try:
        command = (_PROC / str(pid) / "cmdline").read_text().split("\0")
        output = (_PROC / str(pid) / "fd" / "1").readlink()
    except (FileNotFoundError, ProcessLookupError):
        return None
    kind, _, rank = output.stem.partition("-")
    return f"worker {rank}" if WORKER_MODULE in command and kind == "worker" else None


def _usage(pid: int) -> Usage:
    directory = _PROC / str(pid)
    kib: Counter[str] = Counter()
    for line in (directory / "smaps_rollup").read_text().splitlines()[1:]:
        name, _, value = line.partition(":")
        kib[name] = int(value.split()[0])
    return Usage(
        processes=1,
        memory_bytes=sum(kib[name] for name in _OWN_MEMORY) << 10,
        fds=len(list((directory / "fd").iterdir())),
        threads=len(list((directory / "task").iterdir())),
    )
