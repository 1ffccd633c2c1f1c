"""A script's end of the talk with `benchmarks.peer`: one JSON object a line.

In comes the job, then a line for each round, then the end of the file. Out goes a line that says ready, then
one of figures for each round. `talk = Exchange()` comes before any import that may print.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_RESET_PEAK = "5"


class Exchange:
    """Keeps the real stdout to itself: what anything else prints goes to stderr."""

    def __init__(self) -> None:
        _end_with_parent()
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._lines = iter(sys.stdin.readline, "")
        self.job = json.loads(next(self._lines))

    def ready(self, *packages: str) -> None:
        """Say that rounds may come, with the versions of these packages."""
        self._send({"ready": True, "versions": {name: version(name) for name in packages}})

    def rounds(self) -> Iterator[int]:
        """Their numbers, as they are asked for; each begins with the peak of memory as it is now."""
        for line in self._lines:
            _reset_peak_memory()
            self._round = json.loads(line)["round"]
            yield self._round

    def answer(self, seconds: float, tokens: int, **figures: float) -> None:
        """The figures of the round that was asked for; `tokens` counts the generated ones."""
        figures = {"tokens": tokens, "peak_memory_bytes": _peak_memory_bytes(), **figures}
        self._send({"round": self._round, "seconds": seconds, **figures})

    def _send(self, answer: dict) -> None:
        self._out.write(json.dumps(answer) + "\n")
        self._out.flush()


def _end_with_parent() -> None:
    """The kernel kills this process when the one that started it ends. Source: Linux, prctl(2)."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _reset_peak_memory() -> None:
    """Source: Linux, proc_pid_clear_refs(5)."""
    try:
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
    except OSError:  # then the peak is that of the process's whole life
        pass


def _peak_memory_bytes() -> int:
    """Of this process's resident memory, since it was last reset."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) << 10
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
