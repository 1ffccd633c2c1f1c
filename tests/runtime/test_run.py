"""Whole runs on a tiny model: one that ends well, and ways to end badly."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoModelForCausalLM

from realrl.api.allocation import parse_allocation
from realrl.api.config import GenerationConfig, ModelConfig, TrainedModelConfig
from realrl.api.data import DataConfig
from realrl.base.files import locked
from realrl.launch.local import LocalLauncher
from realrl.recipes.ppo_math import PPO_MATH, PPOMathConfig, PPOMathSettings
from realrl.runtime.failure import RunFailed, RunRefused
from realrl.runtime.master.crew import Crew
from realrl.runtime.run import run
from tests.tiny import tiny_llama


@pytest.fixture
def config(tmp_path):
    """Generates with d2, trains with t2."""
    actor = TrainedModelConfig(model=ModelConfig(path=str(tiny_llama(tmp_path / "model")), dtype="float32"))
    rows = [{"query_id": str(i), "prompt": f"{i}+1=", "solutions": [str(i + 1)]} for i in range(6)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = DataConfig(path=str(tmp_path / "rows.jsonl"), eval_path=str(tmp_path / "rows.jsonl"))
    return PPOMathConfig(
        actor=actor,
        data=data,
        ppo=PPOMathSettings(group_size=2),
        generation=GenerationConfig(max_new_tokens=4),
        batch_size=4,
        num_steps=2,
        device="cpu",
        max_tokens_per_microbatch=512,
        save_every=1,
        runs_dir=str(tmp_path / "runs"),
        allocation="actor_gen:d2,*:t2",
        call_timeout_s=120,
        logger=(),
    )


def _run(config, launcher):
    calls = PPO_MATH.graph(config).calls
    return run(
        PPO_MATH, config, parse_allocation(config.allocation, list(calls), ["actor_gen"], {}), launcher
    )


def _directory(config) -> Path:
    return Path(config.runs_dir) / config.experiment / config.trial


def test_a_run_leaves_what_it_promises(config):
    """Checkpoints that transformers opens, metrics, rollouts, trace, logs, summary; and no process."""
    config, launcher = replace(config, logger=("tensorboard",)), LocalLauncher()
    summary = _run(config, launcher)
    assert [code for _, code in launcher.poll()] == [0, 0]
    directory = _directory(config)
    assert json.loads((directory / "summary.json").read_text()) == summary
    assert set(summary["eval"]["before"]) >= {"greedy_accuracy"}
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    assert [(r["kind"], r["step"]) for r in rows] == [("eval", 0), ("train", 0), ("train", 1), ("eval", 2)]
    assert len((directory / "rollouts.jsonl").read_text().splitlines()) == 2 * 6 + 2 * 8
    events = EventAccumulator(str(directory / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("train/reward")] == [0, 1]
    names = {event["name"] for event in json.loads((directory / "trace.json").read_text())}
    assert {"reallocate actor_gen", "actor_gen", "release actor_gen", "move advantages"} <= names
    assert sorted(p.name for p in (directory / "checkpoints").iterdir()) == ["step-1", "step-2"]
    AutoModelForCausalLM.from_pretrained(directory / "checkpoints" / "step-2" / "actor")
    assert sorted(p.name for p in (directory / "logs").iterdir()) == [
        "master.log",
        "worker-0.log",
        "worker-1.log",
    ]


def test_a_run_has_one_master(config):
    """Another one is refused, before it touches anything; the first is named."""
    directory = _directory(config)
    with (
        locked(directory.with_name(".trial.lock"), "process 7 on node3"),
        pytest.raises(RunRefused, match="trial has a master at work, process 7 on node3; end that first"),
    ):
        _run(config, LocalLauncher())
    assert list(directory.parent.iterdir()) == []


def _once_two_steps_are_done(config, action):
    def wait_and_act():
        metrics = _directory(config) / "metrics.jsonl"
        while not metrics.exists() or len(metrics.read_text().splitlines()) < 3:
            time.sleep(0.02)
        at_s.append(time.monotonic())
        action()

    at_s = []
    threading.Thread(target=wait_and_act, daemon=True).start()
    return at_s


def _assert_clean(config, launcher):
    """No process, no half-written checkpoint, and those that are there are whole."""
    assert len(launcher.poll()) == 2
    checkpoints = _directory(config) / "checkpoints"
    assert [p.name for p in checkpoints.iterdir() if p.name.startswith(".")] == []
    AutoModelForCausalLM.from_pretrained(checkpoints / "step-1" / "actor")


def test_a_killed_worker_ends_the_run(config):
    """With one message that names rank, call and step, though its peer reports a broken connection."""
    config, launcher = replace(config, num_steps=10_000), LocalLauncher()
    at_s = _once_two_steps_are_done(config, lambda: os.kill(launcher.pids[1], signal.SIGKILL))
    with pytest.raises(RunFailed, match=r"rank 1 died \(killed by SIGKILL\) .* of step \d+; see .*worker-1"):
        _run(config, launcher)
    assert time.monotonic() - at_s[0] < 30
    _assert_clean(config, launcher)


def test_ctrl_c_ends_the_run(config):
    """Within ten seconds; it says what the same command would do."""
    config, launcher = replace(config, num_steps=10_000), LocalLauncher()
    at_s = _once_two_steps_are_done(config, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt, match="^stopped by Ctrl-C; the same command begins afresh, as rec"):
        _run(config, launcher)
    assert time.monotonic() - at_s[0] < 10
    _assert_clean(config, launcher)


def test_a_failure_during_set_up_ends_the_run(config):
    """Weights whose end is missing: the worker's own message comes through."""
    weights = Path(config.actor.model.path) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    launcher = LocalLauncher()
    with pytest.raises(RunFailed, match=r"rank \d failed during set-up: ValueError: .*model.safetensors"):
        _run(config, launcher)
    assert len(launcher.poll()) == 2


@pytest.fixture
def hurry(monkeypatch):
    """Calls have less time than set-up, which loads for long on a crowded machine."""
    set_up = Crew.set_up

    def set_up_and_hurry(crew, setup):
        set_up(crew, setup)
        crew._deadlines.timeout_s = 12.0

    monkeypatch.setattr(Crew, "set_up", set_up_and_hurry)


def test_a_stalled_worker_ends_the_run(config, hurry):
    """Stopped by a signal, it neither dies nor reports; its deadline passes, and it is named."""
    config, launcher = replace(config, num_steps=10_000), LocalLauncher()
    _once_two_steps_are_done(config, lambda: os.kill(launcher.pids[1], signal.SIGSTOP))
    late = r"^rank 1 made no progress with .* of step \d+ for 12 s \(call_timeout_s\): no stack .* \(T\); .*"
    with pytest.raises(RunFailed, match=late) as failure:
        _run(config, launcher)
    assert "\n" not in str(failure.value)
    report = (_directory(config) / "hang.txt").read_text()
    assert report.startswith(f"{failure.value.what}\n") and "realrl/apps/worker.py" in report
    _assert_clean(config, launcher)


def test_a_worker_that_is_stuck_in_python_can_be_seen(config, hurry, tmp_path):
    """`realrl status` and `realrl stacks` show where it is; then it is named, with the edge that waits."""
    (tmp_path / "stuck.py").write_text(STUCK)
    data = replace(config.data, eval_path="")
    rewards = {"math": 1.0, f"{tmp_path / 'stuck.py'}:judge": 0.1}
    config = replace(config, data=data, reward=rewards, allocation="actor_gen:d2,reward:d2,*:t2")
    shown = []
    looking = threading.Thread(target=lambda: shown.extend(_look(config, tmp_path / "stuck")))
    looking.start()
    where = r"in judge \(.*stuck.py:7\), while rank 0 waited in"
    late = rf"^rank 1 made no progress with call reward of step 0 .*: {where}"
    with pytest.raises(RunFailed, match=late):
        _run(config, LocalLauncher())
    looking.join()
    status, stacks = shown
    assert "step 0/2" in status
    assert re.search(r"^1 +call reward of step 0 .* rank 0, in it too$", status, re.M)
    for text in (stacks, (_directory(config) / "hang.txt").read_text()):
        of_stuck = text.partition("== rank 1: call reward of step 0")[2].partition("==")[0]
        assert "in judge" in of_stuck and "in judge" not in text.replace(of_stuck, "").partition("\n")[2]
        assert "== rank 0: " in text and "in receive" in text.partition("== master")[2]
    assert "reward -> move advantages (rewards" in (_directory(config) / "hang.txt").read_text()
    code, status = _show(config, "status")
    assert code == 0 and "failed: rank 1 made no progress with call reward" in status
    assert _show(config, "stacks")[0] == 1


STUCK = """
import os, time
from pathlib import Path
def judge(prompt, response, solutions):
    if os.environ["REALRL_RANK"] == "1":
        Path(__file__).with_name("stuck").touch()
        time.sleep(3600)
    return float(len(response))
"""


def _look(config, sign: Path):
    """What the commands say once the sign is there and the status has had time to follow."""
    while not sign.exists():
        time.sleep(0.1)
    time.sleep(2.0)
    for command in ("status", "stacks"):
        code, text = _show(config, command)
        assert code == 0, text
        yield text


def _show(config, command: str) -> tuple[int, str]:
    argv = [sys.executable, "-m", "realrl.apps.main", command, str(_directory(config))]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr
