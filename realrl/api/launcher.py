"""What the master needs from the launcher that starts its workers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Protocol

RANK_VARIABLE = "REALRL_RANK"
LOCAL_RANK_VARIABLE = "LOCAL_RANK"


class Launcher(Protocol):
    """Starts one process for each rank, and ends all of them."""

    @property
    def host(self) -> str:
        """The master's address, as the workers see it."""

    @property
    def shares_proc(self) -> bool:
        """Whether every worker sees this process in `/proc`: none is on another host or in a container."""

    def start(self, num_workers: int, environment: Mapping[str, str], log_directory: Path) -> None:
        """Start `realrl.apps.worker` for each rank, with `environment`, its rank and a log file."""

    def poll(self) -> list[tuple[int, int]]:
        """Return (rank, return code) of each worker that has ended.

        The code of a worker that a signal ended is minus the signal's number.
        """

    def explain(self) -> str:
        """Return why workers ended, where the reason is not their own, such as a lost node; else empty.

        Finding out may take seconds.
        """

    def log_path(self, rank: int) -> Path:
        """Return the path of a worker's log."""

    def dump_stacks(self) -> None:
        """Make every worker write its Python stacks to its log."""

    def states(self, ranks: Collection[int]) -> Mapping[int, str]:
        """Return the states of workers' processes, as `stopped (T)`, as far as their systems tell."""

    def wait(self, timeout_s: float) -> None:
        """Return when every worker has ended, or after `timeout_s`."""

    def stop(self, grace_s: float) -> None:
        """End every worker and its children: by SIGTERM, and after `grace_s` by force; `start` may follow."""

    def close(self) -> None:
        """Release the resources that are held for workers."""
