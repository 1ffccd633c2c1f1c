"""Runs on a SLURM of two nodes, which are two daemons on this host."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from realrl.api.configure import build_config
from realrl.launch import queue
from realrl.recipes import RECIPES
from realrl.runtime.failure import RunFailed
from tests.launch.running import NUM_STEPS, arguments, check_restart, metrics, start, wait_for, workers
from tests.launch.slurm_cluster import SlurmCluster, missing

lacking = missing()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(lacking), reason=f"no SLURM here without {lacking}: see scripts/slurm.sh"),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = SlurmCluster(tmp_path_factory.mktemp("slurm"))
    yield cluster
    cluster.stop()


def _jobs(cluster) -> str:
    return cluster.run("squeue", "--noheader").strip()


def _output(folder: Path, trial: str) -> str:
    (path,) = (folder / "runs" / "ppo-math").glob(f"{trial}-*.out")
    return path.read_text()


def test_a_run_over_two_nodes_is_the_run_on_one_host(folder, cluster):
    """To the last bit of each metric; the terminal shows the queue and the master's output; the keys are on
    no command line and in no log.
    """
    run = start(arguments(folder, "by-slurm", mode="slurm"), cluster.environment)
    wait_for(lambda: len(workers("by-slurm")) == 2)
    keys = [secret_key(pid) for pid in workers("by-slurm").values()]
    lines = b"".join(map(command_line, Path("/proc").glob("[0-9]*")))
    out, err = run.communicate(timeout=120)
    assert run.returncode == 0, err
    assert metrics(folder, "by-slurm") == metrics(folder, "here")
    assert "running (n[1-2])" in out and "completed" in out and f"step {NUM_STEPS}/{NUM_STEPS}" in out
    files = [*(folder / "runs" / "ppo-math").rglob("*"), *cluster.folder.rglob("*")]
    kept = b"".join(file.read_bytes() for file in files if file.is_file())
    assert not any(key in lines or key in kept for key in keys)
    assert not workers("by-slurm") and not _jobs(cluster)


def secret_key(pid: int) -> bytes:
    variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    (keys,) = [v.partition(b"=")[2] for v in variables if v.startswith(b"REALRL_KEYS=")]
    return keys.split()[-1]


def command_line(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:  # it has ended
        return b""


@pytest.fixture
def commands(cluster, monkeypatch):
    """SLURM's, for this process too."""
    for name in ("PATH", "SLURM_CONF"):
        monkeypatch.setenv(name, cluster.environment[name])


def test_a_failed_run_is_requeued_and_ctrl_c_cancels_it(folder, cluster, commands):
    """The killed worker is named; the job starts again by itself, once its first credential has expired; then
    no process and no job is left.
    """
    run = start(arguments(folder, "requeued", mode="slurm", **{"slurm.requeues": 1}), cluster.environment)
    wait_for(lambda: len(workers("requeued")) == 2)
    first = workers("requeued")
    os.kill(first[1], signal.SIGKILL)
    job = _jobs(cluster).split()[0]
    wait_for(lambda: queue.look(job).reason == "BeginTime")
    wait_for(lambda: len(workers("requeued")) == 2)
    assert not first.items() & workers("requeued").items()
    assert "rank 1 died (killed by SIGKILL) during set-up" in _output(folder, "requeued")
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=60)
    assert run.returncode == 130 and err == "realrl: error: stopped by Ctrl-C\n"
    assert "running (n[1-2])" in out
    assert not workers("requeued")
    wait_for(lambda: not _jobs(cluster))


def test_a_job_that_waits_for_too_long_is_cancelled(folder, cluster, commands, monkeypatch):
    """With the queue's reason."""
    monkeypatch.setattr(queue, "_LOOK_EVERY_S", 0.5)
    recipe, *overrides = arguments(folder, "waits", mode="slurm", **{"slurm.queue_timeout_s": 1})
    config = build_config(RECIPES[recipe].default_config, None, overrides)
    hold = ("--exclusive", "--nodes=2", "--output=/dev/null", "--wrap=sleep 100")
    holder = cluster.run("sbatch", "--parsable", *hold).strip()
    wait_for(lambda: queue.look(holder).state == "RUNNING")
    with pytest.raises(RunFailed, match=r"slurm.queue_timeout_s=1: (Resources|Priority|None); it is cancel"):
        queue.follow(queue.submit(recipe, config, 2), config)
    cluster.run("scancel", holder)
    wait_for(lambda: not _jobs(cluster))


def test_workers_that_fail_are_started_again(folder, cluster):
    """On the nodes that the run has, once all are gone; the metrics are the undisturbed run's."""
    check_restart(folder, "slurm", cluster.environment)


def test_a_lost_node_ends_the_run(folder, cluster):
    """With one message that names it and its ranks. The cluster has one node after it: the last test."""
    run = start(arguments(folder, "lost", mode="slurm", num_steps=100_000), cluster.environment)
    wait_for(lambda: len(workers("lost")) == 2)
    cluster.lose("n2", workers("lost")[1])
    _, err = run.communicate(timeout=120)
    assert run.returncode == 1 and "failed" in err and "exit code 1" in err
    assert "realrl: error: node n2 was lost, and with it rank 1; rank" in _output(folder, "lost")
    wait_for(lambda: not workers("lost"))
