"""Which evaluations tell the best weights, as `keep_best` says: on which set, and by which metric."""

from __future__ import annotations

from realrl.api.config import RunConfig, TrainingConfig
from realrl.api.evals import HELD_OUT
from realrl.api.recipe import Criterion, Recipe
from realrl.api.traits import data_of, evals_of

_SLASH = "/"
"""Parts a set from a metric, as in `aime/avg@8`."""


def best_set_of(config: RunConfig) -> str:
    """Return the set whose evaluations count: the one that is named, the held-out rows, or the first."""
    keep = config.keep_best if isinstance(config, TrainingConfig) else True
    if isinstance(keep, str):
        return keep.partition(_SLASH)[0]
    data = data_of(config)
    has_held_out = data is not None and bool(data.held_out_path)
    names = [] if has_held_out else list(evals_of(config))
    return names[0] if names else HELD_OUT


def criterion_of(recipe: Recipe, config: RunConfig) -> Criterion:
    """Return what counts in these evaluations.

    Raises:
        ValueError: `keep_best` names no set, or a metric that cannot tell which weights are better.
    """
    if not isinstance(config, TrainingConfig) or not isinstance(config.keep_best, str):
        return recipe.criteria(config, best_set_of(config))[0]
    name, _, metric = config.keep_best.partition(_SLASH)
    data = data_of(config)
    names = list(evals_of(config))
    if data is not None and data.held_out_path:
        names.insert(0, HELD_OUT)
    if name not in names:
        known = ", ".join(names) or "none"
        raise ValueError(
            f"keep_best: expected true, false or SET/METRIC with one of the sets {known}, got"
            f" {config.keep_best!r}"
        )
    criteria = recipe.criteria(config, name)
    for criterion in criteria:
        if criterion.metric == metric:
            return criterion
    known = ", ".join(f"{name}/{criterion.metric}" for criterion in criteria)
    raise ValueError(f"keep_best: expected one of {known} for this set, got {config.keep_best!r}")
