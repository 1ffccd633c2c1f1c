"""The states of processes on this host.

Source: Linux, proc_pid_stat(5).
"""

from __future__ import annotations

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
_STATE = 0
_START = 19
"""These are fields, counted from the first after the command's name."""


def state_of(pid: int) -> str:
    """Return a process's state, such as `stopped (T)`; empty if it is not known."""
    fields = _fields(pid)
    if not fields:
        return ""
    letter = fields[_STATE]
    word = _STATES.get(letter, "in state")
    return f"{word} ({letter})"


def is_stopped(pid: int) -> bool:
    """Whether a signal or a debugger has stopped a process."""
    fields = _fields(pid)
    return bool(fields) and fields[_STATE] in "Tt"


def start_of(pid: int) -> int | None:
    """Return when a process started, in ticks since the host did; None if there is none, or it has ended.

    The time tells the process from a later one with the same id.
    """
    fields = _fields(pid)
    if not fields or fields[_STATE] in "ZX":
        return None
    return int(fields[_START])


def _fields(pid: int) -> list[str]:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return []
    _, _, after_name = text.rpartition(")")
    return after_name.split()
