"""Training between whose steps weights and states wait in host memory: the same bits, nothing left."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import pytest
import torch

from realrl.api.config import GenerationConfig
from realrl.api.mesh import DeviceMesh, ParallelLayout, Placement
from realrl.engines.decoder_engine import DecoderEngine
from realrl.engines.options import EngineOptions
from realrl.models.registry import read_decoder_config
from realrl.parallel.groups import Groups, create_groups, local_groups
from tests.engines.test_engine import ADAMW, as_prompts, own_batch
from tests.tiny import tiny_llama
from tests.world import run_world

ALONE = Placement(DeviceMesh((0,)), ParallelLayout())
DTYPES = [torch.float32, torch.bfloat16]
LAYOUTS = [ParallelLayout(dp=2), ParallelLayout(pp=2)]


def engine_of(
    model: Path, groups: Groups, dtype: torch.dtype, device: str = "cpu", **options
) -> DecoderEngine:
    engine = DecoderEngine(
        read_decoder_config(model),
        "lm",
        groups,
        EngineOptions(
            dtype=dtype,
            device=device,
            max_tokens_per_microbatch=options.pop("max_tokens_per_microbatch", 40),
            optimizer=options.pop("optimizer", ADAMW),
            **options,
        ),
    )
    engine.load(model)
    return engine


def train(engine: DecoderEngine) -> float:
    """A step that leaves the version, as one of several in a call does; returns the gradient's norm."""
    batch = own_batch(engine.groups)
    found = engine.train_logprobs(
        batch, lambda logprobs, micro: (-logprobs.sum() / 50, {}), lr=1e-2, temperature=1.0
    )
    return found["grad_norm"].total


def check_same_bits(model: Path, groups: Groups, dtype: torch.dtype) -> None:
    """Put away after every step, at times brought back beforehand, or used for something else meanwhile."""
    plain, other = (engine_of(model, groups, dtype) for _ in range(2))
    config = GenerationConfig(max_new_tokens=2)
    for step in range(4):
        other.offload()
        if step % 2:
            other.onload()
        if step == 2:
            prompts = as_prompts(own_batch(groups))
            texts = [e.generate(prompts, config, seed=1, step=0)["input_ids"] for e in (plain, other)]
            assert torch.equal(*texts)
            other.offload()
        assert train(plain) == train(other)
        assert torch.equal(plain.weights.flat.buffer, other.weights.flat.buffer)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_an_offloaded_training_is_the_same_to_the_bit(dtype, tmp_path):
    check_same_bits(tiny_llama(tmp_path), local_groups(ALONE), dtype)


def test_an_offloaded_training_is_the_same_to_the_bit_on_layouts(tmp_path):
    """Data parallel, with shares of the states, and in a pipeline."""
    run_world(_check_layouts, 2, tiny_llama(tmp_path))


def _check_layouts(rank: int, model: Path) -> None:
    placements = [Placement(DeviceMesh((0, 1)), layout) for layout in LAYOUTS]
    for _, groups in sorted(create_groups(placements, rank).items()):
        for dtype in DTYPES:
            check_same_bits(model, groups, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_offloaded_leaves_no_tensor_behind(dtype, tmp_path):
    """Weights, gradients, masters and moments are gone until someone needs them."""
    engine = engine_of(tiny_llama(tmp_path), local_groups(ALONE), dtype)
    train(engine)
    optimizer = engine.training.optimizer
    held = [engine.weights.flat.buffer, optimizer.gradients, optimizer.master, *optimizer.states.values()]
    storages = [weakref.ref(tensor.untyped_storage()) for tensor in held]
    tensors = [weakref.ref(tensor) for tensor in (*held, *engine.local_tensors().values())]
    del held
    engine.offload()
    gc.collect()
    assert len(tensors) > 10 and not any(ref() is not None for ref in (*tensors, *storages))
    assert train(engine) > 0


def test_a_model_in_training_is_not_released(tmp_path):
    engine = engine_of(tiny_llama(tmp_path), local_groups(ALONE), torch.float32)
    with pytest.raises(AssertionError, match="may be offloaded, but not released"):
        engine.release()
