"""A curriculum of reasoning-gym, from the rows to the rewards."""

from __future__ import annotations

import json

import pytest

from realrl.api.data import DataConfig, GymConfig
from realrl.datasets.prompts import load_prompts
from realrl.runtime.master.schedule import epoch_rows
from tests.command_line import run_recipe
from tests.tiny import tiny_llama, tiny_tokenizer

pytestmark = pytest.mark.slow


def test_a_run_goes_from_level_to_level(tmp_path):
    """Its workers see the rows that this process makes; held-out ones are scored too."""
    overrides = {
        "generation.max_new_tokens": 8,
        "runs_dir": tmp_path,
        "num_steps": 2,
        "batch_size": 2,
        "actor.model.path": tiny_llama(tmp_path / "model"),
        "ppo.group_size": 2,
        "ppo.kl_coef": 0,
        "allocation": "*:d2",
        "data.path": "gym:chain_sum",
        "data.gym": "{size: 4, eval_size: 2, levels: [0, 3]}",
        "data.order": "rising",
        "reward": "gym",
    }
    run_recipe("ppo-math", overrides)
    gym = GymConfig(size=4, eval_size=2, levels=(0, 3))
    train, held_out = load_prompts(
        DataConfig(path="gym:chain_sum", gym=gym, order="rising"), tiny_tokenizer()
    )
    text = (tmp_path / "ppo-math" / "trial" / "rollouts.jsonl").read_text()
    rollouts = [json.loads(line) for line in text.splitlines()]
    for step, level in enumerate((0.0, 3.0)):
        rows = epoch_rows(4, 2, step, 1, train.levels)
        seen = {r["prompt"] for r in rollouts if not r.get("evaluating") and r["step"] == step}
        assert seen == {train.prompt(row) for row in rows} and {train.levels[row] for row in rows} == {level}
    evaluated = {r["prompt"] for r in rollouts if r.get("evaluating")}
    assert evaluated == {held_out.prompt(row) for row in range(2)}
    assert all("verdict" in rollout for rollout in rollouts)
