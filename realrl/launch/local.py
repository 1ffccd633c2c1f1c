"""Workers as child processes on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from realrl.api.launcher import LOCAL_RANK_VARIABLE, RANK_VARIABLE
from realrl.base.parent import PARENT_VARIABLE
from realrl.base.processes import state_of
from realrl.launch.workers import WORKER_MODULE, device_settings, thread_limits

WORKER = (sys.executable, "-m", WORKER_MODULE)


class LocalLauncher:
    """Starts each worker in a session of its own, so that a Ctrl-C reaches the master alone."""

    host = "127.0.0.1"
    shares_proc = True

    def __init__(self, command: Sequence[str] = WORKER, *, device: str = "cpu") -> None:
        self._command, self._device = list(command), device
        self._processes: list[subprocess.Popen] = []
        self._log_directory = Path()

    def start(self, num_workers: int, environment: Mapping[str, str], log_directory: Path) -> None:
        self._processes, self._log_directory = [], log_directory
        log_directory.mkdir(parents=True, exist_ok=True)
        shared = {**os.environ, **device_settings(self._device, os.environ), **_shared_cores(num_workers)}
        shared |= {**environment, "GLOO_SOCKET_IFNAME": "lo", PARENT_VARIABLE: str(os.getpid())}
        for rank in range(num_workers):
            own = {RANK_VARIABLE: str(rank), LOCAL_RANK_VARIABLE: str(rank)}
            with self.log_path(rank).open("ab") as log:
                self._processes.append(
                    subprocess.Popen(
                        self._command,
                        env={**shared, **own},
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        start_new_session=True,
                    )
                )

    @property
    def pids(self) -> list[int]:
        """By rank."""
        return [process.pid for process in self._processes]

    def poll(self) -> list[tuple[int, int]]:
        codes = ((rank, process.poll()) for rank, process in enumerate(self._processes))
        return [(rank, code) for rank, code in codes if code is not None]

    def explain(self) -> str:
        return ""

    def log_path(self, rank: int) -> Path:
        return self._log_directory / f"worker-{rank}.log"

    def dump_stacks(self) -> None:
        for process in self._alive():
            process.send_signal(signal.SIGUSR1)

    def states(self, ranks: Collection[int]) -> Mapping[int, str]:
        return {rank: state_of(self.pids[rank]) for rank in ranks}

    def wait(self, timeout_s: float) -> None:
        deadline_s = time.monotonic() + timeout_s
        while self._alive() and time.monotonic() < deadline_s:
            time.sleep(0.02)

    def stop(self, grace_s: float) -> None:
        for sign in (signal.SIGTERM, signal.SIGKILL):
            for process in self._processes:
                _signal_group(process, sign)
            self.wait(grace_s)

    def close(self) -> None:
        """Nothing is held."""

    def _alive(self) -> list[subprocess.Popen]:
        return [process for process in self._processes if process.poll() is None]


def _shared_cores(num_workers: int) -> dict[str, str]:
    return thread_limits(max(1, len(os.sched_getaffinity(0)) // num_workers))


def _signal_group(process: subprocess.Popen, sign: signal.Signals) -> None:
    """Reach the worker's children too; its group is named by its pid and lives as long as any member."""
    try:
        os.killpg(process.pid, sign)
    except ProcessLookupError:
        pass
