"""The engine against transformers and torch.optim, on every kind of layout of up to four ranks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor
from transformers import LlamaForCausalLM

from realrl.api.batch import PackedBatch, Sample, pack
from realrl.api.config import GenerationConfig, OptimizerConfig
from realrl.api.mesh import DeviceMesh, ParallelLayout, Placement
from realrl.engines.engine import Engine
from realrl.models.config import read_decoder_config
from realrl.parallel.groups import Groups, create_groups, local_groups
from realrl.realloc import checkpoint
from tests.tiny import tiny_llama
from tests.world import run_world

LENGTHS = [7, 13, 3, 20, 9, 11]
PROMPT = 2
# Adam divides by the gradient's size: a large eps keeps rounding in near-zero gradients from showing.
ADAMW = OptimizerConfig(lr=1e-2, clip_grad_norm=0.5, weight_decay=0.1, eps=1e-4)
LAYOUTS = [
    ParallelLayout(dp=2),
    ParallelLayout(tp=2),
    ParallelLayout(tp=4),
    ParallelLayout(pp=2),
    ParallelLayout(pp=3),
    ParallelLayout(dp=2, tp=2),
    ParallelLayout(pp=2, tp=2),
    ParallelLayout(pp=2, dp=2),
]


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def model(request, tmp_path_factory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny"), tie=request.param)


def test_one_process_matches_transformers(model):
    """A round trip through files, log-probs, greedy and sampled tokens, two AdamW steps; no process group."""
    placement = Placement(DeviceMesh((0,)), ParallelLayout())
    check_engine(model, local_groups(placement))


def test_every_layout_matches_transformers(model):
    """The same over tensor, pipeline and data parallelism; two K/V heads are shared by four ranks."""
    run_world(_check_layouts, 4, model)


def _check_layouts(rank: int, model: Path) -> None:
    placements = [Placement(DeviceMesh(tuple(range(layout.size))), layout) for layout in LAYOUTS]
    for _, groups in sorted(create_groups(placements, rank).items()):
        check_engine(model, groups)


def check_engine(model: Path, groups: Groups, device: str = "cpu") -> None:
    reference = LlamaForCausalLM.from_pretrained(model)
    engine = Engine(
        read_decoder_config(model),
        "lm",
        groups,
        dtype=torch.float32,
        device=device,
        max_tokens_per_microbatch=40,
        optimizer=ADAMW,
    )
    engine.load(model)
    batch = own_batch(groups)
    check_round_trip(engine, model)
    check_logprobs(engine, batch, reference)
    check_greedy(engine, batch, reference)
    check_sampling(engine, batch)
    check_training(engine, batch, reference)


def check_round_trip(engine: Engine, model: Path) -> None:
    """Load, save, load: the files and the weights are the same, bit for bit."""
    placement, rank = engine.placement, engine.groups.rank
    directory = model / f"saved-{placement.layout}"
    directory.mkdir(exist_ok=True)
    weights = engine.local_tensors()
    checkpoint.save(directory, engine.layout, weights, rank=rank, ranks=placement.ranks, dtype=engine.dtype)
    before = {name: tensor.clone() for name, tensor in weights.items()}
    if engine.groups.mesh is not None:
        dist.barrier(engine.groups.mesh)
    saved = {k: v for file in directory.glob("*.safetensors") for k, v in load_file(file).items()}
    expected = load_file(model / "model.safetensors")
    assert saved.keys() == expected.keys()
    assert all(torch.equal(saved[name], tensor) for name, tensor in expected.items())
    engine.load(directory)
    assert all(torch.equal(tensor, before[name]) for name, tensor in engine.local_tensors().items())


def own_batch(groups: Groups) -> PackedBatch:
    """This data-parallel rank's share of six ragged sequences."""
    generator = torch.Generator().manual_seed(0)
    ids = [torch.randint(3, 60, (length,), generator=generator) for length in LENGTHS]
    mine = range(groups.place.dp_rank, len(ids), groups.placement.layout.dp)
    return pack(
        [Sample(i, i) for i in mine],
        {
            "input_ids": [ids[i] for i in mine],
            "prompts": [ids[i] for i in mine],
            "loss_mask": [torch.arange(len(ids[i])) >= PROMPT for i in mine],
        },
    )


def reference_logprobs(reference: LlamaForCausalLM, ids: Tensor) -> Tensor:
    logprobs = reference(ids[None]).logits[0].log_softmax(-1)
    return logprobs[PROMPT - 1 : -1].gather(-1, ids[PROMPT:, None])[:, 0]


@torch.no_grad()
def check_logprobs(engine: Engine, batch: PackedBatch, reference: LlamaForCausalLM) -> None:
    logprobs = engine.logprobs(batch, temperature=1.0)
    if logprobs is not None:
        expected = torch.cat([reference_logprobs(reference, ids) for ids in batch.unpacked("input_ids")])
        torch.testing.assert_close(logprobs[batch["loss_mask"]], expected, rtol=1e-5, atol=1e-5)
        assert not logprobs[~batch["loss_mask"]].any()


def check_greedy(engine: Engine, batch: PackedBatch, reference: LlamaForCausalLM) -> None:
    rollout = engine.generate(batch, GenerationConfig(max_new_tokens=8, temperature=0.0), seed=1, step=0)
    for prompt, ids in zip(batch.unpacked("prompts"), rollout.unpacked("input_ids"), strict=True):
        expected = reference.generate(prompt[None], max_new_tokens=8, do_sample=False, pad_token_id=0)[0]
        assert torch.equal(ids, expected)


def check_sampling(engine: Engine, batch: PackedBatch) -> None:
    """A sampled token's log-prob is what a teacher-forced forward pass gives it."""
    config = GenerationConfig(max_new_tokens=8, temperature=0.7, top_p=0.9, top_k=20)
    rollout = engine.generate(batch, config, seed=1, step=0)
    logprobs = engine.logprobs(rollout, temperature=0.7)
    if logprobs is not None:
        torch.testing.assert_close(logprobs, rollout["logprobs"], rtol=1e-4, atol=1e-4)


def check_training(engine: Engine, batch: PackedBatch, reference: LlamaForCausalLM) -> None:
    num_tokens = sum(length - PROMPT for length in LENGTHS)
    matrices = [p for p in reference.parameters() if p.dim() > 1]
    vectors = [p for p in reference.parameters() if p.dim() == 1]
    adamw = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": ADAMW.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=ADAMW.lr,
        betas=(ADAMW.beta1, ADAMW.beta2),
        eps=ADAMW.eps,
    )
    generator = torch.Generator().manual_seed(0)
    everything = [torch.randint(3, 60, (length,), generator=generator) for length in LENGTHS]
    for _ in range(2):
        found = engine.train_logprobs(
            batch, lambda logprobs, micro: (-logprobs.sum() / num_tokens, {}), lr=ADAMW.lr, temperature=1.0
        )
        adamw.zero_grad()
        (-sum(reference_logprobs(reference, ids).sum() for ids in everything) / num_tokens).backward()
        norm = torch.nn.utils.clip_grad_norm_(reference.parameters(), ADAMW.clip_grad_norm)
        adamw.step()
        assert found["grad_norm"].total == pytest.approx(float(norm), rel=1e-5)
    check_weights(engine, reference.state_dict())


def check_weights(engine: Engine, expected: dict[str, Tensor]) -> None:
    weights = engine.local_tensors()
    for shard in engine.layout.shards(engine.groups.rank):
        box = tuple(slice(a, b) for a, b in zip(shard.box.start, shard.box.stop, strict=True))
        local = tuple(slice(o, o + n) for o, n in zip(shard.offset, shard.box.shape, strict=True))
        torch.testing.assert_close(
            weights[shard.local][local].cpu(), expected[shard.box.tensor][box], rtol=1e-4, atol=1e-5
        )
