"""The arithmetic of batches, as it is said at a run's start."""

from __future__ import annotations

from dataclasses import replace

import pytest

from realrl.api.config import ModelConfig
from realrl.api.mesh import DeviceMesh, ExecutionPlan, ParallelLayout, Placement
from realrl.recipes import RECIPES
from realrl.recipes.parts.config import CriticConfig
from realrl.recipes.ppo_math import PPOMathSettings
from realrl.runtime.master import accounting as accounting_module
from realrl.runtime.master.accounting import accounting

PLACE = Placement(DeviceMesh((0, 1, 2, 3)), ParallelLayout(pp=2, dp=2))


def said(recipe: str, **settings) -> list[str]:
    recipe = RECIPES[recipe]
    config = replace(recipe.default_config, device="cpu", max_tokens_per_microbatch=512, **settings)
    return accounting(recipe, config, ExecutionPlan({name: PLACE for name in recipe.graph(config).calls}))


def test_prompts_become_samples_become_optimizer_steps():
    ppo = PPOMathSettings(group_size=16, num_minibatches=4)
    found = said("ppo-math", batch_size=6, num_steps=10, ppo=ppo, critic=CriticConfig())
    expected = (
        "4 optimizer steps of 24 sequences a step, 12 on each of 2 data-parallel ranks, in micro-batches of"
    )
    assert found[:3] == [
        "a step: 6 rows x 16 samples = 96 sequences; 10 steps: 960 sequences",
        f"critic_train: {expected} up to 512 tokens, or of one longer sequence",
        f"actor_train: {expected} up to 512 tokens, or of one longer sequence",
    ]


def test_one_is_said_as_one():
    assert said("sft", batch_size=1, num_steps=1)[0] == (
        "a step: 1 row x 1 sample = 1 sequence; 1 step: 1 sequence"
    )


@pytest.mark.parametrize(
    ("dtype", "has_products"), [("bfloat16", False), ("bfloat16", True), ("float32", False)]
)
def test_a_slow_type_is_pointed_out(monkeypatch, dtype, has_products):
    """Only where the machine is slow with it."""
    monkeypatch.setattr(accounting_module, "has_bf16_products", lambda: has_products)
    last = said("sft", model=ModelConfig(dtype=dtype))[-1]
    expected = "this CPU has no products in bfloat16: model would be faster with dtype=float32"
    assert (last == expected) == (dtype == "bfloat16" and not has_products)


def test_what_does_not_divide_is_said_to_be_about():
    found = said("sft", batch_size=5)
    assert (
        "train: 1 optimizer step of 5 sequences a step, about 2.5 on each of 2 data-parallel ranks"
        in found[1]
    )
