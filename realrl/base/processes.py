"""What the system says of processes on this host.

Source: Linux, proc_pid_stat(5).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path

_STATES = {
    "R": "running",
    "S": "sleeping",
    "D": "waiting for a disk",
    "T": "stopped",
    "t": "stopped by a debugger",
    "Z": "ended",
    "X": "ended",
}
_STATE, _START, _ARGUMENTS_START, _ARGUMENTS_END = 0, 19, 45, 46
"""Fields, counted from the first after the command's name."""


def state_of(pid: int) -> str:
    """Such as `stopped (T)`; empty where that cannot be known."""
    fields = _fields(pid)
    return f"{_STATES.get(fields[_STATE], 'in state')} ({fields[_STATE]})" if fields else ""


def is_stopped(pid: int) -> bool:
    """Whether a signal or a debugger has stopped a process."""
    fields = _fields(pid)
    return bool(fields) and fields[_STATE] in "Tt"


def start_of(pid: int) -> int | None:
    """When a process started, in ticks since the host did, which tells it from a later one of that id; None
    where there is no such process, or it has ended.
    """
    fields = _fields(pid)
    return int(fields[_START]) if fields and fields[_STATE] not in "ZX" else None


def _fields(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return []


def show_command(words: Sequence[str]) -> None:
    """Have the system show `words` as this process's command, cut to the room that its own command took.

    Source: Linux, proc_pid_stat(5), arg_start and arg_end; proc_pid_cmdline(5).
    """
    fields = _fields(os.getpid())
    start, end = int(fields[_ARGUMENTS_START]), int(fields[_ARGUMENTS_END])
    shown = "".join(f"{word}\0" for word in words).encode()
    ctypes.memmove(start, shown.ljust(end - start, b"\0"), end - start)
