"""Broken set-ups are named in words in the first step, each by its cause; a sound one is not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from realrl.api.config import GenerationConfig, ModelConfig, OptimizerConfig, TrainedModelConfig
from realrl.api.data import DataConfig
from realrl.api.recipe import Observed
from realrl.recipes.gen import GenConfig
from realrl.recipes.parts.symptoms import policy_symptoms, response_symptoms
from realrl.recipes.ppo_math import PPOMathConfig, PPOMathSettings
from tests.recipes.first_step import first_step
from tests.tiny import tiny_llama

REWARDS = """
def sometimes(prompt, response, solutions):
    return float(len(response) % 2)
def never(prompt, response, solutions):
    return 0.0
def always(prompt, response, solutions):
    return 1.0
def undecided(prompt, response, solutions):
    return None if len(response) % 2 else 1.0
"""


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> PPOMathConfig:
    """A random model, which ends now and then, and a reward that tells its responses apart."""
    folder = tmp_path_factory.mktemp("symptoms")
    tiny_llama(folder / "model")
    tiny_llama(folder / "other", seed=7)
    (folder / "rewards.py").write_text(REWARDS)
    rows = [{"prompt": f"{i}+{i * i}=", "solutions": ["2", "4"], "note": f"row {i}"} for i in range(4)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = ModelConfig(path=str(folder / "model"), dtype="float32")
    return PPOMathConfig(
        num_steps=1,
        batch_size=4,
        max_tokens_per_microbatch=4096,
        actor=TrainedModelConfig(model=model, optimizer=OptimizerConfig(lr=1e-5)),
        data=DataConfig(path=str(folder / "rows.jsonl"), template="plain"),
        generation=GenerationConfig(max_new_tokens=200, temperature=2.0),
        ppo=PPOMathSettings(group_size=4),
        reward=f"{folder / 'rewards.py'}:sometimes",
    )


def folder_of(config: PPOMathConfig) -> Path:
    return Path(config.data.path).parent


def with_reward(config: PPOMathConfig, name: str) -> PPOMathConfig:
    return replace(config, reward=f"{folder_of(config) / 'rewards.py'}:{name}")


def with_lr(config: PPOMathConfig, lr: float) -> PPOMathConfig:
    return replace(config, actor=replace(config.actor, optimizer=OptimizerConfig(lr=lr)))


def with_limit(config: PPOMathConfig, max_new_tokens: int) -> PPOMathConfig:
    return replace(config, generation=replace(config.generation, max_new_tokens=max_new_tokens))


def with_answers_in(config: PPOMathConfig, field: str) -> PPOMathConfig:
    return replace(config, reward="math", data=replace(config.data, fields={"solutions": field}))


def with_reference(config: PPOMathConfig, name: str) -> PPOMathConfig:
    return replace(config, ref=ModelConfig(path=str(folder_of(config) / name), dtype="float32"))


def without_end(config: PPOMathConfig) -> PPOMathConfig:
    """A model whose files name no end of a response, and a limit that is not short."""
    folder = tiny_llama(folder_of(config) / "endless", max_position=512)
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        keys = json.loads((folder / name).read_text())
        for key in ("eos_token_id", "eos_token"):
            keys.pop(key, None)
        (folder / name).write_text(json.dumps(keys))
    actor = replace(config.actor, model=ModelConfig(path=str(folder), dtype="float32"))
    return with_limit(replace(config, actor=actor, batch_size=1), 256)


BROKEN = {
    "no end token": (without_end, "the tokenizer has no end token"),
    "too short a limit": (
        lambda c: with_limit(c, 2),
        "reach generation.max_new_tokens=2 without an end: raise",
    ),
    "answers in another field": (
        lambda c: with_answers_in(c, "note"),
        "no response is right: the first row wants 'row 0', its response ends in",
    ),
    "reward always 0": (lambda c: with_reward(c, "never"), "are equal (their mean is 0), so that nothing"),
    "reward always 1": (lambda c: with_reward(c, "always"), "are equal (their mean is 1), so that nothing"),
    "no opinion": (lambda c: with_reward(c, "undecided"), "have no reward and take no part in the step"),
    "learning rate 0": (lambda c: with_lr(c, 0.0), "actor.optimizer.lr is 0: the weights will not change"),
    "absurd learning rate": (lambda c: with_lr(c, 0.5), "actor.optimizer.lr is 0.5, which destroys"),
    "wrong reference": (
        lambda c: with_reference(c, "other"),
        "the reference is another model than the actor",
    ),
}


def test_a_sound_set_up_has_no_symptoms(sound):
    assert first_step(sound) == []


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_set_up_is_named_by_its_cause(sound, name):
    """By the numbers that a real step reports."""
    break_it, expected = BROKEN[name]
    assert any(expected in line for line in first_step(break_it(sound)))


@pytest.mark.parametrize(
    ("template", "chat_template", "advice"),
    [
        ("plain", "{{ messages }}", "try data.template=chat"),
        ("chat", "{{ messages }}", "a base model wants another one"),
        ("plain", None, "the tokenizer has no chat template"),
    ],
)
def test_a_wrong_template_shows_in_empty_responses(sound, template, chat_template, advice):
    config = replace(sound, data=replace(sound.data, template=template))
    tokenizer = SimpleNamespace(chat_template=chat_template, eos_token="<eos>")
    (line,) = response_symptoms(config, tokenizer, Observed({"empty": 0.625, "accuracy": 0.25}))
    assert line.startswith("62% of the responses are empty") and advice in line


def test_two_engines_that_disagree(sound):
    """By another engine it is a matter of its arithmetic, by our own a defect."""
    tokenizer, seen = (
        SimpleNamespace(chat_template=None, eos_token="<eos>"),
        Observed({"actor_logprob_diff": 0.5}),
    )
    assert "please report this" in policy_symptoms(sound, tokenizer, seen)[0]
    vllm = replace(sound, generation=GenerationConfig(engine="vllm"))
    assert "generation.engine=vllm computes the model otherwise" in policy_symptoms(vllm, tokenizer, seen)[0]


def test_checks_and_updates_that_failed_are_said(sound):
    """How many, by their kind; a few of thousands are no line."""
    tokenizer = SimpleNamespace(chat_template=None, eos_token="<eos>")
    failed = {"verdict_timeout": 0.02, "verdict_error": 0.01, "critic_skipped_updates": 0.25}
    check, update = policy_symptoms(sound, tokenizer, Observed({**failed, "actor_skipped_updates": 0.0}))
    assert "the check of 3% of the responses said nothing: 2% took too long, 1% broke" in check
    assert update.startswith("25% of the critic updates were skipped, because their gradient")
    rare = Observed({"verdict_timeout": 0.001, "ungraded": 0.001, "skipped_updates": 0.0})
    assert policy_symptoms(sound, tokenizer, rare) == []


def test_a_reference_may_drift_away_later(sound):
    """Only where the weights are those of the start is a distance a fault."""
    tokenizer = SimpleNamespace(chat_template=None, eos_token="<eos>")
    assert policy_symptoms(sound, tokenizer, Observed({"kl_to_ref": 3.0})) == []


def test_answers_that_are_right_may_be_cut_off(sound):
    tokenizer = SimpleNamespace(chat_template=None, eos_token="<eos>")
    assert response_symptoms(sound, tokenizer, Observed({"truncated": 1.0, "accuracy": 0.75})) == []
    assert response_symptoms(sound, tokenizer, Observed({"truncated": 1.0, "accuracy": 0.25})) != []


def test_a_pass_over_data_has_symptoms_too():
    config = GenConfig(generation=GenerationConfig(max_new_tokens=1024))
    tokenizer = SimpleNamespace(chat_template=None, eos_token="<eos>")
    lines = response_symptoms(config, tokenizer, Observed({"truncated": 0.9, "verdict_no_answer": 0.9}))
    assert "does the model not end with '<eos>'?" in lines[0] and "have no answer" in lines[1]
