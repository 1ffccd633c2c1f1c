"""Resuming a run: when one is resumed, with which settings, and when it is finished."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from realrl.api.config import GenerationConfig, ModelConfig, OptimizerConfig, RunConfig
from realrl.api.configure import dump_config
from realrl.api.data import DataConfig
from realrl.api.evals import EvalConfig
from realrl.api.recipe import Recipe
from realrl.datasets.digests import DataDigest, RowsDigest
from realrl.recipes.gen import GEN, GenConfig
from realrl.recipes.ppo_math import PPO_MATH, PPOMathConfig
from realrl.recipes.sft import SFT, SFTConfig
from realrl.runtime import resume
from realrl.runtime.master.recorder import run_directory
from realrl.runtime.resume import is_finished, may_restart, resumes
from realrl.runtime.run_files import CONFIG, SUMMARY


def check_resume(recipe: Recipe, config: RunConfig) -> None:
    """Of a run that has noted nothing of what it reads."""
    resume.check_resume(recipe, config, DataDigest(RowsDigest(0, ""), None))


def make(recipe: Recipe, config: RunConfig, *, points: tuple[int, ...] = (), done: int | None = None) -> None:
    """A run's directory, with recovery points after these steps; with a summary if it is done."""
    directory = run_directory(config)
    directory.mkdir(parents=True)
    (directory / CONFIG).write_text(dump_config(config, recipe=recipe.name))
    for step in points:
        (directory / "recovery" / f"step-{step}").mkdir(parents=True)
    if done is not None:
        (directory / SUMMARY).write_text(json.dumps({"num_steps": done}))


@pytest.fixture
def config(tmp_path) -> GenConfig:
    """Of a pass that was begun, and is to be resumed."""
    made = GenConfig(runs_dir=str(tmp_path), data=DataConfig(max_prompt_tokens=9))
    make(GEN, made)
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
    check_resume(GEN, replace(config, **change))


@pytest.mark.parametrize("is_done", [False, True])
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
def test_what_results_depend_on_may_not(config, change, message, is_done):
    """It is named, also where the run is finished: another one would move it aside."""
    if is_done:
        (run_directory(config) / SUMMARY).write_text('{"num_steps": 3}')
    with pytest.raises(ValueError, match=rf"recover: .*gen/trial was made with {message}; set it back, give"):
        check_resume(GEN, replace(config, **change))
    check_resume(GEN, replace(config, **change, recover="off"))
    check_resume(GEN, replace(config, **change, trial="another"))


def test_a_pass_is_resumed_until_it_is_done(config):
    """Unless it is told not to, or was never begun; then it is finished."""
    assert resumes(config) and not is_finished(config)
    assert not resumes(replace(config, recover="off"))
    assert not resumes(replace(config, trial="other"))
    (run_directory(config) / SUMMARY).write_text('{"num_steps": 3}')
    assert not resumes(config) and is_finished(config)
    assert not is_finished(replace(config, recover="off"))


def test_training_is_resumed_where_there_is_a_point(tmp_path):
    """Whole or not: that is for the run to say."""
    without = SFTConfig(runs_dir=str(tmp_path), trial="without", recover_every=5)
    make(SFT, without)
    assert not resumes(without)
    made = SFTConfig(runs_dir=str(tmp_path), recover_every=5)
    make(SFT, made, points=(5,))
    assert resumes(made)
    assert not resumes(replace(made, recover="off"))
    (run_directory(made) / "recovery" / "step-5").rename(run_directory(made) / "recovery" / "broken-step-5")
    assert resumes(made)


def test_a_finished_training_is_resumed_for_more_steps(tmp_path):
    """It has nothing to do for as many; more need a recovery point."""
    made = SFTConfig(runs_dir=str(tmp_path), num_steps=6, recover_every=2)
    make(SFT, made, points=(6,), done=6)
    assert is_finished(made) and not resumes(made)
    check_resume(SFT, made)
    more = replace(made, num_steps=9)
    assert resumes(more) and not is_finished(more)
    check_resume(SFT, more)
    with pytest.raises(ValueError, match=r"made with num_steps=6, got 5 \(6 steps are done\); set"):
        check_resume(SFT, replace(made, num_steps=5))
    (run_directory(made) / "recovery" / "step-6").rmdir()
    with pytest.raises(
        ValueError, match=r"num_steps=6, got 9 \(it left no recovery point: recover_every was 0"
    ):
        check_resume(SFT, more)
    (run_directory(made) / SUMMARY).write_text('{"num_steps": ')
    with pytest.raises(ValueError, match="summary.json is no summary of a run .*; put a whole copy there"):
        check_resume(SFT, more)


def test_the_number_of_steps_may_change_where_no_step_depends_on_it(tmp_path):
    """A learning rate that falls until the last one does, and is named; steps that are done stay."""
    made = SFTConfig(runs_dir=str(tmp_path), num_steps=9, recover_every=2)
    make(SFT, made, points=(2, 4))
    for num_steps in (5, 9, 30):
        check_resume(SFT, replace(made, num_steps=num_steps))
    with pytest.raises(ValueError, match=r"num_steps=9, got 4 \(4 steps are done\)"):
        check_resume(SFT, replace(made, num_steps=4))
    falling = replace(made, trial="falling", optimizer=OptimizerConfig(schedule="cosine"))
    make(SFT, falling, points=(4,))
    check_resume(SFT, falling)
    with pytest.raises(
        ValueError, match=r"num_steps=9, got 8 \(with cosine, the learning rate of model depends on it\); set"
    ):
        check_resume(SFT, replace(falling, num_steps=8))


def test_a_run_whose_settings_are_lost_is_not_begun_afresh(tmp_path):
    """It has recovery points that nobody can tell the settings of."""
    made = SFTConfig(runs_dir=str(tmp_path), recover_every=5)
    make(SFT, made, points=(5,))
    for damage in (lambda file: file.write_text("seed: 1\n  bad: ["), lambda file: file.unlink()):
        damage(run_directory(made) / CONFIG)
        with pytest.raises(
            ValueError, match=r"recover: cannot read the settings of the run in .*sft/trial \("
        ):
            check_resume(SFT, made)


def test_restarts_are_bounded():
    """By their number, and by a failure that comes twice in a row; a training needs recovery points."""
    made = SFTConfig(recover_every=5, restarts=2)
    assert may_restart(made, ["a"]) and may_restart(made, ["a", "b"])
    assert not may_restart(made, ["a", "b", "c"])
    assert not may_restart(made, ["a", "a"])
    assert not may_restart(replace(made, recover_every=0), ["a"])
    assert may_restart(GenConfig(), ["a"])


def test_training_that_resumes_is_of_the_same_settings(tmp_path):
    """Except for where and how fast it runs, how often it saves, and what it evaluates from now on."""
    made = SFTConfig(runs_dir=str(tmp_path), recover_every=5)
    make(SFT, made, points=(5,))
    check_resume(SFT, replace(made, allocation="*:p2", max_tokens_per_microbatch=64, recover_every=1))
    check_resume(SFT, replace(made, eval_every=3, keep_best=False))
    message = r"recover: .* was made with batch_size=16, got 3; set it back, .* or set recover=off"
    with pytest.raises(ValueError, match=message):
        check_resume(SFT, replace(made, batch_size=3))


def test_what_is_generated_ahead_depends_on_where_a_run_resumes(tmp_path):
    """So that with staleness its steps stay where they are."""
    made = PPOMathConfig(runs_dir=str(tmp_path), recover_every=5, max_staleness=1)
    make(PPO_MATH, made, points=(5,))
    check_resume(PPO_MATH, replace(made, restarts=1))
    with pytest.raises(ValueError, match="was made with recover_every=5, got 3"):
        check_resume(PPO_MATH, replace(made, recover_every=3))


def test_sets_of_evaluations_may_come_and_go_and_a_set_that_stays_is_the_same(tmp_path):
    """And may be evaluated as often as wanted from then on."""
    one = EvalConfig(path="a.jsonl", n=2, temperature=1.0)
    made = PPOMathConfig(runs_dir=str(tmp_path), recover_every=5, evals={"one": one})
    make(PPO_MATH, made, points=(5,))
    for evals in ({}, {"one": one, "two": one}, {"one": replace(one, every=3)}):
        check_resume(PPO_MATH, replace(made, evals=evals, eval_at_start=False, keep_best="one/reward"))
    with pytest.raises(ValueError, match="was made with evals.one.n=2, got 3"):
        check_resume(PPO_MATH, replace(made, evals={"one": replace(one, n=3), "two": one}))
