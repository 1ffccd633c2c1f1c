"""Rows of reasoning-gym as training and held-out problems."""

from __future__ import annotations

from collections import Counter

import pytest

from realrl.api.data import DataConfig, GymConfig
from realrl.datasets.prompts import load_prompts
from realrl.recipes.ppo_math import PPOMathConfig
from tests.tiny import tiny_tokenizer


def load(path: str, gym: GymConfig, **settings):
    return load_prompts(DataConfig(path=path, gym=gym, **settings), tiny_tokenizer())


def texts(dataset) -> list[str]:
    return [dataset.prompt(row) for row in range(len(dataset))]


def test_held_out_questions_are_not_in_training():
    """Of a task with few of them; rows are named, and known to their task."""
    few = {"chain_sum": {"max_terms": 2, "max_digits": 1}}
    train, held_out = load("gym:chain_sum", GymConfig(size=60, eval_size=60, parameters=few))
    assert len(train) == 60 and 0 < len(held_out) < 60
    assert not set(texts(train)) & set(texts(held_out))
    assert train.query_id(3) == "chain_sum/3" and train.place(3) == "gym:chain_sum/3"
    assert train.gym(3).number == 3 and train.solutions(3)[0].lstrip("-").isdigit()


def test_each_task_has_as_many_rows_of_each_level():
    """Which are their difficulty; and those that were made for fewer levels stay."""
    train, held_out = load("gym:chain_sum,lcm", GymConfig(size=5, eval_size=2, levels=(0, 2)), order="rising")
    assert Counter(train.levels) == {0.0: 4, 2.0: 6} and len(held_out) <= 4
    assert train.query_id(2) == "chain_sum/2/0" and len({train.query_id(row) for row in range(10)}) == 10
    alone, _ = load("gym:lcm", GymConfig(size=2, eval_size=1, levels=(0,)))
    assert set(texts(alone)) <= set(texts(train))


def test_tasks_of_other_kinds_have_no_solutions():
    """Only scores."""
    train, _ = load("gym:graph_color", GymConfig(size=1, eval_size=1), max_prompt_tokens=5000)
    assert train.solutions(0) == [] and train.gym(0).task.name == "graph_color"


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"^data\.path: gym: chain_sum: max_terms must be >= min_terms"):
        load("gym:chain_sum", GymConfig(parameters={"chain_sum": {"max_terms": 1}}))
    two = {"chain_sum": {"min_digits": 1, "max_digits": 1, "min_terms": 1, "max_terms": 1}}
    with pytest.raises(ValueError, match=r"^data\.eval_path: gym:chain_sum: training has all of these"):
        load("gym:chain_sum", GymConfig(size=200, eval_size=5, parameters=two))


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"^data\.path: gym: .*package reasoning-gym; install realrl\[gym\]"):
        load("gym:gcd", GymConfig())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GymConfig(levels=(1, 0)), r"levels must rise from 0 or more, got \[1, 0\]"),
        (lambda: GymConfig(size=0), "size must be at least 1, got 0"),
        (lambda: DataConfig(gym=GymConfig(parameters={"lcm": {}})), "'lcm' is no task of path or eval_path"),
        (
            lambda: PPOMathConfig(reward="gym", data=DataConfig(path="sums")),
            "reward: `gym` is for tasks of reasoning-gym alone",
        ),
        (
            lambda: PPOMathConfig(reward="gym", data=DataConfig(path="gym:lcm", eval_path="sums")),
            "reward: `gym` is for tasks of reasoning-gym alone",
        ),
        (lambda: PPOMathConfig(reward={"gym": 1.0, "math": 1.0}), "both `math` and `gym` say what is right"),
    ],
)
def test_settings_that_do_not_fit(make, message):
    with pytest.raises(ValueError, match=message):
        make()
