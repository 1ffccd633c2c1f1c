"""Every layout of up to eight ranks becomes every other, between real processes.

REALRL_FULL_MATRIX=1 tries every pair with every model, on every overlap of their meshes; it takes minutes.
"""

from __future__ import annotations

import itertools
import os
from functools import cache

import pytest
import torch

from realrl.api.mesh import DeviceMesh, ParallelLayout, Placement
from realrl.layouts.plan import plan
from realrl.layouts.topology import Topology
from realrl.models.config import DecoderConfig
from realrl.models.layout import check_fits, decoder_layout, local_tensors
from realrl.realloc.transfer import Transfer, TransferSettings
from tests.world import run_world

NUM_RANKS = 8
FULL = bool(os.environ.get("REALRL_FULL_MATRIX"))
PADDING = -1.0


def decoder(*, kv_heads: int, tied: bool) -> DecoderConfig:
    """Sizes that 2, 3 and 8 divide, but for the vocabulary, a prime, and the layers."""
    return DecoderConfig(
        vocab_size=67, hidden_size=24, intermediate_size=48, num_layers=8, num_heads=24,
        num_kv_heads=kv_heads, head_dim=2, max_position=8, norm_eps=1e-5, tied=tied,
        eos_token_ids=(),
    )  # fmt: skip


DECODERS = {
    "grouped heads, tied": decoder(kv_heads=6, tied=True),
    "one head for all": decoder(kv_heads=1, tied=False),
    "fewer heads than tp": decoder(kv_heads=2, tied=False),
}


@cache
def layouts_of(model: DecoderConfig) -> list[ParallelLayout]:
    """All that the model can be cut to over up to eight ranks."""
    found = []
    for pp, dp, tp in itertools.product(range(1, NUM_RANKS + 1), repeat=3):
        if pp * dp * tp <= NUM_RANKS:
            layout = ParallelLayout(pp=pp, dp=dp, tp=tp)
            try:
                check_fits(model, layout, "")
            except ValueError:
                continue
            found.append(layout)
    return found


def meshes(a: int, b: int) -> list[tuple[int, int]]:
    """First ranks of meshes of two sizes: from the same rank on, overlapping, and disjoint."""
    firsts = {(0, 0)}
    if min(a, b) > 1 and max(a + 1, b + 1) <= NUM_RANKS:
        firsts.add((1, 0))
    if a + b <= NUM_RANKS:
        firsts.add((0, a))
    return sorted(firsts)


@cache
def weights(model: DecoderConfig) -> dict[str, torch.Tensor]:
    """Global tensors of random numbers."""
    generator = torch.Generator().manual_seed(0)
    extents = decoder_layout(model, Placement(DeviceMesh((0,)), ParallelLayout()), "lm").extents()
    return {name: torch.rand(shape, generator=generator) for name, shape in sorted(extents.items())}


@cache
def local(model: DecoderConfig, placement: Placement, rank: int) -> dict[str, torch.Tensor]:
    """What a rank must hold, with `PADDING` in what no box fills."""
    if rank not in placement.ranks:
        return {}
    found = {}
    for tensor in local_tensors(model, placement.layout, placement.coordinate(rank), "lm"):
        found[tensor.name] = torch.full(tensor.shape, PADDING)
        for box, offset in tensor.pieces:
            place = tuple(slice(o, o + n) for o, n in zip(offset, box.shape, strict=True))
            part = tuple(slice(a, b) for a, b in zip(box.start, box.stop, strict=True))
            found[tensor.name][place] = weights(model)[box.tensor][part]
    return found


def placed(layout: ParallelLayout, first: int) -> Placement:
    return Placement(DeviceMesh(tuple(range(first, first + layout.size))), layout)


def pairs_of(model: DecoderConfig) -> list[tuple[Placement, Placement]]:
    """All pairs of layouts, on every overlap of their meshes; as a rule each pair with one of the models that
    can be cut so, and on one overlap, in turn.
    """
    found = []
    every = dict.fromkeys(layout for other in DECODERS.values() for layout in layouts_of(other))
    for turn, (a, b) in enumerate(itertools.product(every, repeat=2)):
        able = [other for other in DECODERS.values() if {a, b} <= set(layouts_of(other))]
        if model not in (able if FULL else able[turn % len(able) :][:1]):
            continue
        overlaps = meshes(a.size, b.size)
        chosen = overlaps if FULL else [overlaps[turn // len(able) % len(overlaps)]]
        found += [(placed(a, first_a), placed(b, first_b)) for first_a, first_b in chosen]
    return found


def carry_out_pairs(rank: int, model: DecoderConfig, topologies: list[Topology]) -> None:
    for index, (source, target) in enumerate(pairs_of(model)):
        topology = topologies[index % len(topologies)]
        found = plan(*(decoder_layout(model, placement, "lm") for placement in (source, target)), topology)
        if rank in found.ranks:
            transfer = Transfer(found, rank=rank, settings=TransferSettings(staging_bytes=1 << 20))
            for _ in range(2):
                check(transfer, model, source, target, rank)


def check(transfer: Transfer, model: DecoderConfig, source: Placement, target: Placement, rank: int) -> None:
    expected = local(model, target, rank)
    received = {name: torch.full_like(tensor, PADDING) for name, tensor in expected.items()}
    transfer.run(local(model, source, rank), received)
    for name, tensor in expected.items():
        assert torch.equal(received[name], tensor), f"{name} on rank {rank}, {source} to {target}"


@pytest.mark.slow
@pytest.mark.parametrize("model", DECODERS.values(), ids=DECODERS)
def test_every_layout_becomes_every_other(model):
    """Twice in a row, in both directions, on the same, overlapping and disjoint ranks.

    Ranks are, in turn: all beside each other, beside each other with memory that they share, and on two
    nodes with and without.
    """
    nodes = {rank: rank // 4 for rank in range(NUM_RANKS)}
    topologies = [
        Topology(),
        Topology(shared_memory=True),
        Topology(nodes=nodes, latency_s=0.0),
        Topology(nodes=nodes, shared_memory=True),
    ]
    assert {layout.size for layout in layouts_of(model)} >= {1, 2, 3, 4, 6, 8}
    run_world(carry_out_pairs, NUM_RANKS, model, topologies)
