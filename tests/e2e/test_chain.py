"""From demonstrations to a reward model to PPO, and to DPO: each takes what the one before left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.command_line import words
from tests.tiny import tiny_llama

pytestmark = pytest.mark.slow

FAST = {"optimizer.lr": 3e-3, "model.dtype": "float32"}
ALL = """
import json, sys, tempfile
from pathlib import Path
from realrl.apps import train
from realrl.launch import local
from tests.warm_workers import WarmServers
if __debug__:
    sys.exit("there are asserts")
with tempfile.TemporaryDirectory() as folder:
    servers = WarmServers(Path(folder, "log"))
    local.ForkServer = servers.open
    for run in json.load(sys.stdin):
        if code := train.main(run):
            sys.exit(code)
    servers.close()
"""
"""Runs commands one after another, without asserts."""


def write_rows(folder: Path) -> None:
    """Responses of letters: better are those with more of `a`."""
    rows = {
        "pairs": [{"prompt": f"{i}:", "chosen": "aaaa", "rejected": "bcbd"} for i in range(24)],
        "prompts": [{"query_id": str(i), "prompt": f"{i}:"} for i in range(24)],
        "shown": [{"prompt": f"{i}:", "response": "abcd"} for i in range(24)],
    }
    for name, lines in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def model_of(folder: Path, recipe: str, num_steps: int) -> Path:
    """Where a run leaves its model."""
    return folder / recipe / "trial" / "checkpoints" / f"step-{num_steps}" / "model"


def keys_of(folder: Path) -> dict[str, dict[str, object]]:
    """The runs, by recipe; the first one has a logger too."""
    sft, rw = model_of(folder, "sft", 15), model_of(folder, "rw", 10)
    pairs = {"data.path": folder / "pairs.jsonl", "model.path": sft, "num_steps": 10, "logger": "[]"}
    return {
        "sft": {"num_steps": 15, "model.path": folder / "model", "data.path": folder / "shown.jsonl", **FAST},
        "rw": {**pairs, **FAST},
        "dpo": {**pairs, **FAST},
        "ppo-math": {
            "num_steps": 12,
            "actor.model.path": sft,
            "actor.model.dtype": "float32",
            "actor.optimizer.lr": 3e-3,
            "reward": "model",
            "reward_model.path": rw,
            "reward_model.dtype": "float32",
            "data.path": folder / "prompts.jsonl",
            "generation.max_new_tokens": 5,
            "allocation": "actor_gen:d2,reward_inf:p2,*:d2",
            "logger": "[]",
        },
    }


def test_a_reward_model_and_preferences_each_lead_on(tmp_path):
    """Nothing needs what asserts do, in the master or in workers."""
    tiny_llama(tmp_path / "model")
    write_rows(tmp_path)
    common = {"runs_dir": tmp_path, "data.template": "plain"}
    runs = [words(recipe, {**common, **keys}) for recipe, keys in keys_of(tmp_path).items()]
    done = subprocess.run(
        [sys.executable, "-c", ALL],
        input=json.dumps(runs),
        env={**os.environ, "PYTHONOPTIMIZE": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    train = {recipe: summary_of(tmp_path, recipe)["train"] for recipe in keys_of(tmp_path)}
    assert train["sft"]["loss"]["last"] < 0.5 * train["sft"]["loss"]["first"]
    assert train["rw"]["accuracy"]["last"] == 1.0
    assert train["dpo"]["accuracy"]["last"] == 1.0
    assert train["dpo"]["loss"]["last"] < 0.5 * train["dpo"]["loss"]["first"]
    rewards = train["ppo-math"]["reward"]
    assert rewards["last"] > rewards["first"] + 0.5, rewards
    assert "accuracy" not in train["ppo-math"]


def summary_of(folder: Path, recipe: str) -> Mapping[str, dict]:
    """Of a run that left one checkpoint, of one model."""
    run = folder / recipe / "trial"
    (checkpoint,) = (run / "checkpoints").iterdir()
    (_,) = checkpoint.iterdir()
    return json.loads((run / "summary.json").read_text())
