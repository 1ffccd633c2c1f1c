"""The shipped configs of published runs, setting by setting, next to what was published.

A value that drifts here, by an edit of a file or of a default, is no longer the published run.
"""

from __future__ import annotations

from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import yaml

from realrl.api.configure import build_config
from realrl.api.evals import EvalConfig
from realrl.recipes import RECIPES
from realrl.recipes.ppo_math import PPOMathConfig

EXPERIMENTS = Path(__file__).parents[2] / "experiments"

AREAL_1_5B = {
    # examples/train_1.5B_n16_on_ray.sh and realhf/api/cli_args.py, first release, of February 2025
    "batch_size": 1024,
    "ppo.group_size": 8,
    "ppo.num_minibatches": 1,
    "actor.optimizer.lr": 1e-6,
    "actor.optimizer.beta1": 0.9,
    "actor.optimizer.beta2": 0.95,
    "actor.optimizer.eps": 1e-5,
    "actor.optimizer.weight_decay": 0.05,
    # 2 % of 390 steps: 10 epochs
    "actor.optimizer.warmup_steps": 8,
    "actor.optimizer.schedule": "constant",
    "actor.optimizer.clip_grad_norm": 1.0,
    "ppo.clip_eps": 0.2,
    "ppo.clip_eps_high": None,
    "ppo.dual_clip": 0.0,
    "ppo.gamma": 1.0,
    "ppo.lam": 1.0,
    "ppo.baseline": "none",
    "ppo.advantage_scale": "batch",
    "ppo.kl_coef": 0.001,
    "ppo.old": "rollout",
    "generation.temperature": 0.6,
    "generation.top_p": 1.0,
    "data.max_prompt_tokens": 2048,
    "data.drop_long": True,
    "data.template": "plain",
    # 5 times +1 and -1; what was not checked counts as wrong
    "scores.correct": 5.0,
    "scores.wrong": -5.0,
    "scores.ungraded": -5.0,
    "scores.truncated": "graded",
}
DEEPSCALER = {
    # agentica-project/deepscaler: scripts/train/run_deepscaler_1.5b_8k.sh, verl's config/ppo_trainer.yaml
    "batch_size": 128,
    "ppo.num_minibatches": 2,
    "actor.optimizer.lr": 1e-6,
    "actor.optimizer.beta1": 0.9,
    "actor.optimizer.beta2": 0.999,
    "actor.optimizer.eps": 1e-8,
    "actor.optimizer.weight_decay": 0.01,
    "actor.optimizer.warmup_steps": 0,
    "actor.optimizer.clip_grad_norm": 1.0,
    "ppo.clip_eps": 0.2,
    "ppo.clip_eps_high": None,
    "ppo.aggregation": "token",
    "ppo.entropy_coef": 0.001,
    "ppo.kl_coef": 0.001,
    "ppo.kl_estimator": "k3",
    "ppo.kl_clip": 10.0,
    "ppo.advantage_scale": "group_std",
    "ppo.std": "sample",
    "ppo.old": "trainer",
    "generation.temperature": 0.6,
    "generation.top_p": 1.0,
    "data.max_prompt_tokens": 1024,
    "data.drop_long": True,
    "scores.correct": 1.0,
    "scores.wrong": 0.0,
    "scores.ungraded": 0.0,
    # math_reward.py: what follows </think>, in a box
    "scores.form": "deepscaler",
    # scripts/data/deepscaler_dataset.py
    "data.suffix": " Let's think step by step and output the final answer within \\boxed{}.",
    "data.template": "chat",
}
AIME_8 = {"aime": EvalConfig(path="aime.jsonl", n=8, temperature=0.6, every=20)}
AIME_16 = {"aime": EvalConfig(path="aime.jsonl", n=16, temperature=0.6, every=10)}
PUBLISHED: dict[str, dict[str, Any]] = {
    "areal/1.5b-8k": {**AREAL_1_5B, "generation.max_new_tokens": 8192},
    "areal/1.5b-16k": {**AREAL_1_5B, "generation.max_new_tokens": 16384},
    "areal/1.5b-24k": {**AREAL_1_5B, "generation.max_new_tokens": 24000},
    "areal/7b-zero": {
        **AREAL_1_5B,
        # examples/train_7B_zero_n16_on_ray.sh
        "batch_size": 512,
        "ppo.group_size": 64,
        "ppo.num_minibatches": 4,
        "ppo.kl_coef": 0.0,
        # 2 % of 200 steps of 4 updates
        "actor.optimizer.warmup_steps": 16,
        "generation.temperature": 1.0,
        "generation.max_new_tokens": 24000,
        "scores.correct": 1.0,
        "scores.wrong": 0.0,
        "scores.ungraded": 0.0,
    },
    "deepscaler/1.5b-8k": {
        **DEEPSCALER,
        "ppo.group_size": 8,
        "generation.max_new_tokens": 8192,
        "evals": AIME_8,
    },
    "deepscaler/1.5b-16k": {
        **DEEPSCALER,
        "ppo.group_size": 16,
        "generation.max_new_tokens": 16384,
        "evals": AIME_16,
    },
    "deepscaler/1.5b-24k": {
        **DEEPSCALER,
        "ppo.group_size": 16,
        "generation.max_new_tokens": 24576,
        "evals": AIME_16,
    },
    "orz/7b": {
        # playground/orz_7b_ppo.py and orz/ppo/ of Open-Reasoner-Zero
        "batch_size": 128,
        "ppo.group_size": 64,
        "ppo.num_minibatches": 1,
        "critic.num_minibatches": 12,
        "actor.optimizer.lr": 1e-6,
        "actor.optimizer.beta1": 0.9,
        "actor.optimizer.beta2": 0.95,
        "actor.optimizer.weight_decay": 0.0,
        "actor.optimizer.warmup_steps": 50,
        "critic.optimizer.lr": 5e-6,
        "critic.optimizer.warmup_steps": 50,
        "critic.clip_eps": 0.2,
        "ppo.clip_eps": 0.2,
        "ppo.gamma": 1.0,
        "ppo.lam": 1.0,
        "ppo.kl_coef": 0.0,
        "ppo.old": "trainer",
        "ppo.bootstrap_truncated": None,  # none, as truncated responses are wrong
        "generation.temperature": 1.0,
        "generation.top_p": 1.0,
        "generation.stop": ("User:", "Human:", "Assistant:", "</answer>"),
        "data.max_prompt_tokens": 2048,
        "data.template": "orz",
        "scores.correct": 1.0,
        "scores.wrong": 0.0,
        "scores.ungraded": 0.0,
        "scores.truncated": "wrong",
        "scores.form": "orz",
        "evals": {
            name: EvalConfig(path=f"{name}.jsonl", temperature=1.0, every=10)
            for name in ("math500", "aime2024")
        },
    },
    "dapo/32b": {
        # section 4.1 of the paper, and recipe/dapo/run_dapo_qwen2.5_32b.sh of verl
        "batch_size": 512,
        "ppo.group_size": 16,
        "ppo.num_minibatches": 16,
        "actor.optimizer.lr": 1e-6,
        "actor.optimizer.beta1": 0.9,
        "actor.optimizer.beta2": 0.999,
        "actor.optimizer.weight_decay": 0.1,
        # 20 rollout steps of 16 updates, as the paper has it
        "actor.optimizer.warmup_steps": 320,
        "actor.optimizer.clip_grad_norm": 1.0,
        "ppo.clip_eps": 0.2,
        "ppo.clip_eps_high": 0.28,
        "ppo.dual_clip": 10.0,
        "ppo.aggregation": "token",
        "ppo.advantage_scale": "group_std",
        "ppo.std": "sample",
        "ppo.max_draws": 10,
        "generation.temperature": 1.0,
        "generation.top_p": 1.0,
        "generation.max_new_tokens": 20480,
        "data.fields": {"solutions": "reward_model.ground_truth"},
        "data.max_prompt_tokens": 2048,
        "data.drop_long": True,
        "scores.correct": 1.0,
        "scores.wrong": -1.0,
        "scores.ungraded": -1.0,
        "scores.form": "dapo",
        "evals": {"aime": EvalConfig(path="aime-2024.parquet", n=32, temperature=1.0, top_p=0.7, every=5)},
        "scores.overlong_tokens": 4096,
        "scores.overlong_penalty": 1.0,
    },
}


def resolved(name: str) -> Any:
    """The config of a run by a shipped file, with all defaults."""
    file = EXPERIMENTS / f"{name}.yaml"
    recipe = yaml.safe_load(file.read_text())["recipe"]
    return build_config(RECIPES[recipe].default_config, file, recipe=recipe)


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_setting_is_the_published_one(name):
    config = resolved(name)
    found = {key: reduce(getattr, key.split("."), config) for key in PUBLISHED[name]}
    differs = {key: (found[key], value) for key, value in PUBLISHED[name].items() if found[key] != value}
    assert not differs, "(shipped, published)"


def test_every_published_run_is_checked():
    """A file of a published run that is added here comes with its table."""
    own = {"gym", "sentiment", "sums"}
    shipped = {
        str(file.relative_to(EXPERIMENTS).with_suffix(""))
        for file in EXPERIMENTS.glob("*/*.yaml")
        if file.parent.name not in own
    }
    assert shipped == PUBLISHED.keys()


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name.startswith("areal")])
def test_areals_runs_have_no_critic(name):
    config = resolved(name)
    assert isinstance(config, PPOMathConfig) and not config.has_critic
