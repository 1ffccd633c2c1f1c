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
    """Launcher of workers on this machine, each in its own session: a Ctrl-C reaches only the master."""

    host = "127.0.0.1"
    shares_proc = True

    def __init__(self, command: Sequence[str] = WORKER, *, device: str = "cpu") -> None:
        self._command = list(command)
        self._device = device
        self._processes: list[subprocess.Popen] = []
        self._log_directory = Path()

    def start(self, num_workers: int, environment: Mapping[str, str], log_directory: Path) -> None:
        """Start every worker."""
        self._processes = []
        self._log_directory = log_directory
        log_directory.mkdir(parents=True, exist_ok=True)
        settings = device_settings(self._device, os.environ)
        shared = {**os.environ, **settings, **_shared_cores(num_workers), **environment}
        shared["GLOO_SOCKET_IFNAME"] = "lo"
        shared[PARENT_VARIABLE] = str(os.getpid())
        for rank in range(num_workers):
            own = {RANK_VARIABLE: str(rank), LOCAL_RANK_VARIABLE: str(rank)}
            process = self._start_worker(rank, {**shared, **own})
            self._processes.append(process)

    def _start_worker(self, rank: int, environment: Mapping[str, str]) -> subprocess.Popen:
        """Start one worker, whose output is appended to its log."""
        with self.log_path(rank).open("ab") as log:
            return subprocess.Popen(
                self._command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def pids(self) -> list[int]:
        """Process ids by rank."""
        return [process.pid for process in self._processes]

    def poll(self) -> list[tuple[int, int]]:
        """Return the rank and return code of each worker that has ended."""
        ended: list[tuple[int, int]] = []
        for rank, process in enumerate(self._processes):
            code = process.poll()
            if code is not None:
                ended.append((rank, code))
        return ended

    def explain(self) -> str:
        """Return nothing: this launcher loses no nodes."""
        return ""

    def log_path(self, rank: int) -> Path:
        """Return the file of a worker's output."""
        return self._log_directory / f"worker-{rank}.log"

    def dump_stacks(self) -> None:
        """Ask every worker for its stacks."""
        for process in self._alive():
            process.send_signal(signal.SIGUSR1)

    def states(self, ranks: Collection[int]) -> Mapping[int, str]:
        """Return the state of each rank's process."""
        return {rank: state_of(self.pids[rank]) for rank in ranks}

    def wait(self, timeout_s: float) -> None:
        """Wait until all workers have ended, for at most `timeout_s`."""
        deadline_s = time.monotonic() + timeout_s
        while self._alive() and time.monotonic() < deadline_s:
            time.sleep(0.02)

    def stop(self, grace_s: float) -> None:
        """End every worker and its children, by force after `grace_s`."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            for process in self._processes:
                _signal_group(process, sign)
            self.wait(grace_s)

    def close(self) -> None:
        """Do nothing: this launcher holds no resources."""

    def _alive(self) -> list[subprocess.Popen]:
        return [process for process in self._processes if process.poll() is None]


def _shared_cores(num_workers: int) -> dict[str, str]:
    """Return the limits with which the workers share this process's cores evenly."""
    num_cores = len(os.sched_getaffinity(0))
    return thread_limits(max(1, num_cores // num_workers))


def _signal_group(process: subprocess.Popen, sign: signal.Signals) -> None:
    """Signal a worker and its children.

    The group has the worker's pid as its number, and exists as long as any member lives.
    """
    try:
        os.killpg(process.pid, sign)
    except ProcessLookupError:
        pass
