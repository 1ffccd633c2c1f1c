"""Runs on a Ray cluster of two nodes, which are two daemons on this host."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import pytest

from realrl.api.configure import build_config
from realrl.recipes import RECIPES
from realrl.runtime.failure import RunFailed
from tests.launch.running import arguments, check_restart, metrics, start, wait_for, workers

ray = pytest.importorskip("ray", reason="Ray is not installed: realrl[ray]")
pytestmark = pytest.mark.slow

STORE = {"object_store_memory": 80 << 20}


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, **STORE}
    )
    cluster.other = cluster.add_node(num_cpus=1, **STORE)
    cluster.wait_for_nodes()
    yield cluster
    cluster.shutdown()


@pytest.fixture
def environment(cluster):
    return {**os.environ, "RAY_ADDRESS": cluster.address}


def _config(cluster, *overrides):
    default = RECIPES["ppo-math"].default_config
    return build_config(default, None, [f"ray.address={cluster.address}", "cpus_per_worker=1", *overrides])


def test_a_run_over_two_nodes_is_the_run_on_one_host(folder, environment):
    """To the last bit of each metric; its keys are on no command line and in no log."""
    run = start(arguments(folder, "over-ray", mode="ray"), environment)
    wait_for(lambda: len(workers("over-ray")) == 2)
    secrets = [
        variable.partition(b"=")[2].split()[-1]
        for pid in workers("over-ray").values()
        for variable in _read(pid, "environ").split(b"\0")
        if variable.startswith(b"REALRL_KEYS=")
    ]
    assert len(secrets) == 2
    lines = b"".join(_read(int(pid), "cmdline") for pid in os.listdir("/proc") if pid.isdigit())
    out, err = run.communicate(timeout=120)
    assert run.returncode == 0, err
    assert metrics(folder, "over-ray") == metrics(folder, "here")
    logs = b"".join(
        log.read_bytes() for log in (folder / "runs/ppo-math/over-ray").rglob("*") if log.is_file()
    )
    for secret in secrets:
        assert secret not in lines and secret not in logs and secret.decode() not in out + err
    wait_for(lambda: not workers("over-ray"))


def _read(pid: int, name: str) -> bytes:
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read()
    except OSError:  # it has ended
        return b""


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_the_run(folder, environment, cluster, sign):
    """Cancelled or killed, and its devices are free again for the next test."""
    trial = f"ended-by-{int(sign)}"
    run = start(arguments(folder, trial, mode="ray"), environment)
    wait_for(lambda: len(workers(trial)) == 2)
    run.send_signal(sign)
    run.communicate(timeout=30)
    assert run.returncode == (130 if sign == signal.SIGINT else -sign)
    wait_for(lambda: not workers(trial), 20)


def test_what_the_cluster_has_not_got_is_said(cluster):
    """Which bundle, and what is there; and no wait."""
    from realrl.launch.ray import RayLauncher

    with pytest.raises(ValueError, match=r"bundle 3 of 3 \(1 CPU\) .* the cluster has 2 nodes of 1 CPU"):
        RayLauncher(_config(cluster, "devices_per_node=1"), 3)


HOLD = """
import sys, time, ray
from ray.util.placement_group import placement_group
ray.init(address=sys.argv[1], log_to_driver=False)
print(placement_group([{"CPU": 1}]).wait(60), flush=True)
time.sleep(60)
"""


def test_nodes_that_are_not_free_in_time_are_given_up(cluster):
    """All or none: another program has one of the two, and the other stays free."""
    from realrl.launch.ray import RayLauncher

    with subprocess.Popen([sys.executable, "-c", HOLD, cluster.address], stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"True\n"
        with pytest.raises(RunFailed, match=r"not free within ray.timeout_s=2: .* free are 1 CPU"):
            RayLauncher(_config(cluster, "devices_per_node=1", "ray.timeout_s=2"), 2)
        holder.kill()


def test_without_a_cluster_the_message_says_how_to_start_one(monkeypatch):
    from realrl.launch.ray import RayLauncher

    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    config = build_config(RECIPES["ppo-math"].default_config, None, [])
    with pytest.raises(
        ValueError, match=r"ray.address: expected a Ray cluster at 127.0.0.1:1: no answer .*ray start"
    ):
        RayLauncher(config, 1)


def test_workers_that_fail_are_started_again(folder, environment):
    """On the nodes that the run has, once all are gone; the metrics are the undisturbed run's."""
    check_restart(folder, "ray", environment)


def test_a_lost_node_without_another_ends_the_run(folder, environment, cluster):
    """Named, with its ranks, once none came in its place. The last test, as the cluster has one node now."""
    keys = {"num_steps": 100_000, "recover_every": 1, "ray.timeout_s": 5}
    run = start(arguments(folder, "lost", mode="ray", **keys), environment)
    wait_for(lambda: any((folder / "runs" / "ppo-math" / "lost" / "recovery").glob("step-*")))
    cluster.remove_node(cluster.other, allow_graceful=False)
    out, err = run.communicate(timeout=120)
    assert run.returncode == 1
    lost = r"node \S+ was lost, and with it rank \d"
    assert re.search(lost + r".*\n.*restart 1 of 3", out), out
    assert re.search(r"error: " + lost + "; there was none in its place within ray.timeout_s", err), err
    wait_for(lambda: not workers("lost"), 20)
