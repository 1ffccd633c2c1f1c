"""Workers as the tasks of one `srun` within a SLURM job.

master ── srun ──▶ one task per rank ──▶ worker          exit codes from srun's log
   └───── scontrol, the nodes' daemons ──▶ lost nodes
"""

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
"""Deadline for the answer of a node's daemon; a node whose daemon is silent counts as lost."""


def inside_job() -> bool:
    """Return whether this process runs in a SLURM job: in its script, or in an `salloc`."""
    return JOB_VARIABLE in os.environ


class SlurmLauncher:
    """Launcher of workers on the nodes of a SLURM job; ranks fill one node after another."""

    def __init__(self, config: RunConfig, num_workers: int) -> None:
        """Choose the job's nodes.

        Raises:
            ValueError: the job has fewer nodes than the plan needs.
            RunFailed: SLURM does not answer, or the nodes cannot reach each other.
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
        self._step: subprocess.Popen[bytes] | None = None
        self._log_directory = Path()

    def start(self, num_workers: int, environment: Mapping[str, str], log_directory: Path) -> None:
        """Start one `srun` with a task per rank.

        Raises:
            RunFailed: a node was lost since the last start.
        """
        lost = self._lost() if self._step else ""
        if lost:
            raise RunFailed(f"{lost}; SLURM gives a job none in its place, but slurm.requeues a new job")
        self._log_directory = log_directory.resolve()
        settings = device_settings(self._config.device, os.environ)
        limits = thread_limits(self._config.cpus_per_worker)
        shared = {**os.environ, **settings, **limits, **environment}
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
        """Return the command of `srun`.

        Every task sees all devices of its node, so that the tasks can reach each other's memory.
        """
        nodes = ",".join(self._nodes)
        # SLURM replaces percent signs in a file's name.
        log_directory = str(self._log_directory).replace("%", "%%")
        gpu_options = ["--gpu-bind=none"] if self._config.device == "cuda" else []
        return [
            # If the master is killed, `srun` receives SIGTERM and ends its tasks.
            *("setpriv", "--pdeathsig=TERM", "srun"),
            f"--ntasks={num_workers}",
            f"--nodes={len(self._nodes)}",
            f"--nodelist={nodes}",
            f"--distribution=plane={self._config.devices_per_node}",
            f"--cpus-per-task={self._config.cpus_per_worker}",
            "--cpu-bind=cores",
            *gpu_options,
            "--export=ALL",
            "--kill-on-bad-exit=0",
            "--wait=0",
            "--input=none",
            "--verbose",
            "--open-mode=append",
            f"--output={log_directory}/worker-%t.log",
            *_within(self._config.slurm, self._config.device),
        ]

    def poll(self) -> list[tuple[int, int]]:
        """Return exit codes from srun's log; once srun has exited, tasks it did not log get its own code."""
        logged = ended_tasks(self._said())
        code = self._step.poll() if self._step else None
        if code is None:
            return sorted(logged.items())
        ended: dict[int, int] = {}
        for ranks in self._ranks:
            ended.update(dict.fromkeys(ranks, code))
        ended.update(logged)
        return sorted(ended.items())

    def explain(self) -> str:
        """Return which nodes were lost, or why `srun` started no worker; empty if neither."""
        said = self._said()
        lost = self._lost()
        if lost or "tasks started" in said:
            return lost
        error = said.strip().rpartition("error: ")[2]
        return f"srun started no worker: {error}"

    def _lost(self) -> str:
        """Return which nodes were lost: those that `srun` reports, and those whose daemons are silent."""
        said = self._said()
        daemons: dict[str, tuple[str, int]] = {}
        # Without SLURM's controller the daemons' addresses are unknown, and srun's reports must do.
        with suppress(RunFailed):
            daemons = _daemons(self._nodes)
        lost: list[tuple[str, range]] = []
        for node, ranks in zip(self._nodes, self._ranks):
            if has_failed(node, said) or _is_silent(node, daemons):
                lost.append((node, ranks))
        return lost_nodes(lost)

    def log_path(self, rank: int) -> Path:
        """Return the file of a worker's output."""
        return self._log_directory / f"worker-{rank}.log"

    def dump_stacks(self) -> None:
        """Ask every worker for its stacks; `srun` forwards the signal to every task."""
        self._signal(signal.SIGUSR1)

    def states(self, ranks: Collection[int]) -> Mapping[int, str]:
        """Return nothing: only SLURM's daemons know the processes."""
        return {}

    def wait(self, timeout_s: float) -> None:
        """Wait until `srun` has exited, for at most `timeout_s`."""
        deadline_s = time.monotonic() + timeout_s
        while self._is_alive() and time.monotonic() < deadline_s:
            time.sleep(0.02)

    def stop(self, grace_s: float) -> None:
        """End all processes of the tasks through `srun`; if a node does not answer, the job's end does it."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            self._signal(sign)
            self.wait(grace_s)

    def close(self) -> None:
        """Do nothing: the nodes belong to the job."""

    def _signal(self, sign: signal.Signals) -> None:
        """Signal `srun`, unless it has exited."""
        if self._step is not None and self._step.poll() is None:
            self._step.send_signal(sign)

    def _is_alive(self) -> bool:
        """Return whether `srun` runs."""
        return self._step is not None and self._step.poll() is None

    @property
    def _step_log(self) -> Path:
        """The file of srun's own output."""
        return self._log_directory / "srun.log"

    def _said(self) -> str:
        """Return srun's log; empty before the start."""
        if self._step is None:
            return ""
        return self._step_log.read_text(errors="replace")


def ended_tasks(said: str) -> dict[int, int]:
    """Return the code of each ended task from the log of `srun --verbose`; a signal is its negative number.

    Source: SLURM, src/srun/libsrun and src/plugins/launch: `NODES: task[s] LIST: HOW`.
    """
    ended: dict[int, int] = {}
    for tasks, how in re.findall(r": \S+: tasks? ([\d,-]+): (.+)", said):
        code = _code(how)
        for task in _numbers(tasks):
            ended[task] = code
    return ended


def has_failed(node: str, said: str) -> bool:
    """Return whether srun's log reports that a node has failed."""
    pattern = rf"Node failure on {re.escape(node)}\b"
    return bool(re.search(pattern, said))


def _is_silent(node: str, daemons: Mapping[str, tuple[str, int]]) -> bool:
    """Return whether a node's daemon has a known address but does not answer."""
    if node not in daemons:
        return False
    address, port = daemons[node]
    return not answers(address, port, within_s=_ANSWERS_S)


def _code(how: str) -> int:
    """Return the code of a task that ended as srun's log says."""
    if how.startswith("Completed"):
        return 0
    exited = re.match(r"Exited with exit code (\d+)", how)
    if exited:
        return int(exited[1])
    for named in signal.Signals:
        description = signal.strsignal(named) or "?"
        if how.startswith(description):
            return -named
    return -signal.SIGKILL


def _numbers(tasks: str) -> Iterator[int]:
    """Yield the numbers of a list such as `0,2-3`, as SLURM writes several tasks."""
    for part in tasks.split(","):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def _within(slurm: SlurmConfig, device: str) -> list[str]:
    """Return srun's last arguments: a worker's command, in its container if there is one.

    The rank of a worker is the number of its task.
    """
    task = ["sh", "-c", _TASK, "sh"]
    if not slurm.container:
        return [*task, sys.executable, "-m", WORKER_MODULE]
    worker = [slurm.container_python, "-m", WORKER_MODULE]
    folder = os.getcwd()
    mounts = [f"{folder}:{folder}", *slurm.container_mounts]
    if slurm.container_runtime == "pyxis":
        options = [
            f"--container-image={slurm.container}",
            f"--container-mounts={','.join(mounts)}",
            f"--container-workdir={folder}",
        ]
        return [*options, *task, *worker]
    binds = [f"--bind={mount}" for mount in mounts]
    devices = ["--nv"] if device == "cuda" else []
    container = ["apptainer", "exec", *devices, *binds, f"--pwd={folder}", slurm.container]
    return [*task, *container, *worker]


def _job_nodes() -> list[str]:
    """Return the names of the job's nodes."""
    node_list = os.environ["SLURM_JOB_NODELIST"]
    return _scontrol("show", "hostnames", node_list).split()


def _own_address(nodes: Sequence[str]) -> str:
    """Return this node's address towards the last of the job's nodes.

    Raises:
        RunFailed: the name of that node has no address, or there is no route to it.
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
    """Return the address and port of each node's SLURM daemon."""
    shown = _scontrol("--oneliner", "show", "node", ",".join(nodes))
    names = re.findall(r"\bNodeName=(\S+)", shown)
    addresses = re.findall(r"\bNodeAddr=(\S+)", shown)
    ports = re.findall(r"\bPort=(\S+)", shown)
    daemons: dict[str, tuple[str, int]] = {}
    for name, address, port in zip(names, addresses, ports):
        daemons[name] = (address, int(port))
    return daemons


def _scontrol(*arguments: str) -> str:
    """Return the output of `scontrol`.

    Raises:
        RunFailed: SLURM does not answer.
    """
    asked = ask("scontrol", *arguments)
    if asked.returncode:
        raise RunFailed(f"scontrol {' '.join(arguments)}: {asked.stderr.strip()}")
    return asked.stdout
