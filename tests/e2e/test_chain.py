"""From demonstrations to a reward model to PPO, and to DPO: each takes what the one before left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.command_line import run_process
from tests.tiny import tiny_llama

pytestmark = pytest.mark.slow


def run(folder: Path, recipe: str, **overrides: object) -> tuple[Path, dict]:
    """Where the model that a run leaves is, and its summary."""
    run_process(recipe, {"runs_dir": folder, "data.template": "plain", **overrides})
    (checkpoint,) = (folder / overrides.get("experiment", recipe) / "trial" / "checkpoints").iterdir()
    summary = json.loads((checkpoint.parents[1] / "summary.json").read_text())
    return checkpoint, summary


def test_a_reward_model_and_preferences_each_lead_on(tmp_path, monkeypatch):
    """On responses of letters: better are those with more of `a`. Nothing needs what asserts do."""
    monkeypatch.setenv("PYTHONOPTIMIZE", "1")
    pairs = [{"prompt": f"{i}:", "chosen": "aaaa", "rejected": "bcbd"} for i in range(24)]
    prompts = [{"query_id": str(i), "prompt": f"{i}:"} for i in range(24)]
    shown = [{"prompt": f"{i}:", "response": "abcd"} for i in range(24)]
    for name, rows in (("pairs", pairs), ("prompts", prompts), ("shown", shown)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    fast = {"optimizer.lr": 3e-3, "model.dtype": "float32"}

    def of(checkpoint: Path) -> Path:
        (model,) = checkpoint.iterdir()
        return model

    start = tiny_llama(tmp_path / "model")
    sft, summary = run(
        tmp_path, "sft", num_steps=15, **{"model.path": start, "data.path": tmp_path / "shown.jsonl"}, **fast
    )
    assert summary["train"]["loss"]["last"] < 0.5 * summary["train"]["loss"]["first"]
    data = {"data.path": tmp_path / "pairs.jsonl", "model.path": of(sft)}
    rw, summary = run(tmp_path, "rw", num_steps=10, **data, **fast)
    assert summary["train"]["accuracy"]["last"] == 1.0
    _, summary = run(tmp_path, "dpo", num_steps=10, **data, **fast)
    assert summary["train"]["accuracy"]["last"] == 1.0
    assert summary["train"]["loss"]["last"] < 0.5 * summary["train"]["loss"]["first"]
    ppo = {
        "actor.model.path": of(sft),
        "actor.model.dtype": "float32",
        "actor.optimizer.lr": 3e-3,
        "reward": "model",
        "reward_model.path": of(rw),
        "reward_model.dtype": "float32",
        "data.path": tmp_path / "prompts.jsonl",
        "generation.max_new_tokens": 5,
        "allocation": "actor_gen:d2,reward_inf:p2,*:d2",
    }
    _, summary = run(tmp_path, "ppo-math", num_steps=12, **ppo)
    rewards = summary["train"]["reward"]
    assert rewards["last"] > rewards["first"] + 0.5, rewards
    assert "accuracy" not in summary["train"]
