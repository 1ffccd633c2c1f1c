"""A SLURM of one controller and two node daemons on this host, with its own munge, ports and folders."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel")

_CONFIG = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=10
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=5
KillWait=3
SchedulerParameters=batch_sched_delay=1,sched_interval=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[0]} CPUs=2
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """What is not here that a cluster needs; empty where all is."""
    if os.geteuid():
        return "root"
    return next((program for program in PROGRAMS if not shutil.which(program, path=_path())), "")


def _path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


class SlurmCluster:
    """Runs from its construction until `stop`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        host = socket.gethostname().partition(".")[0]
        controller_port, *ports = _free_ports(3)
        self.config = folder / "slurm.conf"
        text = _CONFIG.format(host=host, folder=folder, controller_port=controller_port, ports=ports)
        self.config.write_text(text)
        (folder / "state").mkdir()
        key = folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        self._daemons = {"munged": self._munge(key)}
        _wait_for((folder / "munge.socket").exists)
        self._daemons["slurmctld"] = self._start("slurmctld", "-D", "-c")
        for name in ("n1", "n2"):
            self._daemons[name] = self._start("slurmd", "-D", "-N", name)
        _wait_for(lambda: self.run("sinfo", "--noheader", "--states=idle", "--format=%D").strip() == "2")

    @property
    def environment(self) -> Mapping[str, str]:
        return {**os.environ, "PATH": _path(), "SLURM_CONF": str(self.config)}

    def run(self, *command: str) -> str:
        return subprocess.run(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ).stdout

    def _munge(self, key: Path) -> subprocess.Popen:
        files = {name: self.folder / f"munge.{name}" for name in ("socket", "pid", "log", "seed")}
        return self._start(
            "munged",
            "--foreground",
            "--force",
            f"--key-file={key}",
            f"--socket={files['socket']}",
            f"--pid-file={files['pid']}",
            f"--log-file={files['log']}",
            f"--seed-file={files['seed']}",
        )

    def _start(self, *command: str) -> subprocess.Popen:
        """It ends with this process, should that be killed."""
        with (self.folder / f"{command[0]}.out").open("ab") as output:
            return subprocess.Popen(
                ["setpriv", "--pdeathsig=TERM", *command],
                env=self.environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def lose(self, node: str, task: int) -> None:
        """Kill all there is of a node: a task's process, its step's daemon, and the node's own."""
        step = int(Path(f"/proc/{task}/stat").read_text().rsplit(")", 1)[1].split()[1])
        self._daemons[node].kill()
        for pid in (step, task):
            os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        self.run("scancel", "--me")
        _wait_for(lambda: not self.run("squeue", "--noheader").strip())
        for daemon in reversed(self._daemons.values()):
            daemon.terminate()
            daemon.wait(timeout=20)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def _wait_for(condition, timeout_s: float = 30.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "SLURM did not come up, or its jobs did not end"
        time.sleep(0.1)
