"""Keys that an algorithm fixes: they may say what it does, and another value is refused with where to go."""

from __future__ import annotations

from dataclasses import fields

import pytest

from realrl.api.config_keys import config_keys, shown
from realrl.api.configure import build_config
from realrl.recipes import RECIPES
from realrl.recipes.parts.config import PolicyConfig

POLICIES = [name for name, recipe in RECIPES.items() if isinstance(recipe.default_config, PolicyConfig)]
FORMER = {
    *("group_size", "max_draws", "num_minibatches", "clip_eps", "clip_eps_high", "dual_clip", "old"),
    *("importance", "importance_cap", "importance_level", "ratio", "surrogate", "aggregation", "baseline"),
    *("advantage_scale", "gamma", "lam", "bootstrap_truncated", "kl_coef", "kl_in", "kl_estimator"),
    *("ref_eta", "early_stop_kl", "std", "kl_target", "kl_horizon", "kl_weighted", "kl_clip"),
    *("length_adaptive_lam",),
}
"""Keys of `ppo` that not every recipe has, or that were replaced."""


def built(name: str, *overrides: str) -> PolicyConfig:
    return build_config(RECIPES[name].default_config, None, overrides, recipe=name)


@pytest.mark.parametrize("name", POLICIES)
def test_a_recipe_has_a_key_or_says_what_it_always_is(name):
    """None is forgotten, and none is both."""
    section = RECIPES[name].default_config.ppo
    own = {field.name for field in fields(section)}
    assert own | section.FIXED.keys() >= FORMER and not own & section.FIXED.keys()


@pytest.mark.parametrize("name", POLICIES)
def test_what_is_fixed_may_be_said(name):
    """It changes nothing, in a file too."""
    config = RECIPES[name].default_config
    said = {key: fixed.values[0] for key, fixed in config.ppo.FIXED.items()}
    overrides = [f"ppo.{key}={shown(value)}" for key, value in said.items()]
    assert built(name, *overrides) == config
    assert build_config(config, str({"ppo": said}).replace("None", "null"), recipe=name) == config


@pytest.mark.parametrize(
    ("name", "override", "message"),
    [
        (
            "grpo",
            "ppo.kl_in=token_reward",
            "ppo.kl_in: this recipe has no such key, as it always is 'loss', got 'token_reward'; grpo has",
        ),
        ("dapo", "ppo.kl_coef=0.1", "ppo.kl_coef: .* always is 0.0, got 0.1; grpo has a KL in the loss"),
        ("ppo-math", "ppo.ratio=sequence", "ppo.ratio: .*; recipe gspo takes the ratio of a whole response"),
        ("gspo", "ppo.max_draws=3", "ppo.max_draws: .*; recipes dapo and ppo-math draw other prompts"),
        (
            "grpo",
            "critic={}",
            "critic: .* no such key, .* recipes ppo and ppo-math have a critic",
        ),
        ("grpo", "ppo.clip_espilon=3", "ppo.clip_espilon: unknown key"),
    ],
)
def test_another_value_is_refused_with_where_to_go(name, override, message):
    """A key that no recipe ever had is unknown, as before."""
    with pytest.raises(ValueError, match=f"^{message}"):
        built(name, override)


def test_help_shows_the_keys_that_there_are():
    """Not those that are fixed."""
    paths = {key.path for key in config_keys(type(RECIPES["dapo"].default_config))}
    assert "ppo.max_draws" in paths and not {"ppo.kl_coef", "ppo.FIXED", "FIXED"} & paths
