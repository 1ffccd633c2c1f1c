"""The files of `examples` train a tiny model, named on the command line as a user would name them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from realrl.algorithms.advantages import Scored
from realrl.api.configure import build_config
from realrl.base.user_files import load_function_from_file
from realrl.recipes.registry import find_recipe
from tests.command_line import run_recipe
from tests.e2e.stateful import write_inputs

ROOT = Path(__file__).parents[2]
ESTIMATOR = f"{ROOT}/examples/estimator.py:maxrl"
REJECTION_SAMPLING = f"{ROOT}/examples/rejection_sampling.py:REJECTION_SAMPLING"
OWN_FILE = '''
import json
from pathlib import Path

def rows():
    """The rows of a file next to this one."""
    lines = (Path(__file__).parent / "train.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]

def unclipped(tokens):
    return -tokens.log_ratio.exp() * tokens.advantages
'''


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A tiny model, problems that it solves now and then, and a file with functions."""
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder)
    (folder / "own.py").write_text(OWN_FILE)
    return folder


def run(files: Path, recipe: str, trial: str, **more: object) -> list[dict]:
    """Train for three steps; return what each step reports."""
    overrides = {
        "actor.model.path": files / "model",
        "actor.model.dtype": "float32",
        "actor.optimizer.lr": 3e-3,
        "data.path": files / "train.jsonl",
        "data.template": "plain",
        "allocation": "actor_gen:d2,*:d2",
        "device": "cpu",
        "batch_size": 4,
        "num_steps": 3,
        "ppo.group_size": 4,
        "generation.max_new_tokens": 8,
        "max_tokens_per_microbatch": 100,
        "experiment": "own",
        "trial": trial,
        "runs_dir": files / "runs",
        **more,
    }
    run_recipe(recipe, overrides)
    lines = (files / "runs" / "own" / trial / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == "train"]


def test_an_estimator_of_ones_own_trains(files):
    """Its advantages are what the rollouts record: the gain over the group's mean in units of that mean."""
    steps = run(files, "grpo", "estimator", advantage=ESTIMATOR, **{"ppo.kl_coef": 0})
    assert len(steps) == 3 and all(step["actor_updates"] == 1 for step in steps)
    records = [json.loads(line) for line in (files / "runs/own/estimator/rollouts.jsonl").open()]
    groups: dict[tuple[int, int], list[dict]] = {}
    for record in records:
        groups.setdefault((record["step"], record["group"]), []).append(record)
    for group in groups.values():
        mean = sum(record["reward"] for record in group) / len(group)
        for record in group:
            expected = (record["reward"] - mean) / mean if mean else 0.0
            if "advantage" in record:
                assert record["advantage"] == pytest.approx(expected, rel=1e-5)
    assert any(record.get("advantage") for record in records)


def test_maxrl_is_a_gain_in_units_of_the_mean():
    """One right of four counts three, its group's others minus one; without a right one, nothing counts."""
    maxrl = load_function_from_file(ESTIMATOR, setting="advantage", num_arguments=1, form="f(scored)")
    counts = torch.ones(9, dtype=torch.bool)
    counts[8] = False
    found = maxrl(
        Scored(
            rewards=torch.tensor([1.0, 0, 0, 0, 0, 0, 1.0, 1.0, 5.0]),
            groups=torch.tensor([0, 0, 0, 0, 1, 1, 2, 2, 2]),
            num_groups=3,
            counts=counts,
            loss_mask=torch.tensor([False, True] * 9),
            cu_seqlens=torch.arange(0, 20, 2, dtype=torch.int32),
            reduce=lambda x: x,
            token_rewards=torch.zeros(18),
        )
    )
    assert found.tolist() == [x for a in (3, -1, -1, -1, 0, 0, 0, 0, 0) for x in (0.0, a)]


def test_rejection_sampling_trains(files):
    """A step is made on right answers alone; the loss is theirs, and a step without any makes none."""
    # A random model seldom ends by itself; an even digit, which is a right answer, ends a response here.
    settings = {"actor.optimizer.lr": 1e-2, "num_steps": 6, "generation.stop": "['0', '2', '4', '6', '8']"}
    steps = run(files, REJECTION_SAMPLING, "rejection", **settings)
    assert len(steps) == 6
    for step in steps:
        assert 0 <= step["accepted"] <= step["accuracy"] + 1e-9
        assert ("loss" in step) == (step["accepted"] > 0)
    losses = [step["loss"] for step in steps if "loss" in step]
    assert len(losses) > 1 and losses[-1] < losses[0]
    written = (files / "runs/own/rejection/config.yaml").read_text()
    assert f"recipe: {REJECTION_SAMPLING}" in written


def test_rows_and_a_loss_of_ones_own_train_to_the_same_numbers(files):
    """The function gives the rows of the file; without bounds on the first update, PPO's loss is this one."""
    ours = run(files, "dr-grpo", "ours")
    own = run(
        files, "dr-grpo", "own", loss=f"{files}/own.py:unclipped", **{"data.path": f"{files}/own.py:rows"}
    )
    for mine, theirs in zip(own, ours, strict=True):
        assert mine["reward"] == theirs["reward"]
        assert mine["actor_loss"] == pytest.approx(theirs["actor_loss"], rel=1e-6, abs=1e-9)


def test_settings_that_rejection_sampling_has_no_use_for_are_refused():
    """An option that does nothing would be taken for one that does."""
    default = find_recipe(REJECTION_SAMPLING).default_config
    assert build_config(default, None, ["ppo.group_size=4"]).ppo.group_size == 4
    for key in ("ppo.old", "ppo.num_minibatches", "advantage"):
        with pytest.raises(ValueError, match=f"^{key}: unknown key"):
            build_config(default, None, [f"{key}=2"])


def test_examples_are_short():
    """So that they can be read before anything else is."""
    assert len((ROOT / "examples/estimator.py").read_text().splitlines()) <= 30
    assert len((ROOT / "examples/rejection_sampling.py").read_text().splitlines()) <= 75
