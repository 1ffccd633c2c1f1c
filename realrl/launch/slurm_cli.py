"""SLURM's commands, each with a deadline."""

from __future__ import annotations

import subprocess

_WITHIN_S = 60.0
_LATE = 124


def ask(*command: str) -> subprocess.CompletedProcess[str]:
    """What a command came to; one that does not answer in time has failed, and says so."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=_WITHIN_S)
    except subprocess.TimeoutExpired:
        why = f"{command[0]} did not answer within {_WITHIN_S:g} s"
        return subprocess.CompletedProcess(command, _LATE, "", why)
