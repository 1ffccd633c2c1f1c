"""The scale of a reward model's scores: `rw` writes it next to the weights, and PPO may normalise by it.

rw: scores of its responses ──▶ running mean, std ──▶ CHECKPOINT/model/scores.json ──▶ scores.normalise of PPO
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from realrl.algorithms.running import RunningMoments
from realrl.api.recipe import CallContext, Mean, Metrics

if TYPE_CHECKING:
    from torch import Tensor

    from realrl.api.config import TrainingConfig

FILE = "scores.json"
MODEL = "model"
"""The name of the model that `rw` trains, and of its folder in a checkpoint."""
SUMS = "score_sums"
"""What the train call remembers: the sums of the running moments."""
_BETA = 0.99
"""How much less a step counts than the next one: about the last hundred steps count."""


class ScoreScale(NamedTuple):
    """The mean and the standard deviation of a reward model's scores."""

    mean: float
    std: float

    def normalised(self, scores: Tensor) -> Tensor:
        """Return scores less the mean, in units of the standard deviation."""
        return (scores - self.mean) / self.std


def remember(ctx: CallContext[TrainingConfig], scores: Tensor) -> Metrics:
    """Add a step's scores, this rank's part of them, to the running moments; return these.

    Collective: over all ranks of the call.
    """
    before = RunningMoments.fresh()
    if SUMS in ctx.memory:
        before = RunningMoments(ctx.memory[SUMS])
    moments = before.seen(
        scores,
        scores.isfinite(),
        ctx.reduce_mesh,
        kind="exponential",
        beta=_BETA,
    )
    ctx.memory[SUMS] = moments.sums
    return {
        "score_mean": Mean(moments.mean, 1.0),
        "score_std": Mean(moments.std, 1.0),
    }


def file_of(metrics: Mapping[str, float]) -> dict[str, str]:
    """Return the file to write next to the weights, by its path in a checkpoint."""
    if "score_mean" not in metrics:
        return {}
    scale = {"mean": metrics["score_mean"], "std": metrics["score_std"]}
    return {f"{MODEL}/{FILE}": f"{json.dumps(scale, indent=2)}\n"}


def read_scale(path: str) -> ScoreScale:
    """Return the scale in the directory of a reward model.

    Raises:
        ValueError: there is none, or it cannot be read.
    """
    file = Path(os.path.expanduser(path)) / FILE
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        scale = ScoreScale(float(found["mean"]), float(found["std"]))
    except (OSError, ValueError, LookupError, TypeError) as error:
        reason = getattr(error, "strerror", None) or f"it has no numbers `mean` and `std`: {error}"
        raise ValueError(
            f"scores.normalise: cannot read {file} ({reason}); give a checkpoint of `rw` as"
            ' reward_model.path, write {"mean": MEAN, "std": STD} there, or set scores.normalise=false'
        ) from None
    if not (math.isfinite(scale.mean) and 0 < scale.std < math.inf):
        raise ValueError(
            f"scores.normalise: {file}: expected a finite mean and a std above 0, got {scale.mean} and"
            f" {scale.std}; correct it, or set scores.normalise=false"
        )
    return scale
