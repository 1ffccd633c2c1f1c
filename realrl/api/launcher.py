"""What the master needs of whoever starts its workers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Protocol

RANK_VARIABLE = "REALRL_RANK"
LOCAL_RANK_VARIABLE = "LOCAL_RANK"


class Launcher(Protocol):
    """Starts one process a rank, and ends every one of them."""

    host: str
    """The master's address, as the workers see it."""
    shares_proc: bool
    """Whether every worker sees this process in its `/proc`: none is on another host or in a container."""

    def start(self, num_workers: int, environment: Mapping[str, str], log_directory: Path) -> None:
        """Start `realrl.apps.worker` with `environment`, its rank, and a log file each."""

    def poll(self) -> list[tuple[int, int]]:
        """(rank, return code) of workers that have ended; minus the signal's number, if by a signal."""

    def explain(self) -> str:
        """Why workers ended, where that is more than an end of theirs, as a node that was lost; else empty.

        It may take seconds to find out.
        """

    def log_path(self, rank: int) -> Path:
        """Where a worker's output goes."""

    def dump_stacks(self) -> None:
        """Have every worker write its Python stacks to its log."""

    def states(self, ranks: Collection[int]) -> Mapping[int, str]:
        """What their systems say of workers' processes, as `stopped (T)`, where that is known."""

    def wait(self, timeout_s: float) -> None:
        """Return when every worker has ended, or after `timeout_s`."""

    def stop(self, grace_s: float) -> None:
        """End every worker and its children: politely, and after `grace_s` by force; `start` may follow."""

    def close(self) -> None:
        """Give back what is held for workers."""
