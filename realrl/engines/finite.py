"""Names weights that are not finite."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from realrl.layouts.layout import Shard


def not_finite(shards: Iterable[Shard], weights: Mapping[str, Tensor]) -> str | None:
    """Return the first of a rank's weights that has NaN or infinities, by its name in the checkpoint."""
    for shard in shards:
        box = tuple(slice(start, start + size) for start, size in zip(shard.offset, shard.box.shape))
        if not _is_finite(weights[shard.local][box]):
            return shard.box.tensor

    return None


def _is_finite(weight: Tensor) -> bool:
    """Return whether every element is finite.

    The least and the largest element are NaN if one is. This takes no copy of a large weight.
    """
    if not weight.numel():
        return True
    least, largest = weight.detach().aminmax()
    return bool(least.isfinite()) and bool(largest.isfinite())


def why_not_finite(shards: Iterable[Shard], weights: Mapping[str, Tensor], version: int) -> str:
    """Return why a model's results are not finite: it names a weight, or says that all are finite."""
    after = f"after {version} training steps" if version else "as they were loaded"
    if name := not_finite(shards, weights):
        return f"the weight {name}, {after}, has NaN or infinities; give other weights, or lower the lr"
    return (
        f"this rank's weights, {after}, are finite, so activations overflow, or the weights of another rank"
        " are not finite; look at the model's dtype, and at the learning rate if it was trained"
    )
