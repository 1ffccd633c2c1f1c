"""Weights that are no numbers end a run by name, whatever is computed with them."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from realrl.api.batch import PackedBatch, Sample, pack
from realrl.api.config import GenerationConfig, OptimizerConfig
from realrl.api.mesh import DeviceMesh, ParallelLayout, Placement
from realrl.engines.decoder_engine import DecoderEngine
from realrl.engines.options import EngineOptions
from realrl.engines.vllm.engine import VLLMEngine
from realrl.engines.vllm.protocol import Response
from realrl.models.registry import read_decoder_config
from realrl.parallel.groups import Groups, create_groups, local_groups
from tests.tiny import tiny_llama
from tests.world import run_world

ALONE = Placement(DeviceMesh((0,)), ParallelLayout())
SPOILT = "model.layers.2.self_attn.k_proj.weight"
NAMED = f"are not finite: the weight {SPOILT}, as they were loaded, has NaN or infinities"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny"))


def loaded(
    model: Path,
    head: str = "lm",
    groups: Groups | None = None,
    dtype: torch.dtype = torch.float32,
    optimizer: OptimizerConfig | None = None,
) -> DecoderEngine:
    engine = DecoderEngine(
        read_decoder_config(model),
        head,
        groups or local_groups(ALONE),
        EngineOptions(dtype=dtype, device="cpu", max_tokens_per_microbatch=100, optimizer=optimizer),
    )
    engine.load(model)
    return engine


def spoilt(
    model: Path,
    head: str = "lm",
    groups: Groups | None = None,
    dtype: torch.dtype = torch.float32,
    bad: float = math.nan,
) -> DecoderEngine:
    """An engine of which one element of one weight is no number, as after an update that went wrong."""
    engine = loaded(model, head, groups, dtype, OptimizerConfig())
    for shard in engine.layout.shards(engine.groups.rank):
        if shard.box.tensor == SPOILT:
            with torch.no_grad():
                engine.local_tensors()[shard.local][shard.offset[0], 3] = bad
    return engine


def generated(engine: DecoderEngine) -> PackedBatch:
    prompts = pack([Sample(0, 0), Sample(1, 1)], {"prompts": [torch.tensor([5, 6, 7]), torch.tensor([8])]})
    return engine.generate(prompts, GenerationConfig(max_new_tokens=24), seed=1, step=0)


def sequences() -> PackedBatch:
    ids = [torch.arange(3, 12), torch.arange(20, 26)]
    masks = [torch.arange(len(x)) > 2 for x in ids]
    return pack([Sample(0, 0), Sample(1, 1)], {"input_ids": ids, "loss_mask": masks})


def loss(found: Tensor, micro: PackedBatch):
    return found.sum(), {}


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_it_is_named_wherever_it_is_computed_with(model, dtype, bad):
    """In generation, in evaluation and in training; by the tensor's name in the checkpoint."""
    policy, critic = (spoilt(model, head, dtype=dtype, bad=bad) for head in ("lm", "scalar"))
    with pytest.raises(
        FloatingPointError, match=f"logits are not finite at token 1 of a response: .*{SPOILT}"
    ):
        generated(policy)
    with pytest.raises(FloatingPointError, match=f"log-probabilities {NAMED}"):
        policy.logprobs(sequences(), temperature=1.0)
    with pytest.raises(FloatingPointError, match=f"log-probabilities {NAMED}"):
        policy.train_logprobs(sequences(), loss, lr=1e-3, temperature=1.0)
    # The scalar head starts at zero, and zero times what is no number is none.
    with pytest.raises(FloatingPointError, match=f"values {NAMED}"):
        critic.values(sequences())
    with pytest.raises(FloatingPointError, match=f"values {NAMED}"):
        critic.train_values(sequences(), loss, lr=1e-3)


def test_a_checkpoint_with_such_a_weight_is_refused(model, tmp_path):
    """Before anything is computed, so that the rank that holds it is the one that speaks."""
    directory = tiny_llama(tmp_path)
    file = directory / "model.safetensors"
    tensors = load_file(file)
    tensors[SPOILT][1, 2] = math.nan
    save_file(tensors, file, metadata={"format": "pt"})
    for optimizer in (None, OptimizerConfig()):
        with pytest.raises(
            ValueError, match=f"{directory}: the weight {SPOILT} has NaN or infinities as float32"
        ):
            loaded(directory, optimizer=optimizer)


def test_finite_weights_that_overflow_are_told_apart(model):
    """Nothing is wrong with any one of them."""
    engine = spoilt(model, bad=1.0)
    with torch.no_grad():
        engine.local_tensors()["layers.1.mlp_down"].mul_(1e38)
    with pytest.raises(FloatingPointError, match="weights, as they were loaded, are finite, so activations"):
        generated(engine)


def test_every_rank_of_a_pipeline_stops(model):
    """Also those that hold neither the weight nor the logits: none waits for the others."""
    run_world(_check_ranks, 2, model)


def _check_ranks(rank: int, model: Path) -> None:
    placement = Placement(DeviceMesh((0, 1)), ParallelLayout(pp=2))
    groups = create_groups([placement], rank)[placement]
    engine = spoilt(model, groups=groups)
    with pytest.raises(FloatingPointError, match="logits are not finite at token 1 of a response"):
        generated(engine)


def test_what_vllm_draws_from_no_numbers_is_named(model):
    """Its sampler says nothing, but the log-probabilities that it gives are none."""
    engine = VLLMEngine.__new__(VLLMEngine)
    engine.version, engine._arriving, engine._end_token_ids = 3, None, (1,)
    answers = (
        Response(tokens=(5, 6), logprobs=(-1.0, -2.0), ended=False),
        Response(tokens=(7, 8), logprobs=(-1.0, math.nan), ended=False),
    )
    reply = SimpleNamespace(version=3, responses=answers)
    engine._child = SimpleNamespace(ask=lambda request, answer, **options: reply)
    with pytest.raises(
        FloatingPointError, match="not finite at token 2 .* nan with the weights after 3 training"
    ):
        generated(engine)
