"""Recipes, estimators and losses by name and by path."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from realrl.algorithms.advantages import ESTIMATORS
from realrl.recipes import RECIPES
from realrl.recipes.dapo import DAPOConfig
from realrl.recipes.parts.actor import own_loss_of
from realrl.recipes.parts.estimates import check, estimator_of, output
from realrl.recipes.ppo import PPOConfig
from realrl.recipes.registry import find_recipe, is_recipe
from tests.recipes.test_ppo_math import context_of, rollouts

ROOT = Path(__file__).parents[2]
OWN = f"{ROOT}/examples/rejection_sampling.py:REJECTION_SAMPLING"


def test_every_recipe_has_the_name_that_it_is_found_by():
    assert all(find_recipe(name) is recipe and recipe.name == name for name, recipe in RECIPES.items())
    assert is_recipe("grpo") and is_recipe("own.py:RECIPE") and not is_recipe("gpro")


def test_a_recipe_of_ones_own_has_its_path_as_its_name():
    """Workers and a resume find it by that."""
    found = find_recipe(OWN)
    assert found.name == OWN and found.default_config.least_reward == 1.0
    assert list(found.graph(found.default_config).calls) == ["actor_gen", "reward", "actor_train"]


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        (
            "",
            "gpro",
            "expected one of ppo-math, ppo, .*, or a path/to/file.py:RECIPE, got 'gpro'; did you mean",
        ),
        ("RECIPE = 3", "RECIPE", "own.py has no Recipe 'RECIPE'; it has none"),
        ("OTHER = 3", "RECIPE", "own.py has no Recipe 'RECIPE'; it has none"),
        (
            "from dataclasses import replace\nfrom realrl.recipes.grpo import GRPO\n"
            "RECIPE = replace(GRPO, bodies={})",
            "RECIPE",
            "own.py cannot be loaded .*recipe grpo: call actor_gen has no body",
        ),
    ],
)
def test_what_is_no_recipe_is_named(tmp_path, text, name, message):
    (tmp_path / "own.py").write_text(text)
    with pytest.raises(ValueError, match=f"^recipe: .*{message}"):
        find_recipe(f"{tmp_path}/own.py:{name}" if text else name)


def test_estimators_are_found_by_name():
    assert estimator_of(DAPOConfig(), "grpo") is ESTIMATORS["grpo"]
    assert estimator_of(DAPOConfig(advantage="rloo"), "grpo") is ESTIMATORS["rloo"]
    check(PPOConfig(advantage="gae"))


@pytest.mark.parametrize(
    ("advantage", "message"),
    [
        (
            "rlo",
            "expected gae, grpo, dr-grpo, rloo, reinforce, gdpo or a path.*, got 'rlo'; did you mean rloo?",
        ),
        ("gae", "gae needs the values of a critic, and this run has none"),
        ("none.py:f", "none.py is no file"),
    ],
)
def test_what_is_no_estimator_is_refused(advantage, message):
    with pytest.raises(ValueError, match=f"^advantage: {message}"):
        check(DAPOConfig(advantage=advantage))


def test_what_is_no_loss_is_refused():
    assert own_loss_of(DAPOConfig()) is None
    with pytest.raises(ValueError, match="^loss: expected a path/to/file.py:function, got 'ppo'"):
        own_loss_of(DAPOConfig(loss="ppo"))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (lambda n: torch.zeros(6), ValueError, r"one advantage for each of 30 tokens, .* got \(6,\)"),
        (lambda n: [0.0] * n, ValueError, "got list"),
        (lambda n: torch.full((n,), float("inf")), FloatingPointError, "not finite"),
    ],
)
def test_an_estimators_result_is_checked(given, error, message):
    """One number a token; what is outside of the responses does not count."""
    batch = rollouts([1.0] * 6)
    ctx: SimpleNamespace = context_of(DAPOConfig(batch_size=3))
    with pytest.raises(error, match=f"^advantage: .*{message}"):
        output(ctx, batch, given(batch.num_tokens))
    found = output(ctx, batch, torch.ones(batch.num_tokens, dtype=torch.double)).batch["advantages"]
    assert torch.equal(found, batch["loss_mask"].float())
