"""The engine on one CUDA device, by the checks that the CPU passes."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from realrl.api.config import GenerationConfig
from realrl.api.mesh import DeviceMesh, ParallelLayout, Placement
from realrl.models import decoding
from realrl.parallel.groups import local_groups
from tests.engines.test_engine import ADAMW, check_engine
from tests.engines.test_generate import generated, loaded, prompts
from tests.engines.test_offload import engine_of, train
from tests.models.families import ONE_EACH, reference_model, tiny_model
from tests.tiny import tiny_llama

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("row", ONE_EACH)
def test_engine_matches_transformers(row, tmp_path):
    placement = Placement(DeviceMesh((0,)), ParallelLayout())
    model = tiny_model(tmp_path, row)
    check_engine(model, local_groups(placement), reference_model(model), device="cuda")


@pytest.mark.parametrize("family", ["qwen2", "mistral", "gemma2"])
def test_recorded_steps_draw_the_same_tokens(family, tmp_path, monkeypatch):
    """As steps that are launched kernel by kernel, with log-probabilities to the last bits of bfloat16.

    With a window, and with soft caps too.
    """
    engine = loaded(tiny_model(tmp_path, family), device="cuda", dtype=torch.bfloat16)
    config = GenerationConfig(max_new_tokens=80, min_new_tokens=80, temperature=0.0)
    recorded = generated(engine, prompts(range(6)), config)
    monkeypatch.setattr(decoding, "_RECORDING_PAYS", 1000)
    engine.end_decoding()
    launched = generated(engine, prompts(range(6)), config)
    assert torch.equal(recorded["input_ids"], launched["input_ids"])
    torch.testing.assert_close(recorded["logprobs"], launched["logprobs"], rtol=0, atol=1e-2)


def test_recordings_that_are_kept_draw_the_same_tokens(tmp_path):
    """In a second call, and with new weights in the place of the old ones."""
    engine = loaded(tiny_model(tmp_path, "qwen2"), device="cuda", dtype=torch.bfloat16)
    config = GenerationConfig(max_new_tokens=80, min_new_tokens=80, top_p=0.9)
    first = generated(engine, prompts(), config)
    assert torch.equal(generated(engine, prompts(), config)["input_ids"], first["input_ids"])
    engine.local_tensors()["layers.0.qkv"].mul_(1.5)
    changed = generated(engine, prompts(), config)
    assert not torch.equal(changed["input_ids"], first["input_ids"])
    engine.end_decoding()
    assert torch.equal(generated(engine, prompts(), config)["input_ids"], changed["input_ids"])


def test_a_decoding_step_waits_once(tmp_path):
    """For the event behind the tokens, which PyTorch's count of waits leaves out; prefills may wait."""
    engine = loaded(tiny_model(tmp_path, "qwen2"), device="cuda", dtype=torch.bfloat16)
    config = GenerationConfig(max_new_tokens=200, min_new_tokens=200)
    generated(engine, prompts(), config)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as waits:
            warnings.simplefilter("always")
            generated(engine, prompts(), config)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(waits) < 20, {str(wait.message) for wait in waits}


def test_a_training_call_waits_as_often_whatever_it_is_cut_into(tmp_path):
    """As it is counted without a device: in no layer, and in no micro-batch."""
    model = tiny_llama(tmp_path)
    counts = [len(waits_of_training(model, max_tokens)) for max_tokens in (16, 1000)]
    assert counts[0] == counts[1] <= 4


def waits_of_training(model: Path, max_tokens: int) -> list[str]:
    """What PyTorch says of each wait in the second of two calls."""
    groups = local_groups(Placement(DeviceMesh((0,)), ParallelLayout()))
    engine = engine_of(model, groups, torch.bfloat16, "cuda", max_tokens_per_microbatch=max_tokens)
    train(engine)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as waits:
            warnings.simplefilter("always")
            train(engine)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return [str(wait.message) for wait in waits]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_offloaded_training_is_near_the_plain_one(dtype, tmp_path):
    """Weights and states in host memory between steps, or states there always, with the update."""
    model, groups = tiny_llama(tmp_path), local_groups(Placement(DeviceMesh((0,)), ParallelLayout()))
    plain, put_away = (engine_of(model, groups, dtype, "cuda") for _ in range(2))
    on_host = engine_of(model, groups, dtype, "cuda", optimizer=replace(ADAMW, offload=True))
    assert on_host.training.optimizer.master.is_pinned()
    for _ in range(3):
        put_away.offload()
        norms = [train(engine) for engine in (plain, put_away, on_host)]
        assert norms == pytest.approx([norms[0]] * 3, rel=1e-2)
    torch.testing.assert_close(put_away.weights.flat.buffer, plain.weights.flat.buffer, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(on_host.weights.flat.buffer, plain.weights.flat.buffer, rtol=1e-2, atol=1e-3)
    assert all(state.device.type == "cpu" for state in on_host.training.optimizer.states.values())
