"""Gradients that several ranks each have a part of, and how often each element is held."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from realrl.layouts.layout import Layout, Shard
from realrl.models.decoder import Decoder
from realrl.parallel.flat import FlatTensors
from realrl.parallel.groups import Groups, all_reduce
from realrl.parallel.optimizer import Span


def copies(layout: Layout, groups: Groups, flat: FlatTensors, shapes: Mapping[str, tuple]) -> list[Span]:
    """Spans of the flat weights, each with the number of ranks of this slice that hold it.

    Neighbours that as many ranks hold are one span.
    """
    members = groups.placement.dp_slice(groups.place.dp_rank)
    holders = Counter(shard.box for rank in members for shard in layout.shards(rank))
    shards: dict[str, list[Shard]] = defaultdict(list)
    for shard in layout.shards(groups.rank):
        shards[shard.local].append(shard)
    spans = []
    for local, parts in shards.items():
        start, stop = flat.spans[local]
        if len({holders[shard.box] for shard in parts}) == 1:
            spans.append((start, stop, holders[parts[0].box]))
            continue
        columns = shapes[local][-1] if len(shapes[local]) > 1 else 1
        for shard in parts:
            assert shard.box.shape[1:] == shapes[local][1:], "boxes that other ranks hold too are whole rows"
            first = start + shard.offset[0] * columns
            spans.append((first, first + shard.box.numel, holders[shard.box]))
    return _joined(spans)


def _joined(spans: Sequence[Span]) -> list[Span]:
    joined: list[Span] = []
    for start, stop, number in sorted(spans):
        if joined and joined[-1][1:] == (start, number):
            start = joined.pop()[0]
        joined.append((start, stop, number))
    return joined


def sum_shared(decoder: Decoder, gradient: Callable[[str], Tensor], names: Mapping[str, tuple]) -> None:
    """Add up what several ranks of a slice each have a part of: tied embeddings, shared K/V heads, the norms
    of queries and keys, which see a rank's own heads alone; where tokens are spread, all that is whole on
    every rank.

    Collective over the data-parallel slice.
    """
    config, groups = decoder.config, decoder.groups
    for name in ("embed", "head"):
        if _is_tied_to_another_stage(decoder) and name in names:
            all_reduce(gradient(name), groups.tied)
    if groups.tp is None:
        return
    _sum_together([gradient(name) for name in names if _sees_a_part(decoder, name)], groups.tp)
    for layer in decoder.layers:
        if _shares_heads(decoder):
            for name in ("qkv", "qkv_bias") if config.qkv_bias else ("qkv",):
                _sum_shared_heads(decoder, gradient(f"layers.{layer}.{name}"))


def finished_by_products(decoder: Decoder, shapes: Mapping[str, tuple]) -> frozenset[str]:
    """Matrices whose gradients a product of the last backward pass completes.

    Lookups add to those of embeddings later, and `sum_shared` to some others.
    """
    found = {name for name, shape in shapes.items() if name.startswith("layers.") and len(shape) == 2}
    if _shares_heads(decoder):
        found = {name for name in found if not name.endswith(".qkv")}
    if "head" in shapes and not _is_tied_to_another_stage(decoder):
        found.add("head")
    return frozenset(found)


def _is_tied_to_another_stage(decoder: Decoder) -> bool:
    return decoder.groups.tied is not None and decoder.config.tied and decoder.head == "lm"


def _shares_heads(decoder: Decoder) -> bool:
    """Whether several tensor-parallel ranks have the same K/V head."""
    return decoder.groups.placement.layout.tp > decoder.config.num_kv_heads


def _sees_a_part(decoder: Decoder, name: str) -> bool:
    """Whether a weight is whole on every tensor-parallel rank, and its gradient that of a part."""
    part = name.removesuffix("_bias").rpartition(".")[2]
    if part in ("q_norm", "k_norm"):
        return True
    if not decoder.spreads:
        return False
    is_row_bias = name.endswith(("attn_out_bias", "mlp_down_bias"))
    return is_row_bias or part == "positions" or part.endswith("norm")


def _sum_together(gradients: Sequence[Tensor], group: ProcessGroup) -> None:
    """In one message: most are small."""
    if gradients:
        total = all_reduce(torch.cat([g.flatten() for g in gradients]), group)
        for gradient, part in zip(gradients, total.split([g.numel() for g in gradients])):
            gradient.copy_(part.view_as(gradient))


def _sum_shared_heads(decoder: Decoder, gradient: Tensor) -> None:
    """Each rank has one K/V head, and so have its neighbours: sum by head."""
    config, groups = decoder.config, decoder.groups
    own = gradient[decoder.num_heads * config.head_dim :]
    by_head = own.new_zeros(config.num_kv_heads, *own.shape)
    head = groups.place.tp_rank * config.num_kv_heads // groups.placement.layout.tp
    by_head[head] = own
    own.copy_(all_reduce(by_head, groups.tp)[head])
