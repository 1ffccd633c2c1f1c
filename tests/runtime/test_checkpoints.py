"""Which checkpoint is the best."""

from __future__ import annotations

import json
import math

import pytest

from realrl.api.recipe import LEAST_LOSS, Criterion
from realrl.runtime.master.checkpoints import Best, partial_directory, publish, tidy

MOST = Criterion("accuracy")


@pytest.mark.parametrize(
    ("criterion", "values", "expected"),
    [
        (MOST, [0.5, 0.25, 0.75, 0.5], 2),
        (MOST, [0.5, 0.5], 0),
        (LEAST_LOSS, [2.0, 3.0, 1.0], 2),
        (LEAST_LOSS, [1.0, 2.0], 0),
        (LEAST_LOSS, [math.nan, 2.0, math.nan, 1.5, math.nan], 3),
        (MOST, [math.nan, 0.0], 1),
        (MOST, [math.nan], None),
    ],
)
def test_the_best_is_the_first_of_the_best_values(criterion, values, expected):
    """A value that is no number is not better than any."""
    best = Best(criterion)
    for step, value in enumerate(values):
        best.consider(step, {criterion.metric: value, "other": 9.0})
    assert best.step == expected


def test_an_evaluation_without_the_metric_is_not_the_best():
    """As one whose mean is of nothing."""
    best = Best(MOST)
    best.consider(0, {"loss": 1.0})
    assert best.step is None


def test_a_best_checkpoint_says_which_it_is(tmp_path):
    """It takes the place of the former one, and is named once it is whole."""
    best = Best(MOST)
    for step, value in enumerate((0.0, 0.5, 0.75)):
        best.consider(step, {"accuracy": value})
        assert best.outcome(tmp_path)["checkpoint"] is None
        if step:
            partial = partial_directory(tmp_path / "checkpoints", "best")
            partial.mkdir(parents=True)
            (partial / "weights").write_text(str(step))
            best.note(partial)
            final = publish(partial)
            assert (final, partial.exists()) == (tmp_path / "checkpoints" / "best", False)
            assert json.loads((final / "best.json").read_text()) == {"step": step, "accuracy": value}
            assert (final / "weights").read_text() == str(step)
            assert best.outcome(tmp_path)["checkpoint"] == str(final)


def test_what_never_became_whole_is_removed(tmp_path):
    for name in ("best", "step-3"):
        partial_directory(tmp_path / "checkpoints", name).mkdir(parents=True)
    publish(partial_directory(tmp_path / "checkpoints", "step-3"))
    tidy(tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-3"]


def test_what_a_kill_cut_short_between_two_renames_is_ended(tmp_path):
    """The former checkpoint has its name again where the new one did not get it; else it is gone."""
    checkpoints = tmp_path / "checkpoints"
    for name in (".best.old", ".step-2.old", "step-2"):
        (checkpoints / name).mkdir(parents=True)
        (checkpoints / name / "weights").write_text(name)
    tidy(tmp_path)
    assert {p.name: (p / "weights").read_text() for p in checkpoints.iterdir()} == {
        "best": ".best.old",
        "step-2": "step-2",
    }


def test_evaluations_on_other_sets_do_not_count():
    """The best is by one set, and says which unless it is the held-out rows."""
    best = Best(MOST, "aime")
    best.consider(1, {MOST.metric: 9.0})
    best.consider(2, {MOST.metric: 1.0}, "aime")
    assert best.describe() == {"step": 2, "set": "aime", MOST.metric: 1.0}
