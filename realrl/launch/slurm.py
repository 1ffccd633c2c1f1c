"""Workers as the tasks of one `srun`, within a job that SLURM has given nodes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from realrl.api.cluster import SlurmConfig
from realrl.api.config import RunConfig
from realrl.api.launcher import LOCAL_RANK_VARIABLE, RANK_VARIABLE
from realrl.base.network import address_towards, answers
from realrl.launch.slurm_cli import ask
from realrl.launch.workers import WORKER_MODULE, device_settings, lost_nodes, ranks_by_node, thread_limits
from realrl.runtime.failure import RunFailed

JOB_VARIABLE = "SLURM_JOB_ID"

_TASK = f'export {RANK_VARIABLE}="$SLURM_PROCID" {LOCAL_RANK_VARIABLE}="$SLURM_LOCALID"; exec "$@"'
_ANSWERS_S = 2.0
"""How long a node's daemon may take to answer before the node counts as lost."""


def inside_job() -> bool:
    """Whether SLURM has given this process nodes: in a job's script, or in an `salloc`."""
    return JOB_VARIABLE in os.environ


class SlurmLauncher:
    """The plan's ranks, one node of the job after another."""

    def __init__(self, config: RunConfig, num_workers: int) -> None:
        """
        Raises:
            ValueError: the job has fewer nodes than the plan needs.
        """
        self._config = config
        self._ranks = ranks_by_node(num_workers, config.devices_per_node)
        self._nodes = _job_nodes()[: len(self._ranks)]
        if len(self._nodes) < len(self._ranks):
            raise ValueError(
                f"allocation: {num_workers} ranks need {len(self._ranks)} nodes of devices_per_node="
                f"{config.devices_per_node}, SLURM's job {os.environ[JOB_VARIABLE]} has {len(self._nodes)}; "
                f"unset {JOB_VARIABLE} to submit a job of its own"
            )
        self.host = _own_address(self._nodes)
        self.shares_proc = False
        self._step: subprocess.Popen | None = None
        self._log_directory = Path()

    def start(self, num_workers: int, environment: Mapping[str, str], log_directory: Path) -> None:
        if self._step and (lost := self._lost()):
            raise RunFailed(f"{lost}; SLURM gives a job none in its place, but slurm.requeues a new job")
        self._log_directory = log_directory.resolve()
        settings = device_settings(self._config.device, os.environ)
        shared = {**os.environ, **settings, **thread_limits(self._config.cpus_per_worker), **environment}
        with self._step_log.open("wb") as log:
            self._step = subprocess.Popen(
                self._command(num_workers),
                env=shared,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _command(self, num_workers: int) -> list[str]:
        """Every task sees all devices of its node, so that they can reach each other's memory."""
        return [
            # A master that is killed takes `srun` with it, and that its tasks.
            *("setpriv", "--pdeathsig=TERM", "srun"),
            f"--ntasks={num_workers}",
            f"--nodes={len(self._nodes)}",
            f"--nodelist={','.join(self._nodes)}",
            f"--distribution=plane={self._config.devices_per_node}",
            f"--cpus-per-task={self._config.cpus_per_worker}",
            "--cpu-bind=cores",
            *(["--gpu-bind=none"] if self._config.device == "cuda" else []),
            "--export=ALL",
            "--kill-on-bad-exit=0",
            "--wait=0",
            "--input=none",
            "--verbose",
            "--open-mode=append",
            f"--output={str(self._log_directory).replace('%', '%%')}/worker-%t.log",
            *_within(self._config.slurm, self._config.device),
        ]

    def poll(self) -> list[tuple[int, int]]:
        """As `srun` has noted it; a task that it has not, when it ends itself, ended as it did."""
        ended = ended_tasks(self._said())
        if self._step and (code := self._step.poll()) is not None:
            ended = {rank: code for ranks in self._ranks for rank in ranks} | ended
        return sorted(ended.items())

    def explain(self) -> str:
        said = self._said()
        if (lost := self._lost()) or "tasks started" in said:
            return lost
        return f"srun started no worker: {said.strip().rpartition('error: ')[2]}"

    def _lost(self) -> str:
        """By what `srun` says, and by which daemons are silent, if SLURM's controller says where they are."""
        said, daemons = self._said(), {}
        with suppress(RunFailed):
            daemons = _daemons(self._nodes)
        return lost_nodes(
            (node, ranks)
            for node, ranks in zip(self._nodes, self._ranks)
            if has_failed(node, said)
            or (node in daemons and not answers(*daemons[node], within_s=_ANSWERS_S))
        )

    def log_path(self, rank: int) -> Path:
        return self._log_directory / f"worker-{rank}.log"

    def dump_stacks(self) -> None:
        """`srun` passes the signal on to every task."""
        if self._is_alive():
            self._step.send_signal(signal.SIGUSR1)

    def states(self, ranks: Collection[int]) -> Mapping[int, str]:
        """SLURM's daemons alone know the processes."""
        return {}

    def wait(self, timeout_s: float) -> None:
        deadline_s = time.monotonic() + timeout_s
        while self._is_alive() and time.monotonic() < deadline_s:
            time.sleep(0.02)

    def stop(self, grace_s: float) -> None:
        """`srun` has SLURM end all that its tasks started; the job's end does, should a node not answer."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            if self._is_alive():
                self._step.send_signal(sign)
            self.wait(grace_s)

    def close(self) -> None:
        """The nodes are the job's."""

    def _is_alive(self) -> bool:
        return self._step is not None and self._step.poll() is None

    @property
    def _step_log(self) -> Path:
        return self._log_directory / "srun.log"

    def _said(self) -> str:
        return self._step_log.read_text(errors="replace") if self._step else ""


def ended_tasks(said: str) -> dict[int, int]:
    """Return codes by task, out of what `srun --verbose` says; minus a signal's number, for a signal.

    Source: SLURM, src/srun/libsrun and src/plugins/launch: `NODES: task[s] LIST: HOW`.
    """
    found = re.findall(r": \S+: tasks? ([\d,-]+): (.+)", said)
    return {task: _code(how) for tasks, how in found for task in _numbers(tasks)}


def has_failed(node: str, said: str) -> bool:
    """Whether `srun` says that SLURM has given a node up."""
    return bool(re.search(rf"Node failure on {re.escape(node)}\b", said))


def _code(how: str) -> int:
    if how.startswith("Completed"):
        return 0
    if exited := re.match(r"Exited with exit code (\d+)", how):
        return int(exited[1])
    named = (s for s in signal.Signals if how.startswith(signal.strsignal(s) or "?"))
    return -next(named, signal.SIGKILL)


def _numbers(tasks: str) -> Iterator[int]:
    """`0,2-3`, as SLURM writes several tasks."""
    for part in tasks.split(","):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def _within(slurm: SlurmConfig, device: str) -> list[str]:
    """A worker's command, in its container if there is one; its rank is that of the task."""
    task = ("sh", "-c", _TASK, "sh")
    if not slurm.container:
        return [*task, sys.executable, "-m", WORKER_MODULE]
    folder, worker = os.getcwd(), (slurm.container_python, "-m", WORKER_MODULE)
    mounts = [f"{folder}:{folder}", *slurm.container_mounts]
    if slurm.container_runtime == "pyxis":
        options = [f"--container-mounts={','.join(mounts)}", f"--container-workdir={folder}"]
        return [f"--container-image={slurm.container}", *options, *task, *worker]
    binds = [f"--bind={mount}" for mount in mounts]
    devices = ["--nv"] if device == "cuda" else []
    return [*task, "apptainer", "exec", *devices, *binds, f"--pwd={folder}", slurm.container, *worker]


def _job_nodes() -> list[str]:
    return _scontrol("show", "hostnames", os.environ["SLURM_JOB_NODELIST"]).split()


def _own_address(nodes: Sequence[str]) -> str:
    """As the last of several nodes sees it.

    Raises:
        RunFailed: SLURM's name of that node has no address, or there is no way to it.
    """
    if len(nodes) == 1:
        return "127.0.0.1"
    address, _ = _daemons(nodes)[nodes[-1]]
    try:
        return address_towards(address)
    except OSError as error:
        raise RunFailed(
            f"this node finds no way to {nodes[-1]}, for SLURM {address}: {error.strerror or error};"
            " mend its name service, or the NodeAddr of that node in slurm.conf"
        ) from None


def _daemons(nodes: Sequence[str]) -> dict[str, tuple[str, int]]:
    """Where each node's SLURM daemon listens."""
    shown = _scontrol("--oneliner", "show", "node", ",".join(nodes))
    keys = (re.findall(rf"\b{key}=(\S+)", shown) for key in ("NodeName", "NodeAddr", "Port"))
    return {name: (address, int(port)) for name, address, port in zip(*keys)}


def _scontrol(*arguments: str) -> str:
    """
    Raises:
        RunFailed: SLURM does not answer.
    """
    asked = ask("scontrol", *arguments)
    if asked.returncode:
        raise RunFailed(f"scontrol {' '.join(arguments)}: {asked.stderr.strip()}")
    return asked.stdout
