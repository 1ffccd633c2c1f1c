"""What SLURM's commands print, as recorded from version 22.05, and what is read out of it."""

import os
import socket
from pathlib import Path

import pytest

from realrl.api.configure import build_config
from realrl.launch import slurm
from realrl.launch import slurm_cli as asking
from realrl.launch.queue import read_job
from realrl.launch.slurm import _scontrol, _within, ended_tasks, has_failed
from realrl.recipes import RECIPES
from realrl.runtime.failure import RunFailed

SRUN = """\
srun: ntasks-per-node     : 2
srun: launching StepId=2.0 on host n1, 2 tasks: [0-1]
srun: launch/slurm: _task_start: Node n1, 2 tasks started
srun: launch/slurm: _task_finish: Received task exit notification for 1 task of StepId=2.0 (status=0x0000).
srun: launch/slurm: _task_finish: n1: task 0: Completed
srun: error: n1: task 1: Segmentation fault
srun: error: n2: tasks 2,5-7: Killed
srun: error: n3: task 9: Exited with exit code 3
srun: error: Node failure on n12
"""
JOB = (
    "JobId=3 JobName=e-t UserId=root(0) Nice=0 JobState={state} Reason={reason} Dependency=(null) "
    "ExitCode={code} RunTime=00:00:34 ReqNodeList=(null) NodeList=n[1-2] BatchHost=n1 Command=/x/t.sbatch\n"
)


def test_how_each_task_ended():
    killed = dict.fromkeys((2, 5, 6, 7), -9)
    assert ended_tasks(SRUN) == {0: 0, 1: -11, **killed, 9: 3}


def test_a_failed_node_is_not_taken_for_one_with_a_like_name():
    assert has_failed("n12", SRUN) and not has_failed("n1", SRUN)


@pytest.mark.parametrize(
    ("state", "code", "expected"),
    [
        ("COMPLETED", "0:0", 0),
        ("FAILED", "2:0", 2),
        ("CANCELLED", "0:15", 143),
        ("TIMEOUT", "0:0", 1),
        ("RUNNING", "0:0", 0),
    ],
)
def test_a_jobs_exit_code(state, code, expected):
    """That of its script; a job that SLURM ended for another reason is not done."""
    job = read_job(JOB.format(state=state, code=code, reason="None"))
    assert (job.code, job.has_ended) == (expected, state != "RUNNING")


def test_a_waiting_job_says_why():
    assert str(read_job(JOB.format(state="PENDING", code="0:0", reason="Resources"))) == "pending (Resources)"


@pytest.mark.parametrize("runtime", ["pyxis", "apptainer"])
def test_a_container_sees_the_folder_and_the_mounts(runtime, monkeypatch, tmp_path):
    """pyxis by options of `srun`, apptainer by a command around the worker's."""
    monkeypatch.chdir(tmp_path)
    section = (
        f"slurm={{container: image.sqsh, container_runtime: {runtime}, container_mounts: ['/data:/data']}}"
    )
    slurm = build_config(RECIPES["ppo-math"].default_config, None, [section]).slurm
    command, here = _within(slurm, "cuda"), Path.cwd()
    assert command[-3:] == ["python3", "-m", "realrl.apps.worker"]
    if runtime == "pyxis":
        assert command[:3] == [
            "--container-image=image.sqsh",
            f"--container-mounts={here}:{here},/data:/data",
            f"--container-workdir={here}",
        ]
    else:
        options = ["--nv", f"--bind={here}:{here}", "--bind=/data:/data", f"--pwd={here}", "image.sqsh"]
        assert command[4:-3] == ["apptainer", "exec", *options]


def test_a_command_that_does_not_answer_is_named(monkeypatch, tmp_path):
    """It does not hold up what asked."""
    (tmp_path / "scontrol").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(asking, "_WITHIN_S", 0.2)
    with pytest.raises(RunFailed, match="scontrol show hostnames n1: scontrol did not answer within 0.2 s"):
        _scontrol("show", "hostnames", "n1")


def test_a_node_whose_name_has_no_address_is_named(monkeypatch):
    """At once, and with what to mend."""

    def unknown(host):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(slurm, "_daemons", lambda nodes: {"n2": ("n2.cluster", 6818)})
    monkeypatch.setattr(slurm, "address_towards", unknown)
    with pytest.raises(RunFailed, match="no way to n2, for SLURM n2.cluster: Name or service not known"):
        slurm._own_address(["n1", "n2"])
