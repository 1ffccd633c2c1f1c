"""Training that goes on from what was written of it, by the same layout or by another."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from realrl.api.mesh import DeviceMesh, ParallelLayout, Placement
from realrl.engines.decoder_engine import DecoderEngine
from realrl.parallel.groups import Groups, create_groups, local_groups
from tests.engines.test_offload import ALONE, DTYPES, engine_of, train
from tests.tiny import tiny_llama
from tests.world import run_world

PAIR = DeviceMesh((0, 1))
LAYOUTS = [ParallelLayout(dp=2), ParallelLayout(tp=2), ParallelLayout(pp=2)]
STEPS_BEFORE, STEPS_AFTER = 2, 2


def trained(model: Path, groups: Groups, dtype: torch.dtype, num_steps: int, **options) -> DecoderEngine:
    engine = engine_of(model, groups, dtype, **options)
    for _ in range(num_steps):
        train(engine)
    return engine


def gone_on(model: Path, groups: Groups, dtype: torch.dtype, directory: Path, **options) -> DecoderEngine:
    """What was written there, in another engine, trained further."""
    engine = trained(model, groups, dtype, 1, **options)
    engine.restore(directory, version=7)
    assert engine.version == 7
    for _ in range(STEPS_AFTER):
        train(engine)
    return engine


def write(engine: DecoderEngine, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    engine.state().copied().write(directory)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("offloaded", [False, True])
def test_training_goes_on_to_the_bit(dtype, offloaded, tmp_path):
    """What was copied is what was there then, though training goes on before it is written; weights that are
    not whole masters, and an optimizer that waits in host memory, included."""
    model = tiny_llama(tmp_path / "model")
    whole = trained(model, local_groups(ALONE), dtype, STEPS_BEFORE)
    if offloaded:
        whole.offload()
    state = whole.state().copied()
    for _ in range(STEPS_AFTER):
        train(whole)
    state.write(tmp_path)
    found = gone_on(model, local_groups(ALONE), dtype, tmp_path)
    assert torch.equal(found.weights.flat.buffer, whole.weights.flat.buffer)
    for name, expected in whole.training.optimizer.sharded.items():
        assert torch.equal(found.training.optimizer.sharded[name], expected), name


def test_training_goes_on_from_layout_to_layout(tmp_path):
    """From each to itself with the same bits; to another, from and to a single rank, with equal numbers."""
    model = tiny_llama(tmp_path / "model", layers=2)
    for dtype in DTYPES:
        folder = tmp_path / str(dtype)
        engine = trained(model, local_groups(ALONE), dtype, STEPS_BEFORE)
        write(engine, folder / "alone")
        for _ in range(STEPS_AFTER):
            train(engine)
        torch.save(weights_of(engine), folder / "expected")
    run_world(_check_layouts, 2, model, tmp_path)
    for dtype in DTYPES:
        for layout in LAYOUTS:
            folder = tmp_path / str(dtype)
            check_close(gone_on(model, local_groups(ALONE), dtype, folder / str(layout)), folder)


def _check_layouts(rank: int, model: Path, folder: Path) -> None:
    placements = [Placement(PAIR, layout) for layout in LAYOUTS]
    groups = create_groups(placements, rank)
    for dtype in DTYPES:
        former = folder / str(dtype) / "alone"
        for placement in placements:
            own = groups[placement]
            check_close(gone_on(model, own, dtype, former), former.parent)
            former = former.parent / str(placement.layout)
            check_same_bits(model, own, dtype, former)


def check_same_bits(model: Path, groups: Groups, dtype: torch.dtype, directory: Path) -> None:
    engine = trained(model, groups, dtype, STEPS_BEFORE)
    write(engine, directory)
    torch.distributed.barrier()
    for _ in range(STEPS_AFTER):
        train(engine)
    assert torch.equal(
        gone_on(model, groups, dtype, directory).weights.flat.buffer, engine.weights.flat.buffer
    )


def check_close(found: DecoderEngine, folder: Path) -> None:
    """As far from the uninterrupted training as layouts are from each other."""
    expected = torch.load(folder / "expected")
    tolerance = 1e-4 if found.options.dtype == torch.float32 else 1e-2
    for name, weight in weights_of(found).items():
        error = (weight.float() - expected[name].float()[_box(found, name)]).norm()
        assert error <= tolerance * expected[name].float().norm(), name


def weights_of(engine: DecoderEngine) -> dict[str, torch.Tensor]:
    return {s.box.tensor: _view(engine, s) for s in engine.layout.shards(engine.groups.rank)}


def _view(engine, shard):
    local = engine.local_tensors()[shard.local]
    return local[tuple(slice(o, o + n) for o, n in zip(shard.offset, shard.box.shape))].detach().clone()


def _box(engine, name):
    box = next(s.box for s in engine.layout.shards(engine.groups.rank) if s.box.tensor == name)
    return tuple(map(slice, box.start, box.stop))


def test_a_model_that_is_not_trained_comes_back_as_it_was(tmp_path):
    """Its weights, whole, though it had others meanwhile."""
    model, other = tiny_llama(tmp_path / "model"), tiny_llama(tmp_path / "other", seed=1)
    engine = engine_of(other, local_groups(ALONE), torch.float32, optimizer=None)
    write(engine, tmp_path)
    found = engine_of(model, local_groups(ALONE), torch.float32, optimizer=None)
    assert not torch.equal(found.weights.flat.buffer, engine.weights.flat.buffer)
    found.restore(tmp_path, version=1)
    assert torch.equal(found.weights.flat.buffer, engine.weights.flat.buffer)
