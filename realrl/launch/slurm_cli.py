"""SLURM's commands, each with a deadline."""

from __future__ import annotations

import subprocess

_WITHIN_S = 60.0
"""Deadline of a command."""
_LATE = 124
"""Exit code of a command that timed out, as `timeout` reports it."""


def ask(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command; a timeout is returned as a failure."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=_WITHIN_S)
    except subprocess.TimeoutExpired:
        why = f"{command[0]} did not answer within {_WITHIN_S:g} s"
        return subprocess.CompletedProcess(command, _LATE, "", why)
