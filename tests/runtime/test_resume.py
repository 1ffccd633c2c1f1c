"""Going on with an interrupted run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from realrl.api.config import GenerationConfig, ModelConfig
from realrl.api.configure import dump_config
from realrl.api.data import DataConfig
from realrl.recipes.gen import GEN, GenConfig
from realrl.recipes.ppo_config import PPOMathConfig
from realrl.recipes.ppo_math import PPO_MATH
from realrl.recipes.sft import SFT, SFTConfig
from realrl.runtime.recorder import CONFIG, SUMMARY, run_directory
from realrl.runtime.resume import check_same_settings, goes_on, may_restart


@pytest.fixture
def config(tmp_path) -> GenConfig:
    """Of a run that was made, and is to be gone on with."""
    made = GenConfig(runs_dir=str(tmp_path), data=DataConfig(max_prompt_tokens=9))
    directory = run_directory(made)
    directory.mkdir(parents=True)
    (directory / CONFIG).write_text(dump_config(made, recipe=GEN.name))
    return made


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 3, "allocation": "*:p2", "device": "cuda"},
        {"generation": GenerationConfig(cache_mib=7, max_sequences=3)},
        {"model": ModelConfig(offload=True)},
    ],
)
def test_where_and_how_fast_it_runs_may_change(config, change):
    check_same_settings(GEN, replace(config, **change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_samples": 2}, "num_samples=1, got 2"),
        ({"seed": 7}, "seed=1, got 7"),
        ({"greedy": True}, "greedy=false, got true"),
        ({"model": ModelConfig(path="other")}, "model.path='', got 'other'"),
        ({"generation": GenerationConfig(temperature=0.5)}, "generation.temperature=1.0, got 0.5"),
        ({"data": DataConfig()}, "data.max_prompt_tokens=9, got 1024"),
    ],
)
def test_what_results_depend_on_may_not(config, change, message):
    """It is named."""
    with pytest.raises(
        ValueError,
        match=rf"recover: .*gen/trial was made with {message}; set it back, write elsewhere",
    ):
        check_same_settings(GEN, replace(config, **change))


def test_a_pass_goes_on_with_one_that_was_cut_short(config):
    """Unless it is told not to; one that is done, or was never begun, is not gone on with."""
    assert goes_on(config)
    assert not goes_on(replace(config, recover="off"))
    assert not goes_on(replace(config, trial="other"))
    (run_directory(config) / SUMMARY).write_text("{}")
    assert not goes_on(config)


def test_training_goes_on_where_there_is_something_to_go_on_from(tmp_path):
    made = SFTConfig(runs_dir=str(tmp_path), recover_every=5)
    directory = run_directory(made)
    directory.mkdir(parents=True)
    (directory / CONFIG).write_text(dump_config(made, recipe=SFT.name))
    assert not goes_on(made)
    (directory / "recovery" / "step-5").mkdir(parents=True)
    assert goes_on(made)
    assert not goes_on(replace(made, recover="off"))


def test_restarts_are_bounded():
    """By their number, and by a failure that comes twice in a row; a training needs what to go on from."""
    made = SFTConfig(recover_every=5, restarts=2)
    assert may_restart(made, ["a"]) and may_restart(made, ["a", "b"])
    assert not may_restart(made, ["a", "b", "c"])
    assert not may_restart(made, ["a", "a"])
    assert not may_restart(replace(made, recover_every=0), ["a"])
    assert may_restart(GenConfig(), ["a"])


def test_training_that_recovers_is_of_the_same_settings(tmp_path):
    """But for where and how fast it runs, and how often it saves."""
    made = SFTConfig(runs_dir=str(tmp_path), recover_every=5)
    directory = run_directory(made)
    directory.mkdir(parents=True)
    (directory / CONFIG).write_text(dump_config(made, recipe=SFT.name))
    check_same_settings(SFT, replace(made, allocation="*:p2", max_tokens_per_microbatch=64, recover_every=1))
    message = r"recover: .* was made with batch_size=16, got 3; set it back, .* or set recover=off"
    with pytest.raises(ValueError, match=message):
        check_same_settings(SFT, replace(made, batch_size=3))


def test_what_is_generated_ahead_depends_on_where_recovery_goes_on_from(tmp_path):
    """So that with staleness its steps stay where they are."""
    made = PPOMathConfig(runs_dir=str(tmp_path), recover_every=5, max_staleness=1)
    directory = run_directory(made)
    directory.mkdir(parents=True)
    (directory / CONFIG).write_text(dump_config(made, recipe="ppo-math"))
    check_same_settings(PPO_MATH, replace(made, restarts=1))
    with pytest.raises(ValueError, match="was made with recover_every=5, got 3"):
        check_same_settings(PPO_MATH, replace(made, recover_every=3))
