"""Whole runs on a tiny model: one that ends well, and ways to end badly."""

import json
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from realrl.api.allocation import parse_allocation
from realrl.api.config import DataConfig, GenerationConfig, ModelConfig, TrainedModelConfig
from realrl.launch.local import LocalLauncher
from realrl.recipes.ppo_config import PPOConfig, PPOMathConfig
from realrl.recipes.ppo_math import PPO_MATH
from realrl.runtime.failure import RunFailed
from realrl.runtime.master import run
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
        ppo=PPOConfig(group_size=2),
        generation=GenerationConfig(max_new_tokens=4),
        batch_size=4,
        num_steps=2,
        save_every=1,
        runs_dir=str(tmp_path / "runs"),
        allocation="actor_gen:d2,*:t2",
        call_timeout_s=120,
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
    launcher = LocalLauncher()
    summary = _run(config, launcher)
    assert [code for _, code in launcher.poll()] == [0, 0]
    directory = _directory(config)
    assert json.loads((directory / "summary.json").read_text()) == summary
    assert set(summary["eval"]["before"]) >= {"greedy_accuracy"}
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    assert [(r["kind"], r["step"]) for r in rows] == [("eval", 0), ("train", 0), ("train", 1), ("eval", 2)]
    assert len((directory / "rollouts.jsonl").read_text().splitlines()) == 2 * 6 + 2 * 8
    names = {event["name"] for event in json.loads((directory / "trace.json").read_text())}
    assert {"reallocate actor_gen", "actor_gen", "release actor_gen", "move actor_train"} <= names
    assert sorted(p.name for p in (directory / "checkpoints").iterdir()) == ["step-1", "step-2"]
    AutoModelForCausalLM.from_pretrained(directory / "checkpoints" / "step-2" / "actor")
    assert sorted(p.name for p in (directory / "logs").iterdir()) == [
        "master.log",
        "worker-0.log",
        "worker-1.log",
    ]


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
    """Within ten seconds."""
    config, launcher = replace(config, num_steps=10_000), LocalLauncher()
    at_s = _once_two_steps_are_done(config, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        _run(config, launcher)
    assert time.monotonic() - at_s[0] < 10
    _assert_clean(config, launcher)


def test_a_failure_during_set_up_ends_the_run(config):
    """A model without weights: the worker's own message comes through."""
    (Path(config.actor.model.path) / "model.safetensors").unlink()
    launcher = LocalLauncher()
    with pytest.raises(RunFailed, match=r"rank \d failed during set-up: ValueError: .*model.safetensors"):
        _run(config, launcher)
    assert len(launcher.poll()) == 2


def test_a_stalled_worker_ends_the_run(config):
    """Stopped by a signal, it neither dies nor reports; its deadline passes."""
    config, launcher = replace(config, num_steps=10_000, call_timeout_s=25), LocalLauncher()
    _once_two_steps_are_done(config, lambda: os.kill(launcher.pids[1], signal.SIGSTOP))
    with pytest.raises(RunFailed, match=r"did not end .* of step \d+ within 25 s \(call_timeout_s\)"):
        _run(config, launcher)
    _assert_clean(config, launcher)
