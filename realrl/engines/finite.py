"""Says why a model computes what is no finite number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from realrl.layouts.layout import Shard


def why_not_finite(shards: Iterable[Shard], weights: Mapping[str, Tensor], version: int) -> str:
    """The first of a rank's weights that is no finite number, by its name in the checkpoint; or that all are
    finite."""
    after = f"after {version} training steps" if version else "as they were loaded"
    for shard in shards:
        box = tuple(slice(start, start + size) for start, size in zip(shard.offset, shard.box.shape))
        if not weights[shard.local][box].isfinite().all():
            return f"the weight {shard.box.tensor}, {after}, has NaN or infinities; give other weights"
    return (
        f"this rank's weights, {after}, are finite, so activations overflow, or the weights of another rank"
        " are not finite; look at the model's dtype, and at the learning rate if it was trained"
    )
