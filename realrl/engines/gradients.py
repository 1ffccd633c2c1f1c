"""The sums of gradients: over micro-batches, and over ranks that each have a part.

Each element of the optimizer's buffer is also counted here: how many ranks hold it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from realrl.layouts.layout import Box, Layout, Shape, Shard
from realrl.models.decoder import Decoder
from realrl.models.layout import LocalTensor, Role
from realrl.parallel.flat import FlatTensors
from realrl.parallel.groups import Groups, all_reduce
from realrl.parallel.optimizer import Span

Gradient = Callable[[str], Tensor]
"""Returns the gradient of the local tensor of a name."""


def accumulate_into(gradient: Tensor, weight: Tensor) -> None:
    """Add each micro-batch's gradient to a float32 sum, whatever the weight's type."""

    def add(weight: Tensor) -> None:
        """Move the new gradient into the sum."""
        assert weight.grad is not None, "a hook after accumulation has a gradient"
        gradient.add_(weight.grad)
        weight.grad = None

    weight.requires_grad_().register_post_accumulate_grad_hook(add)


def copies(layout: Layout, groups: Groups, flat: FlatTensors, tensors: Sequence[LocalTensor]) -> list[Span]:
    """Return spans of the flat weights, each with the number of ranks of this slice that hold it.

    Neighbours that as many ranks hold are one span.
    """
    shapes = {tensor.name: tensor.shape for tensor in tensors}
    holders = _holders(layout, groups)
    shards: dict[str, list[Shard]] = defaultdict(list)
    for shard in layout.shards(groups.rank):
        shards[shard.local].append(shard)

    spans: list[Span] = []
    for local, parts in shards.items():
        start, stop = flat.spans[local]
        numbers = {holders[shard.box] for shard in parts}
        if len(numbers) == 1:
            spans.append((start, stop, holders[parts[0].box]))
            continue

        for shard in parts:
            first, last = _span_of_rows(shard, shapes[local], start)
            spans.append((first, last, holders[shard.box]))

    return _merge_neighbours(spans)


def _holders(layout: Layout, groups: Groups) -> Counter[Box]:
    """Return how many ranks of this data-parallel slice hold each box."""
    members = groups.placement.dp_slice(groups.place.dp_rank)
    holders: Counter[Box] = Counter()
    for rank in members:
        holders.update(shard.box for shard in layout.shards(rank))
    return holders


def _span_of_rows(shard: Shard, shape: Shape, start: int) -> tuple[int, int]:
    """Return the elements of a shard in the flat weights, where its local tensor begins at `start`."""
    box = shard.box
    assert box.shape[1:] == shape[1:], "boxes that other ranks hold too are whole rows"
    num_columns = shape[-1] if len(shape) > 1 else 1
    first = start + shard.offset[0] * num_columns
    return first, first + box.numel


def _merge_neighbours(spans: Sequence[Span]) -> list[Span]:
    """Merge spans that meet and have the same number."""
    merged: list[Span] = []
    for start, stop, number in sorted(spans):
        if merged and merged[-1][1:] == (start, number):
            start = merged.pop()[0]
        merged.append((start, stop, number))

    return merged


def sum_shared(decoder: Decoder, gradient: Gradient, tensors: Sequence[LocalTensor]) -> None:
    """Sum the gradients of which several ranks of a slice each have a part.

    These are tied embeddings, key/value heads that several ranks have, and what every tensor-parallel rank
    has but computes from its own heads, or its own tokens where tokens are spread.

    Collective: over the data-parallel slice.
    """
    groups = decoder.groups
    if _is_tied_to_another_stage(decoder):
        for tensor in tensors:
            if tensor.role.is_vocabulary:
                all_reduce(gradient(tensor.name), groups.tied)

    if groups.tp is None:
        return
    partial = [tensor.name for tensor in tensors if _is_partial(tensor.role, decoder)]
    _sum_together([gradient(name) for name in partial], groups.tp)
    if not _shares_heads(decoder):
        return
    for tensor in tensors:
        if tensor.role.has_kv_heads:
            _sum_shared_heads(decoder, gradient(tensor.name))


def finished_by_products(decoder: Decoder, tensors: Sequence[LocalTensor]) -> frozenset[str]:
    """Return the tensors whose gradients a product of the last backward pass completes.

    Lookups add to those of embeddings later, and `sum_shared` to some others.
    """
    is_tied = _is_tied_to_another_stage(decoder)
    shares_heads = _shares_heads(decoder)
    found: set[str] = set()

    for tensor in tensors:
        role = tensor.role
        is_summed_later = (role.is_vocabulary and is_tied) or (role.has_kv_heads and shares_heads)
        if role.is_product and not is_summed_later:
            found.add(tensor.name)

    return frozenset(found)


def _is_tied_to_another_stage(decoder: Decoder) -> bool:
    return decoder.groups.tied is not None and decoder.config.tied and decoder.head == "lm"


def _shares_heads(decoder: Decoder) -> bool:
    """Return whether several tensor-parallel ranks have the same K/V head."""
    return decoder.groups.placement.layout.tp > decoder.config.num_kv_heads


def _is_partial(role: Role, decoder: Decoder) -> bool:
    """Return whether a rank's gradient of a replicated tensor is that of a part."""
    if role.summed_over_tp == "spread_tokens":
        return decoder.spreads
    return role.summed_over_tp == "always"


def _sum_together(gradients: Sequence[Tensor], group: ProcessGroup) -> None:
    """Sum gradients in one message: most are small."""
    if not gradients:
        return
    sizes = [gradient.numel() for gradient in gradients]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    total = all_reduce(flat, group)
    for gradient, part in zip(gradients, total.split(sizes)):
        gradient.copy_(part.view_as(gradient))


def _sum_shared_heads(decoder: Decoder, gradient: Tensor) -> None:
    """Sum by head: each rank has one K/V head, and so have its neighbours."""
    config = decoder.config
    groups = decoder.groups
    num_query_rows = decoder.num_heads * config.head_dim
    own = gradient[num_query_rows:]
    by_head = own.new_zeros(config.num_kv_heads, *own.shape)
    head = groups.place.tp_rank * config.num_kv_heads // groups.placement.layout.tp
    by_head[head] = own
    total = all_reduce(by_head, groups.tp)
    own.copy_(total[head])
