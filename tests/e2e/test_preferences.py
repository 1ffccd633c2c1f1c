"""Recipes that learn from preferences, and rejection sampling, from the command line on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.command_line import run_recipe
from tests.e2e.stateful import write_inputs
from tests.tiny import tiny_llama

pytestmark = pytest.mark.slow

LEARNED = {
    "dpo": {"length_normalised": True, "beta": 5, "smoothing": 0.1, "sft_coef": 0.1, "optimizer.lr": 5e-4},
    "ipo": {},
    "simpo": {},
    "orpo": {},
    "kto": {},
    "rw": {"centring_coef": 0.01},
}
"""Settings of each recipe that are not its defaults."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model, and pairs of responses of which those of `a` are better."""
    folder = tmp_path_factory.mktemp("preferences")
    tiny_llama(folder / "model")
    pairs = [{"prompt": f"{i}:", "chosen": "aaaa", "rejected": "bcbd"} for i in range(30)]
    lines = [json.dumps(pair) + "\n" for pair in pairs]
    (folder / "pairs.jsonl").write_text("".join(lines[:24]))
    (folder / "held-out.jsonl").write_text("".join(lines[24:]))
    return folder


@pytest.mark.parametrize("recipe", LEARNED)
def test_what_is_preferred_is_learned(folder, recipe):
    """The loss on held-out rows falls; two ranks share each batch, and two stages of a pipeline train."""
    ranks = {"rw": "*:p2", "simpo": "validate:d2,*:p2", "orpo": "validate:d2,*:p2"}
    overrides = {
        "model.path": folder / "model",
        "model.dtype": "float32",
        "data.path": folder / "pairs.jsonl",
        "data.eval_path": folder / "held-out.jsonl",
        "data.template": "plain",
        "optimizer.lr": 3e-3,
        "num_epochs": 4,
        "batch_size": 12,
        "max_tokens_per_microbatch": 200,
        "runs_dir": folder / "runs",
        "allocation": ranks.get(recipe, "ref_inf:d2,*:p2"),
        **LEARNED[recipe],
    }
    run_recipe(recipe, overrides)
    run = folder / "runs" / recipe / "trial"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["num_steps"] == (16 if recipe == "kto" else 8)
    before, after = summary["eval"]["before"], summary["eval"]["after"]
    assert after["loss"] < before["loss"]
    if recipe == "kto":
        assert after["desirable_reward"] > after["undesirable_reward"]
    else:
        assert after["accuracy"] >= before["accuracy"] and after["margin"] > before["margin"]


def test_rewards_may_be_in_units_of_the_reward_models_scores(folder):
    """`rw` writes what that takes next to each checkpoint; a run without it would have other rewards."""
    reward_model = folder / "runs/rw/trial/checkpoints/step-8/model"
    scale = json.loads((reward_model / "scores.json").read_text())
    rewards = {}
    for normalise in (False, True):
        overrides = {
            "actor.model.path": folder / "model",
            "actor.model.dtype": "float32",
            "data.path": folder / "pairs.jsonl",
            "data.template": "plain",
            "reward": "model",
            "reward_model.path": reward_model,
            "reward_model.dtype": "float32",
            "scores.normalise": normalise,
            "allocation": "*:d1",
            "device": "cpu",
            "batch_size": 2,
            "num_steps": 1,
            "ppo.group_size": 2,
            "generation.max_new_tokens": 8,
            "runs_dir": folder / "runs",
            "trial": str(normalise),
        }
        run_recipe("dr-grpo", overrides)
        rollouts = (folder / "runs/dr-grpo" / str(normalise) / "rollouts.jsonl").read_text().splitlines()
        rewards[normalise] = [json.loads(line)["reward"] for line in rollouts]
    expected = [(reward - scale["mean"]) / scale["std"] for reward in rewards[False]]
    assert rewards[True] == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert rewards[True] != pytest.approx(rewards[False], abs=1e-3)


@pytest.mark.parametrize("keep", ["all_right", "best"])
def test_rejection_sampling_learns_what_it_keeps(tmp_path, keep):
    """Its loss falls, and a step that keeps nothing makes none."""
    write_inputs(tmp_path)
    overrides = {
        "actor.model.path": tmp_path / "model",
        "actor.model.dtype": "float32",
        "actor.optimizer.lr": 1e-2,
        "data.path": tmp_path / "train.jsonl",
        "data.template": "plain",
        "allocation": "actor_gen:d2,*:p2",
        "device": "cpu",
        "batch_size": 4,
        "num_steps": 6,
        "ppo.group_size": 4,
        "keep": keep,
        # An even digit, which is a right answer, ends a response here.
        "generation.stop": "['0', '2', '4', '6', '8']",
        "generation.max_new_tokens": 8,
        "max_tokens_per_microbatch": 100,
        "runs_dir": tmp_path,
    }
    run_recipe("raft", overrides)
    rows = [json.loads(line) for line in (tmp_path / "raft/trial/metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if row["kind"] == "train"]
    assert len(steps) == 6
    for step in steps:
        assert ("loss" in step) == (step["accepted"] > 0)
        if keep == "best":
            assert step["accepted"] <= 1 / 4
        else:
            assert step["accepted"] <= step["accuracy"] + 1e-9
    losses = [step["loss"] for step in steps if "loss" in step]
    assert len(losses) > 1 and losses[-1] < losses[0]
