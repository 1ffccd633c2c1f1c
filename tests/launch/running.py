"""Runs of the command line on a tiny model, and the workers that they have."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.tiny import tiny_llama

WORKER = b"realrl.apps.worker"
NUM_STEPS = 12


def make_inputs(folder: Path) -> None:
    tiny_llama(folder / "model")
    lines = [{"query_id": str(i), "prompt": f"{i}+1=", "solutions": list("02468")} for i in range(6)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def arguments(folder: Path, trial: str, **overrides: object) -> list[str]:
    """Two ranks, each on a node of its own where there are nodes: generates as `d2`, trains as `t2`."""
    keys = {
        "actor.model.path": folder / "model",
        "actor.model.dtype": "float32",
        "data.path": folder / "rows.jsonl",
        "data.template": "plain",
        "num_steps": NUM_STEPS,
        "batch_size": 2,
        "ppo.group_size": 2,
        "generation.max_new_tokens": 4,
        "allocation": "actor_gen:d2,*:t2",
        "device": "cpu",
        "devices_per_node": 1,
        "cpus_per_worker": 1,
        "logger": "[]",
        "runs_dir": folder / "runs",
        "trial": trial,
        **overrides,
    }
    return ["ppo-math", *(f"{key}={value}" for key, value in keys.items())]


def start(arguments: list[str], environment: Mapping[str, str]) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "realrl.apps.quickstart", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def metrics(folder: Path, trial: str) -> list[dict]:
    """Of each step, but for what clocks say."""
    lines = (folder / "runs" / "ppo-math" / trial / "metrics.jsonl").read_text().splitlines()
    timed = ("tokens_per_s", "duration_s", "phases_s")
    return [{k: v for k, v in json.loads(line).items() if k not in timed} for line in lines]


def check_restart(folder: Path, mode: str, environment: Mapping[str, str]) -> None:
    """A run of which one of two workers is stopped and the other one killed, as soon as there is something to
    go on from, ends with the metrics of the trial `here`.
    """
    trial = f"again-by-{mode}"
    run = start(arguments(folder, trial, mode=mode, recover_every=1), environment)
    wait_for(lambda: len(workers(trial)) == 2)
    before = workers(trial)
    points = folder / "runs" / "ppo-math" / trial / "recovery"
    wait_for(lambda: any(points.glob("step-*")), every_s=0.01)
    os.kill(before[0], signal.SIGSTOP)
    os.kill(before[1], signal.SIGKILL)
    wait_for(lambda: len(now := workers(trial)) == 2 and not before.items() & now.items())
    assert not any(Path(f"/proc/{pid}").exists() for pid in before.values())
    out, err = run.communicate(timeout=180)
    assert run.returncode == 0, err
    assert "rank 1 died (killed by SIGKILL)" in out and "restart 1 of 3" in out
    assert metrics(folder, trial) == metrics(folder, "here")


def workers(trial: str) -> dict[int, int]:
    """Rank to pid, of the workers whose log is in the trial's directory."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            variables = (process / "environ").read_bytes().split(b"\0")
            is_worker = WORKER in (process / "cmdline").read_bytes()
            log = (process / "fd" / "1").readlink()
        except OSError:  # it has ended, or is another user's
            continue
        ranks = [int(v.partition(b"=")[2]) for v in variables if v.startswith(b"REALRL_RANK=")]
        if is_worker and ranks and f"/{trial}/" in str(log):
            found[ranks[0]] = int(process.name)
    return found


def wait_for(condition: Callable[[], object], timeout_s: float = 120.0, every_s: float = 0.1) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "waited in vain"
        time.sleep(every_s)
