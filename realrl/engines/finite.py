"""Names weights that are no finite numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from realrl.layouts.layout import Shard


def not_finite(shards: Iterable[Shard], weights: Mapping[str, Tensor]) -> str | None:
    """The first of a rank's weights that has NaN or infinities, by its name in the checkpoint."""
    for shard in shards:
        box = tuple(slice(start, start + size) for start, size in zip(shard.offset, shard.box.shape))
        if not _is_finite(weights[shard.local][box]):
            return shard.box.tensor

    return None


def _is_finite(weight: Tensor) -> bool:
    """By the least and the largest element, which are NaN if one is: without a copy, as weights are large."""
    bounds = weight.detach().aminmax() if weight.numel() else ()
    return all(bool(bound.isfinite()) for bound in bounds)


def why_not_finite(shards: Iterable[Shard], weights: Mapping[str, Tensor], version: int) -> str:
    """Why a model computes what is no finite number: a weight that is none, or all are finite."""
    after = f"after {version} training steps" if version else "as they were loaded"
    if name := not_finite(shards, weights):
        return f"the weight {name}, {after}, has NaN or infinities; give other weights, or lower the lr"
    return (
        f"this rank's weights, {after}, are finite, so activations overflow, or the weights of another rank"
        " are not finite; look at the model's dtype, and at the learning rate if it was trained"
    )
