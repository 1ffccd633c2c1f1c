"""Masters of bfloat16 weights: where they begin, and that small updates reach the weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from realrl.api.config import OptimizerConfig
from realrl.api.mesh import DeviceMesh, ParallelLayout, Placement
from realrl.engines.decoder_engine import DecoderEngine
from realrl.engines.master_dither import spread
from realrl.engines.options import EngineOptions
from realrl.layouts.layout import Box, Layout, Shard
from realrl.models.layout import decoder_layout, local_tensors
from realrl.models.registry import read_decoder_config
from realrl.parallel.groups import local_groups
from realrl.realloc import checkpoint
from tests.models.families import ONE_EACH, tiny_model
from tests.tiny import tiny_llama

ALONE = Placement(DeviceMesh((0,)), ParallelLayout())
LAYOUTS = [ParallelLayout(pp=pp, dp=dp, tp=tp) for pp in (1, 2) for dp in (1, 2) for tp in (1, 2, 4)]


def spread_alone(values: Tensor) -> Tensor:
    """As the whole of a tensor."""
    box, found = Box("weight", (0,) * values.dim(), tuple(values.shape)), values.clone()
    spread(Layout.of([Shard(0, box, "weight", box.start)]), 0, {"weight": found})
    return found


def test_masters_round_to_their_weights_and_fill_the_intervals():
    """Also next to powers of two, where the grid's step changes; evenly, and unlike their neighbours."""
    weights = torch.cat([torch.randn(1023, 1024), torch.tensor([[1.0, -1.0, 2.0, 0.5] * 256])]).bfloat16()
    masters = spread_alone(weights.float())
    assert torch.equal(masters.bfloat16(), weights)
    moved = (masters.view(torch.int32) - weights.float().view(torch.int32)).float() / 2**16
    assert moved.abs().max() < 0.5
    shares = torch.histc(moved, 32, -0.5, 0.5) / moved.numel()
    torch.testing.assert_close(shares, torch.full((32,), 1 / 32), rtol=0.03, atol=0)
    for other in (moved[1:] * moved[:-1], moved[:, 1:] * moved[:, :-1]):
        assert other.mean().abs() < 0.01 / 12


def test_what_is_finer_than_the_grid_stays():
    """A float32 checkpoint says where in an interval a weight is; zeros have no interval worth the name."""
    fine = torch.randn(4096).view(torch.int32).bitwise_or(1).view(torch.float32)
    assert torch.equal(spread_alone(fine), fine)
    edges = torch.tensor([0.0, -0.0, 1e-40, torch.inf, -torch.inf])
    assert torch.equal(spread_alone(edges).view(torch.int32), edges.view(torch.int32))


@pytest.mark.parametrize("row", ONE_EACH)
def test_all_holders_of_a_weight_have_the_same_master(row, tmp_path):
    """On every layout: shared heads, norms, tied embeddings, data-parallel copies."""
    decoder = read_decoder_config(tiny_model(tmp_path, row))
    whole = {}  # As one rank has them: the first of the layouts.
    for layout in [ParallelLayout(), *LAYOUTS]:
        placement = Placement(DeviceMesh(tuple(range(layout.size))), layout)
        shards = decoder_layout(decoder, placement, "lm")
        whole = whole or {name: torch.zeros(shape) for name, shape in shards.extents().items()}
        for rank in placement.ranks:
            locals = local_tensors(decoder, layout, placement.coordinate(rank), "lm")
            values = {local.name: torch.ones(local.shape) for local in locals}
            spread(shards, rank, values)
            for shard in shards.shards(rank):
                held = tuple(slice(o, o + n) for o, n in zip(shard.offset, shard.box.shape))
                box = tuple(slice(a, b) for a, b in zip(shard.box.start, shard.box.stop))
                if layout == ParallelLayout():
                    whole[shard.box.tensor][box] = values[shard.local][held]
                assert torch.equal(values[shard.local][held], whole[shard.box.tensor][box]), shard
    every = torch.cat([tensor.flatten() for tensor in whole.values()])
    assert len(every.unique()) > 0.2 * len(every), "tensors must differ from each other"


@pytest.mark.parametrize("way", ["load", "adopt"])
def test_an_engine_begins_within_the_intervals(way, tmp_path):
    """Loaded from bfloat16 values, or given them."""
    engine = trained(rounded(tmp_path))
    before = engine.weights.flat.buffer.clone()
    if way == "adopt":
        engine.adopt(version=0)
    masters = engine.training.optimizer.master
    assert torch.equal(engine.weights.flat.buffer, before) and torch.equal(masters.bfloat16(), before)
    assert (masters != before.float()).float().mean() > 0.9
    assert not engine.training.optimizer.gradients.any()


def test_a_float32_checkpoint_gives_its_values_to_the_masters(tmp_path):
    model = tiny_llama(tmp_path)
    exact = DecoderEngine(
        read_decoder_config(model),
        "lm",
        local_groups(ALONE),
        EngineOptions(dtype=torch.float32, device="cpu", max_tokens_per_microbatch=64),
    )
    exact.load(model)
    fine = exact.weights.flat.buffer.view(torch.int32) & 0xFFFF != 0
    assert fine.float().mean() > 0.9
    assert torch.equal(trained(model).training.optimizer.master[fine], exact.weights.flat.buffer[fine])


def test_an_update_of_a_tenth_of_a_step_reaches_a_tenth_of_the_weights(tmp_path):
    """On average every weight moves by what its master does; on the grid, none would."""
    engine = trained(rounded(tmp_path))
    before, optimizer = engine.weights.flat.buffer.clone(), engine.training.optimizer
    optimizer.master.view(torch.int32).add_(2**16 // 10)
    optimizer.publish()
    nonzero = before != 0
    moved = (engine.weights.flat.buffer.view(torch.int16) - before.view(torch.int16))[nonzero].float()
    assert 0.09 < moved.mean() < 0.11


def rounded(directory: Path) -> Path:
    """A model whose weights lie on bfloat16's grid."""
    model = tiny_llama(directory)
    decoder = read_decoder_config(model)
    layout = decoder_layout(decoder, ALONE, "lm")
    (place,) = (ALONE.coordinate(rank) for rank in ALONE.ranks)
    tensors = {t.name: torch.zeros(t.shape) for t in local_tensors(decoder, ALONE.layout, place, "lm")}
    checkpoint.load(model, layout, 0, tensors)
    coarse = {name: tensor.bfloat16() for name, tensor in tensors.items()}
    checkpoint.save(model, layout, coarse, rank=0, ranks=(0,), dtype=torch.bfloat16)
    return model


def trained(model: Path) -> DecoderEngine:
    engine = DecoderEngine(
        read_decoder_config(model),
        "lm",
        local_groups(ALONE),
        EngineOptions(
            dtype=torch.bfloat16, device="cpu", max_tokens_per_microbatch=64, optimizer=OptimizerConfig()
        ),
    )
    engine.load(model)
    return engine
