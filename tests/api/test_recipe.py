"""A recipe that cannot run is refused when it is made."""

from __future__ import annotations

from dataclasses import replace

import pytest

from realrl.api.config import RunConfig, TrainingConfig
from realrl.api.graph import CallKind, DataflowGraph, Redraw
from realrl.api.graph import ModelFunctionCall as Call
from realrl.api.recipe import CallOutput, Mean, ModelSpec, Peak, Recipe, joined
from realrl.recipes import RECIPES

JUDGE = Call("judge", None, CallKind.COMPUTE, ("rows",), ("marks",))
TRAIN = Call("train", "model", CallKind.TRAIN, ("rows", "marks"))


def recipe_of(*calls: Call, **changes) -> Recipe:
    """Return a recipe whose bodies do nothing."""
    whole = {
        "name": "own",
        "default_config": TrainingConfig(experiment="own"),
        "graph": lambda config: DataflowGraph(*calls),
        "eval_graph": lambda config: DataflowGraph(),
        "models": lambda config: {"model": ModelSpec(None)},
        "samples_per_row": lambda config: 1,
        "datasets": None,
        "row_keys": ("rows",),
        "bodies": dict.fromkeys(("judge", "train"), lambda ctx, batch: CallOutput()),
    }
    return Recipe(**{**whole, **changes})


def test_a_whole_recipe_is_accepted():
    """Bodies of calls that other configs have may be among its bodies."""
    assert recipe_of(JUDGE, TRAIN).name == "own"
    assert recipe_of(TRAIN, row_keys=("rows", "marks")).graph(None).source_keys == {"rows", "marks"}


@pytest.mark.parametrize(
    ("calls", "changes", "message"),
    [
        ((JUDGE, TRAIN), {"bodies": {"judge": None}}, "call train has no body; there are judge"),
        ((JUDGE, TRAIN), {"models": lambda config: {}}, "call train uses the model 'model'; there are none"),
        ((TRAIN,), {}, "call train takes the key 'marks', which nothing makes; there are rows"),
        ((JUDGE, TRAIN), {"default_config": RunConfig(experiment="own")}, "expected a TrainingConfig"),
        ((JUDGE,), {}, "expected a TrainingConfig where the graph trains, and only there"),
    ],
)
def test_what_does_not_fit_is_named(calls, changes, message):
    """With what there is instead."""
    with pytest.raises(ValueError, match=f"^recipe own: .*{message}"):
        recipe_of(*calls, **changes)


def test_other_settings_are_checked_too():
    """A graph depends on its config: the one of a run is checked before the run starts."""
    graphs = {"own": DataflowGraph(JUDGE, TRAIN), "other": DataflowGraph(TRAIN)}
    recipe = recipe_of(JUDGE, TRAIN, graph=lambda config: graphs[config.experiment])
    with pytest.raises(ValueError, match="takes the key 'marks'"):
        recipe.check(replace(recipe.default_config, experiment="other"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"redraw": Redraw("jugde", 2)}, "expected a call as the judge, one of judge, train"),
        ({"redraw": Redraw("train", 2)}, "expected a call that comes before training"),
        ({"per_sample": ("marcs",)}, "per_sample: marcs is a key of no call"),
    ],
)
def test_a_graph_knows_the_names_that_it_is_given(settings, message):
    """A misspelt key would be taken for one with a number a token."""
    with pytest.raises(ValueError, match=message):
        DataflowGraph(JUDGE, TRAIN, **settings)


def test_every_recipe_of_ours_fits():
    """They are checked as they are looked up."""
    for name in RECIPES:
        assert RECIPES[name].name == name


def test_metrics_of_parts_add_up():
    """Means by their weights, peaks to the largest; a name is one of both."""
    first = {"loss": Mean(1.0, 2.0), "largest": Peak(3.0)}
    second = {"loss": Mean(5.0, 1.0), "largest": Peak(2.0), "other": Peak(1.0)}
    assert joined(first, second) == {"loss": (6.0, 3.0), "largest": Peak(3.0), "other": Peak(1.0)}
    with pytest.raises(AssertionError, match="loss is a mean in one part, a peak in another"):
        joined(first, {"loss": Peak(1.0)})
