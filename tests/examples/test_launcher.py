"""`examples/launcher.py`, named by its path as a user names it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.launch.running import arguments, make_inputs, metrics, start, wait_for, workers

LAUNCHER = f"{Path(__file__).parents[2] / 'examples' / 'launcher.py'}:PinnedLauncher"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two pinned workers need two cores"),
]


def finish(run) -> str:
    out, err = run.communicate(timeout=180)
    assert run.returncode == 0, err
    return out


def test_a_run_on_it_survives_the_death_of_a_worker(tmp_path):
    """Workers are pinned to cores that they do not share; the metrics are those of mode local."""
    make_inputs(tmp_path)
    finish(start(arguments(tmp_path, "here"), os.environ))

    own = {"launcher": LAUNCHER, "recover_every": 1}
    run = start(arguments(tmp_path, "pinned", **own), os.environ)
    wait_for(lambda: len(workers("pinned")) == 2)
    first = workers("pinned")
    wait_for(lambda: all(os.sched_getaffinity(pid) != os.sched_getaffinity(0) for pid in first.values()))
    cores = [os.sched_getaffinity(first[rank]) for rank in (0, 1)]
    assert cores[0].isdisjoint(cores[1])
    assert cores[0] | cores[1] == os.sched_getaffinity(0)

    points = tmp_path / "runs" / "ppo-math" / "pinned" / "recovery"
    wait_for(lambda: any(points.glob("step-*")), every_s=0.01)
    os.kill(first[1], signal.SIGKILL)
    out = finish(run)
    assert "rank 1 died (killed by SIGKILL)" in out and "restart 1 of 3" in out
    assert metrics(tmp_path, "pinned") == metrics(tmp_path, "here")
    assert not workers("pinned")
