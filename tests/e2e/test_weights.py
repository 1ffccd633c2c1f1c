"""What becomes of weights between calls, through the command line: kept, offloaded, cast, blended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

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

ALLOCATION = "actor_gen:d2,*:p2"


@pytest.fixture(scope="module")
def plain(files) -> Path:
    return train(files, "plain", ALLOCATION, critic=False)


@pytest.fixture(scope="module")
def kept(files) -> Path:
    """A run whose replicas are kept."""
    return train(files, "kept", ALLOCATION, critic=False, **{"actor.model.keep_replicas": "true"})


@pytest.mark.parametrize(
    "option",
    ["ref.offload=true", "actor.model.offload=true", "checksums=false"],
)
def test_where_weights_wait_changes_no_number(files, plain, option):
    """A reference or an actor in host memory, unchecked messages: the same run, bit for bit."""
    overrides = dict([option.split("=")])
    if option.startswith("ref"):
        overrides |= {"ref.path": files / "model", "ref.dtype": "float32"}
    check_same(train(files, option.partition("=")[0], ALLOCATION, critic=False, **overrides), plain)


def test_kept_replicas_change_no_number(plain, kept):
    """The same run, bit for bit."""
    check_same(kept, plain)


def check_same(found: Path, plain: Path) -> None:
    """Rollouts, metrics and weights are equal."""
    assert rollouts(found) == rollouts(plain)
    assert metrics(found) == metrics(plain)
    ours, theirs = weights(found, "actor"), weights(plain, "actor")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def instructions(run: Path) -> list[str]:
    """What workers did, as the trace names it."""
    trace = json.loads((run / "trace.json").read_text())
    return [event["name"] for event in trace if event["ph"] == "X"]


def test_a_kept_replica_is_brought_once_a_version_and_never_released(plain, kept):
    """Two workers, a version a step and one at the end, though an evaluation needs it too."""
    names = instructions(kept)
    assert not [name for name in names if name.startswith("release")]
    assert len([name for name in names if name.startswith("reallocate")]) == 2 * (NUM_STEPS + 1)
    assert [name for name in instructions(plain) if name.startswith("release")]


def test_generation_in_another_dtype_is_near_the_same(files, plain):
    """A bf16 replica of a float32 actor: other rollouts, but training goes on from the float32 weights."""
    found = train(files, "cast", ALLOCATION, critic=False, **{"actor.model.replica_dtype": "bfloat16"})
    assert all(tensor.dtype == torch.float32 for tensor in weights(found, "actor").values())
    first, expected = (
        next(s["kl_to_ref"] for s in metrics(run) if "kl_to_ref" in s) for run in (found, plain)
    )
    assert abs(expected) < 1e-6 < abs(first) < 0.05


@pytest.mark.parametrize("allocation", ["*:d1", "actor_gen:d2,*:t2", "ref_inf:d2,*:p2"])
def test_a_reference_that_follows_at_once_is_the_actor_of_the_step_before(files, allocation):
    """With ref_eta=1 the policy has not moved from its reference when it samples, whatever the layouts."""
    trial = f"follow-{allocation.translate(str.maketrans(':,*', '___'))}"
    found = train(files, trial, allocation, critic=False, **{"ppo.ref_eta": "1.0"})
    assert all(abs(step["kl_to_ref"]) < 1e-5 for step in metrics(found) if "kl_to_ref" in step)


def test_a_reference_that_follows_slowly_does_so_alike_under_every_plan(files, plain):
    """An exponential moving average over layouts that differ: one worker's numbers."""
    runs = [
        train(files, f"ema-{i}", allocation, critic=False, **{"ppo.ref_eta": "0.3"})
        for i, allocation in enumerate(["*:d1", "ref_inf:t2,actor_gen:d2,*:p2"])
    ]
    check_rollouts(*runs)
    for ours, theirs in zip(*map(metrics, runs), strict=True):
        # A ratio at the very bound may fall on either side of it.
        one, other = (each.pop("actor_clip_fraction", 0.0) for each in (ours, theirs))
        assert one == pytest.approx(other, abs=0.01)
        # The rounding of one layout is not that of another; with one of one rank there may be none.
        for each in (ours, theirs):
            assert each.pop("actor_logprob_diff_max", 0.0) < 1e-5
        assert ours == pytest.approx(theirs, rel=TOLERANCE, abs=1e-6)
    assert metrics(runs[0])[-2:] != metrics(plain)[-2:]
