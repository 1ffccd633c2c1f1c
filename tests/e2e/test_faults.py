"""What a person at a terminal sees of a killed or interrupted run; tests/runtime has other bad endings."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.command_line import command
from tests.tiny import tiny_llama

pytestmark = [pytest.mark.slow, pytest.mark.quiet]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("faults")
    tiny_llama(folder / "model")
    lines = [{"query_id": str(i), "prompt": f"{i}+1=", "solutions": list("02468")} for i in range(12)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def start(folder: Path, trial: str) -> subprocess.Popen:
    """A run that would go on for hours, with a checkpoint after each step."""
    overrides = {
        "actor.model.path": folder / "model",
        "data.path": folder / "rows.jsonl",
        "data.eval_path": "",
        "data.template": "plain",
        "num_steps": 100_000,
        "batch_size": 2,
        "ppo.group_size": 2,
        "generation.max_new_tokens": 8,
        "allocation": "d2",
        "save_every": 1,
        "runs_dir": folder,
        "trial": trial,
    }
    return subprocess.Popen(
        command("ppo-math", overrides),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_steps(run: Path, process: subprocess.Popen, count: int) -> None:
    deadline_s = time.monotonic() + 120
    metrics = run / "metrics.jsonl"
    while not metrics.exists() or len(metrics.read_text().splitlines()) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline_s, "the run made no steps"
        time.sleep(0.05)


def descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children] + [d for child in children for d in descendants(int(child))]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def ended(process: subprocess.Popen, within_s: float) -> tuple[str, float]:
    """What the run said on stderr, and how long it took to end."""
    started_s = time.monotonic()
    _, errors = process.communicate(timeout=within_s)
    return errors, time.monotonic() - started_s


def check_checkpoints(run: Path) -> None:
    """Every checkpoint that can be seen is whole."""
    steps = sorted((run / "checkpoints").glob("step-*"))
    assert steps
    for step in steps:
        index = json.loads((step / "actor" / "model.safetensors.index.json").read_text())
        for file in set(index["weight_map"].values()):
            load_file(step / "actor" / file)


def test_a_killed_worker_ends_the_run(folder):
    """Within 30 s, with one message that names rank, call and step; no process survives."""
    process = start(folder, "killed")
    run = folder / "ppo-math" / "killed"
    wait_for_steps(run, process, 2)
    family = descendants(process.pid)
    os.kill(workers(process.pid)[0], signal.SIGKILL)
    errors, took_s = ended(process, within_s=30)
    assert process.returncode == 1
    assert took_s < 30
    message = errors.strip().splitlines()[-1]
    assert re.search(r"rank 0 died \(killed by SIGKILL\) .* step \d+", message), errors
    assert not any(map(is_running, family))
    check_checkpoints(run)


def workers(master: int) -> list[int]:
    """The worker processes, by rank, which the names of their logs tell."""
    found = {}
    for pid in descendants(master):
        log = Path(f"/proc/{pid}/fd/1").readlink()
        if log.name.startswith("worker-"):
            found.setdefault(int(log.stem.removeprefix("worker-")), pid)
    return [pid for _, pid in sorted(found.items())]


def test_ctrl_c_ends_the_run(folder):
    """Cleanly, within 10 s, with exit code 130."""
    process = start(folder, "interrupted")
    run = folder / "ppo-math" / "interrupted"
    wait_for_steps(run, process, 2)
    family = descendants(process.pid)
    process.send_signal(signal.SIGINT)
    errors, took_s = ended(process, within_s=20)
    assert process.returncode == 130, errors
    assert took_s < 10
    assert "Traceback" not in errors
    assert not any(map(is_running, family))
    check_checkpoints(run)
