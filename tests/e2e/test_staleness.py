"""Generation ahead of training: as stale as asked, overlapping, repeatable, and the same on any plan."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.e2e.test_overlap import slices
from tests.e2e.test_plans import (
    NUM_STEPS,
    TOLERANCE,
    check_rollouts,
    files,
    metrics,
    rollouts,
    train,
    weights,
)

__all__ = ["files"]
pytestmark = pytest.mark.slow

APART = "actor_gen:d1+*:d1"
LONG = {
    "generation.max_new_tokens": 200,
    "generation.min_new_tokens": 200,
    "max_tokens_per_microbatch": 4000,
}
"""So that generation takes longer than training."""


def test_a_plan_does_not_change_what_stale_training_comes_to(files):
    """One rank generates, or a pipeline that grades too, and so steps aside; evaluations are in between."""
    pipeline = {"placements.reward": "{ranks: [0, 1], dp: 2}"}
    small, again, large = (
        train(files, f"stale-{name}", allocation, critic=True, max_staleness=2, eval_every=2, **more)
        for name, allocation, more in (
            ("small", APART, {}),
            ("again", APART, {}),
            ("large", "gen.p2+t2", pipeline),
        )
    )
    for run in (small, again, large):
        steps = [step for step in metrics(run) if "staleness" in step]
        assert [step["staleness"] for step in steps] == [0, 1, 2]
        assert [step["staleness_max"] for step in steps] == [0, 1, 2]
        check_rollouts(run, small)
    assert rollouts(again) == rollouts(small)
    for model in ("actor", "critic"):
        expected, same, close = (weights(run, model) for run in (small, again, large))
        for name, weight in expected.items():
            assert torch.equal(same[name], weight), name
            assert (close[name] - weight).norm() <= TOLERANCE * weight.norm(), name


@pytest.mark.quiet
def test_a_step_is_generated_while_the_one_before_is_trained_on(files):
    """The trace shows it; without staleness, one comes after the other."""
    for max_staleness in (0, 1):
        trial = f"overlap-{max_staleness}"
        run = train(files, trial, APART, critic=False, max_staleness=max_staleness, **LONG)
        trace = json.loads((run / "trace.json").read_text())
        check_rates(run, trace)
        assert any(_overlap(trace, step) for step in range(1, NUM_STEPS)) == bool(max_staleness)


def check_rates(run: Path, trace: list[dict]) -> None:
    """What steps are said to take adds up to no more than the time from the first start to the last end."""
    steps = [
        row
        for row in map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
        if row["kind"] == "train"
    ]
    events = [event for event in trace if event.get("ph") == "X"]
    span_s = (max(e["ts"] + e["dur"] for e in events) - min(e["ts"] for e in events)) / 1e6
    taken_s = sum(step["duration_s"] for step in steps)
    assert 0.3 * span_s < taken_s <= span_s * 1.001
    summary = json.loads((run / "summary.json").read_text())
    assert summary["tokens_per_s"] == pytest.approx(sum(step["num_tokens"] for step in steps) / taken_s)


@pytest.mark.quiet
def test_new_weights_come_into_responses_that_are_under_way(files):
    """Some of a step's tokens are of the newest weights, and some are not."""
    options = {"max_staleness": 1, "generation.interruptible": "true"}
    found = metrics(train(files, "interrupted", APART, critic=False, **options, **LONG))
    steps = [step for step in found if "staleness" in step]
    assert steps[0]["staleness"] == 0 and all(step["staleness_max"] <= 1 for step in steps)
    assert any(0 < step["staleness"] < 1 for step in steps), [step["staleness"] for step in steps]


def _overlap(trace: list[dict], step: int) -> bool:
    """Whether a step's generation and the training of the one before share some time."""
    (generating,), (training,) = slices(trace, "actor_gen", step), slices(trace, "actor_train", step - 1)
    begin = max(generating["ts"], training["ts"])
    return begin < min(event["ts"] + event["dur"] for event in (generating, training))
