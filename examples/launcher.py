"""A launcher of your own: workers on this machine, each pinned to cores of its own.

    allocation: "*:d2"
    device: cpu
    launcher: examples/launcher.py:PinnedLauncher

Pinned workers keep their caches warm and never wait for each other's cores. The class has every method of
`realrl.api.launcher.Launcher`, so it is also a start for a launcher that reaches other machines: replace
`subprocess.Popen` by what your cluster offers, and answer `poll`, `states` and `stop` from there.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping
from pathlib import Path

from realrl.api.config import RunConfig
from realrl.api.launcher import LOCAL_RANK_VARIABLE, RANK_VARIABLE
from realrl.base.parent import PARENT_VARIABLE
from realrl.base.processes import state_of
from realrl.launch.workers import WORKER_MODULE, device_settings, thread_limits


class PinnedLauncher:
    """Starts one process a rank, each on an equal share of this process's cores."""

    host = "127.0.0.1"
    shares_proc = True

    def __init__(self, config: RunConfig, num_workers: int) -> None:
        cores = sorted(os.sched_getaffinity(0))
        if num_workers > len(cores):
            raise ValueError(f"{num_workers} workers need as many cores, this machine gives {len(cores)}")
        self._device = config.device
        self._cores = [set(cores[rank::num_workers]) for rank in range(num_workers)]
        self._processes: list[subprocess.Popen[bytes]] = []
        self._log_directory = Path()

    def start(self, num_workers: int, environment: Mapping[str, str], log_directory: Path) -> None:
        """Start every worker. After a failed attempt the run stops them all and calls this again."""
        log_directory.mkdir(parents=True, exist_ok=True)
        self._log_directory = log_directory
        settings = device_settings(self._device, os.environ)
        # A worker ends when this process does, even when this one is killed.
        parent = {PARENT_VARIABLE: str(os.getpid()), "GLOO_SOCKET_IFNAME": "lo"}
        self._processes = []
        for rank in range(num_workers):
            own = {RANK_VARIABLE: str(rank), LOCAL_RANK_VARIABLE: str(rank)}
            limits = thread_limits(len(self._cores[rank]))
            variables = {**os.environ, **settings, **limits, **environment, **parent, **own}
            self._processes.append(self._start_worker(rank, variables))

    def _start_worker(self, rank: int, variables: Mapping[str, str]) -> subprocess.Popen[bytes]:
        with self.log_path(rank).open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", WORKER_MODULE],
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the master, which then stops the workers
            )
        os.sched_setaffinity(process.pid, self._cores[rank])
        return process

    def poll(self) -> list[tuple[int, int]]:
        """Return (rank, exit code) of each worker that has ended; minus the signal's number, if by one."""
        codes = [process.poll() for process in self._processes]
        return [(rank, code) for rank, code in enumerate(codes) if code is not None]

    def explain(self) -> str:
        """Return nothing: an exit code says all that is known of a process on this machine."""
        return ""

    def log_path(self, rank: int) -> Path:
        """Return the file of a worker's output; messages about a failure name it."""
        return self._log_directory / f"worker-{rank}.log"

    def dump_stacks(self) -> None:
        """Ask every worker for its Python stacks, which go to its log."""
        for process in self._alive():
            process.send_signal(signal.SIGUSR1)

    def states(self, ranks: Collection[int]) -> Mapping[int, str]:
        """Return the state of each rank's process, as the kernel has it."""
        return {rank: state_of(self._processes[rank].pid) for rank in ranks}

    def wait(self, timeout_s: float) -> None:
        """Wait until all workers have ended, for at most `timeout_s`."""
        deadline_s = time.monotonic() + timeout_s
        while self._alive() and time.monotonic() < deadline_s:
            time.sleep(0.02)

    def stop(self, grace_s: float) -> None:
        """End every worker and its children: politely, then by force once `grace_s` has passed."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            for process in self._processes:
                try:
                    os.killpg(process.pid, sign)  # each worker leads a group with its own number
                except ProcessLookupError:
                    pass  # the whole group has ended
            self.wait(grace_s)

    def close(self) -> None:
        """Release what is held for workers: nothing here."""

    def _alive(self) -> list[subprocess.Popen[bytes]]:
        return [process for process in self._processes if process.poll() is None]
