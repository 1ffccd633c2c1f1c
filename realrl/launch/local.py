"""Workers as child processes on this machine.

launcher ── forks of one process that has imported what they need (Linux) ──▶ workers
   └─────── or a process each: elsewhere, and for another command ──────────▶ workers
"""

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
from realrl.launch.fork_server import ForkRequest
from realrl.launch.forking import AdoptedProcess, Forking, ForkServer
from realrl.launch.workers import IMPORTS, WORKER_MODULE, device_settings, thread_limits


class LocalLauncher:
    """Launcher of workers on this machine, each in its own session: a Ctrl-C reaches only the master."""

    host = "127.0.0.1"
    shares_proc = True

    def __init__(
        self,
        command: Sequence[str] | None = None,
        *,
        device: str = "cpu",
        module: str = WORKER_MODULE,
        imports: Sequence[str] = IMPORTS,
    ) -> None:
        """Prepare to start workers: `command`, or without one the function `main` of `module`.

        `imports` are modules that every worker needs. On Linux they are imported once.
        """
        self._device = device
        self._module = module
        self._imports = imports
        self._command = command
        if command is None and not sys.platform.startswith("linux"):
            self._command = (sys.executable, "-m", module)
        self._num_workers = 0
        self._processes: dict[int, subprocess.Popen | AdoptedProcess] = {}
        self._forking: Forking | None = None
        self._log_directory = Path()

    def start(self, num_workers: int, environment: Mapping[str, str], log_directory: Path) -> None:
        """Start every worker; those that are forked come into being later."""
        self._processes = {}
        self._num_workers = num_workers
        self._log_directory = log_directory
        log_directory.mkdir(parents=True, exist_ok=True)
        settings = device_settings(self._device, os.environ)
        # Libraries read their settings when they are loaded, so a fork server has them too.
        shared = {**os.environ, **settings, **_shared_cores(num_workers, os.environ)}
        shared["GLOO_SOCKET_IFNAME"] = "lo"
        shared[PARENT_VARIABLE] = str(os.getpid())
        if self._command is None:
            self._forking = self._fork_workers(shared, environment)
            return
        for rank in range(num_workers):
            own = {RANK_VARIABLE: str(rank), LOCAL_RANK_VARIABLE: str(rank)}
            process = self._start_worker(self._command, rank, {**shared, **environment, **own})
            self._processes[rank] = process

    def _fork_workers(self, shared: Mapping[str, str], environment: Mapping[str, str]) -> Forking:
        """Start a fork server with the variables `shared`, and request workers with `environment` too."""
        logs: list[str] = []
        for rank in range(self._num_workers):
            log = self.log_path(rank).absolute()
            log.touch()
            logs.append(str(log))
        request = ForkRequest(self._module, dict(environment), tuple(logs))
        server = ForkServer(self._imports, shared, self.log_path(0))
        return Forking(server, request)

    def _start_worker(
        self, command: Sequence[str], rank: int, environment: Mapping[str, str]
    ) -> subprocess.Popen:
        """Start one worker, whose output is appended to its log."""
        with self.log_path(rank).open("ab") as log:
            return subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def pids(self) -> list[int]:
        """Process ids by rank, once every worker is there."""
        self._take_in()
        return [process.pid for _, process in sorted(self._processes.items())]

    def poll(self) -> list[tuple[int, int]]:
        """Return the rank and return code of each worker that has ended."""
        self._take_in()
        ended: list[tuple[int, int]] = []
        for rank in range(self._num_workers):
            code = self._code(rank)
            if code is not None:
                ended.append((rank, code))
        return ended

    def _code(self, rank: int) -> int | None:
        """Return a worker's return code; None while it runs, or may still come into being."""
        if rank in self._processes:
            return self._processes[rank].poll()
        assert self._forking, f"worker {rank} was not started"
        return self._forking.failure()

    def _take_in(self) -> None:
        """Find the workers that were forked since the last call."""
        if self._forking:
            self._processes.update(self._forking.forked())

    def explain(self) -> str:
        """Return nothing: this launcher loses no nodes."""
        return ""

    def log_path(self, rank: int) -> Path:
        """Return the file of a worker's output."""
        return self._log_directory / f"worker-{rank}.log"

    def dump_stacks(self) -> None:
        """Ask every worker for its stacks, and what is to fork workers."""
        if self._forking:
            self._forking.dump_stack()
        for process in self._alive():
            process.send_signal(signal.SIGUSR1)

    def states(self, ranks: Collection[int]) -> Mapping[int, str]:
        """Return the state of each rank's process, where there is one."""
        self._take_in()
        return {rank: state_of(self._processes[rank].pid) for rank in ranks if rank in self._processes}

    def wait(self, timeout_s: float) -> None:
        """Wait until all workers have ended, for at most `timeout_s`."""
        deadline_s = time.monotonic() + timeout_s
        while self._alive() and time.monotonic() < deadline_s:
            time.sleep(0.02)

    def stop(self, grace_s: float) -> None:
        """End every worker and its children, by force after `grace_s`."""
        if self._forking:
            self._processes.update(self._forking.cut_short(grace_s))
        for sign in (signal.SIGTERM, signal.SIGKILL):
            for process in self._processes.values():
                _signal_group(process, sign)
            self.wait(grace_s)

    def close(self) -> None:
        """Do nothing: this launcher holds no resources."""

    def _alive(self) -> list[subprocess.Popen | AdoptedProcess]:
        self._take_in()
        return [process for process in self._processes.values() if process.poll() is None]


def _shared_cores(num_workers: int, given: Mapping[str, str]) -> dict[str, str]:
    """Return the limits with which the workers share this process's cores evenly.

    A lower limit that the user has `given` holds: other programs may need the other cores.
    """
    num_cores = len(os.sched_getaffinity(0))
    num_threads = max(1, num_cores // num_workers)
    # OpenMP allows a list, with a limit for each level of nested parallelism.
    most = given.get("OMP_NUM_THREADS", "").partition(",")[0]
    if most.isdecimal() and int(most) > 0:
        num_threads = min(num_threads, int(most))
    return thread_limits(num_threads)


def _signal_group(process: subprocess.Popen | AdoptedProcess, sign: signal.Signals) -> None:
    """Signal a worker and its children.

    The group has the worker's pid as its number, and exists as long as any member lives.
    """
    try:
        os.killpg(process.pid, sign)
    except ProcessLookupError:
        pass
