"""The engine against transformers and torch.optim: every family, on every kind of layout."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from realrl.api.batch import PackedBatch, Sample, pack
from realrl.api.config import GenerationConfig, OptimizerConfig
from realrl.api.mesh import DeviceMesh, ParallelLayout, Placement
from realrl.engines.decoder_engine import DecoderEngine
from realrl.engines.options import EngineOptions
from realrl.models.layout import Head, check_fits
from realrl.models.registry import read_decoder_config
from realrl.parallel.groups import Groups, create_groups, local_groups
from realrl.realloc import checkpoint
from tests.models.families import ONE_EACH, ROWS, reference_model, tiny_model
from tests.world import run_world

LENGTHS = [7, 13, 5, 20, 9, 11]
PROMPT = 3
SHARED = [0, 1, 0, 0, 1, 2]
"""Which samples have the same prompt."""
# Adam divides by the gradient's size: a large eps keeps rounding in near-zero gradients from showing.
ADAMW = OptimizerConfig(lr=1e-2, clip_grad_norm=0.5, weight_decay=0.1, eps=1e-4)
ALONE = Placement(DeviceMesh((0,)), ParallelLayout())
LAYOUTS = [
    ParallelLayout(dp=2),
    ParallelLayout(tp=2),
    ParallelLayout(tp=4),
    ParallelLayout(pp=2),
    ParallelLayout(pp=3),
    ParallelLayout(dp=2, tp=2),
    ParallelLayout(pp=2, tp=2),
    ParallelLayout(pp=2, dp=2),
    ParallelLayout(pp=2, vp=2),
]
"""Every kind; four ranks share two K/V heads."""
FEWER = [
    ParallelLayout(tp=4),
    ParallelLayout(dp=2, tp=2),
    ParallelLayout(pp=2, tp=2),
    ParallelLayout(pp=2, vp=2),
]
"""Of families but the first: what they differ in is how tensors are cut, and which layers a stage has."""
FULL = bool(os.environ.get("REALRL_FULL_MATRIX"))
"""Every layout of up to eight ranks instead."""


def layouts_of(model: Path, usual: list[ParallelLayout]) -> list[ParallelLayout]:
    """Those that fit the model."""
    sizes = range(1, 9)
    every = (ParallelLayout(pp=p, dp=d, tp=t) for p in sizes for d in sizes for t in sizes)
    chosen = [layout for layout in every if layout.size <= 8] if FULL else usual
    return [layout for layout in chosen if fits(model, layout)]


def fits(model: Path, layout: ParallelLayout) -> bool:
    try:
        check_fits(read_decoder_config(model), layout, "")
    except ValueError:
        return False
    return layout.dp <= len(LENGTHS)


@pytest.mark.parametrize("row", ROWS)
def test_one_process_matches_transformers(row, tmp_path):
    """A round trip through files, log-probs, greedy and sampled tokens, two AdamW steps; no process group."""
    model = tiny_model(tmp_path, row)
    check_engine(model, local_groups(ALONE), reference_model(model))


@pytest.mark.parametrize(
    "options", [{"share_prompts": False}, {"gradient_checkpointing": True}, {"deterministic": True}]
)
def test_options_change_nothing(options, tmp_path):
    """Nothing but speed, memory and the last bits."""
    model = tiny_model(tmp_path, "gemma2")
    check_engine(model, local_groups(ALONE), reference_model(model), **options)


@pytest.mark.parametrize("row", ["gpt2", "qwen2"])
def test_products_add_to_the_gradients(row, tmp_path):
    """With transposed matrices, a tied head and biases."""
    model = tiny_model(tmp_path, row)
    check_engine(model, local_groups(ALONE), reference_model(model), add_products=True)


@pytest.mark.slow
@pytest.mark.parametrize("row", ONE_EACH)
def test_every_layout_matches_transformers(row, tmp_path):
    """The same over tensor, pipeline and data parallelism."""
    usual = LAYOUTS if row == ONE_EACH[0] else FEWER
    run_world(_check_layouts, 8 if FULL else 4, tiny_model(tmp_path, row), usual)


@pytest.mark.parametrize("head", ["lm", "scalar"])
@pytest.mark.parametrize("share_prompts", [True, False])
def test_results_do_not_depend_on_the_micro_batches(head, share_prompts, tmp_path):
    """Log-probs and values, in the batch's order, from one sample a micro-batch to all in one."""
    model, groups = tiny_model(tmp_path, "llama"), local_groups(ALONE)
    batch = own_batch(groups)
    found = {n: _inferred(model, head, groups, batch, n, share_prompts) for n in (1, 16, 21, 32, 40, 65)}
    assert len(found[65].unique()) > batch.num_tokens / 2
    expected = _inferred(model, head, groups, batch, 65, False)
    for tensor in found.values():
        torch.testing.assert_close(tensor, expected, rtol=1e-5, atol=1e-5)


def test_each_pass_of_a_micro_batch_is_progress(tmp_path):
    """In inference one for each micro-batch, in training at least two; it ends with all samples done."""
    model, groups = tiny_model(tmp_path, "llama"), local_groups(ALONE)
    options = {"dtype": torch.float32, "device": "cpu", "max_tokens_per_microbatch": 16}
    engine = DecoderEngine(
        read_decoder_config(model),
        "lm",
        groups,
        EngineOptions(optimizer=ADAMW, share_prompts=False, **options),
    )
    engine.load(model)
    batch, said = own_batch(groups), []
    num = len(engine.split(batch))
    assert num > 2
    with engine.reporting(lambda *numbers: said.append(numbers)):
        engine.logprobs(batch, temperature=1.0)
        assert len(said) == num and said == sorted(said) and said[-1] == (len(batch), len(batch))
        said.clear()
        engine.train_logprobs(batch, lambda logprobs, _: (logprobs.sum(), {}), lr=0.0, temperature=1.0)
        assert len(said) >= 2 * num and said == sorted(said) and said[-1] == (len(batch), len(batch))
    said.clear()
    engine.logprobs(batch, temperature=1.0)
    assert not said


def _inferred(
    model: Path, head: Head, groups: Groups, batch: PackedBatch, max_tokens: int, share_prompts: bool
) -> Tensor:
    engine = DecoderEngine(
        read_decoder_config(model),
        head,
        groups,
        EngineOptions(
            dtype=torch.float32,
            device="cpu",
            max_tokens_per_microbatch=max_tokens,
            share_prompts=share_prompts,
        ),
    )
    engine.load(model)
    if head == "lm":
        return engine.logprobs(batch, temperature=1.0)
    engine.local_tensors()["head"].copy_(torch.linspace(-1, 1, 32))
    return engine.values(batch)


def _check_layouts(rank: int, model: Path, usual: list[ParallelLayout]) -> None:
    reference = reference_model(model)
    weights = {name: weight.clone() for name, weight in reference.state_dict().items()}
    layouts = layouts_of(model, usual)
    placements = [Placement(DeviceMesh(tuple(range(layout.size))), layout) for layout in layouts]
    for _, groups in sorted(create_groups(placements, rank).items()):
        reference.load_state_dict(weights)
        # What CUDA always does, with and without.
        alone = groups.placement.layout.dp == 1
        check_engine(
            model,
            groups,
            reference,
            sequence_pieces=2 if alone else 0,
            add_products=alone,
            gradient_checkpointing=groups.placement.layout.vp == 2,
        )


def check_engine(
    model: Path, groups: Groups, reference: PreTrainedModel, device: str = "cpu", **options
) -> None:
    engine = DecoderEngine(
        read_decoder_config(model),
        "lm",
        groups,
        EngineOptions(
            dtype=torch.float32, device=device, max_tokens_per_microbatch=40, optimizer=ADAMW, **options
        ),
    )
    engine.load(model)
    batch = own_batch(groups)
    check_round_trip(engine, model)
    check_logprobs(engine, batch, reference)
    check_greedy(engine, batch, reference)
    check_sampling(engine, batch)
    check_training(engine, batch, reference)


def check_round_trip(engine: DecoderEngine, model: Path) -> None:
    """Load, save, load: the files and the weights are the same, bit for bit."""
    placement, rank = engine.groups.placement, engine.groups.rank
    directory = model / f"saved-{placement.layout}"
    directory.mkdir(exist_ok=True)
    weights = engine.local_tensors()
    checkpoint.save(
        directory, engine.layout, weights, rank=rank, ranks=placement.ranks, dtype=engine.options.dtype
    )
    before = {name: tensor.clone() for name, tensor in weights.items()}
    if engine.groups.mesh is not None:
        dist.barrier(engine.groups.mesh)
    saved = {k: v for file in directory.glob("*.safetensors") for k, v in load_file(file).items()}
    expected = load_file(model / "model.safetensors")
    assert saved.keys() == expected.keys()
    assert all(torch.equal(saved[name], tensor) for name, tensor in expected.items())
    engine.load(directory)
    assert all(torch.equal(tensor, before[name]) for name, tensor in engine.local_tensors().items())


def all_ids() -> list[Tensor]:
    """Six ragged sequences; some have the same prompt."""
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randint(3, 60, (3, PROMPT), generator=generator)
    rests = [torch.randint(3, 60, (length - PROMPT,), generator=generator) for length in LENGTHS]
    return [torch.cat((prompts[which], rest)) for which, rest in zip(SHARED, rests)]


def own_batch(groups: Groups) -> PackedBatch:
    """This data-parallel rank's share."""
    ids = all_ids()
    mine = range(groups.place.dp_rank, len(ids), groups.placement.layout.dp)
    return pack(
        [Sample(i, i) for i in mine],
        {
            "input_ids": [ids[i] for i in mine],
            "loss_mask": [torch.arange(len(ids[i])) >= PROMPT for i in mine],
        },
    )


def as_prompts(batch: PackedBatch) -> PackedBatch:
    return PackedBatch(batch.samples, batch.cu_seqlens, {"prompts": batch["input_ids"]})


def reference_logprobs(reference: PreTrainedModel, ids: Tensor) -> Tensor:
    logprobs = reference(ids[None]).logits[0].log_softmax(-1)
    return logprobs[PROMPT - 1 : -1].gather(-1, ids[PROMPT:, None])[:, 0]


@torch.no_grad()
def check_logprobs(engine: DecoderEngine, batch: PackedBatch, reference: PreTrainedModel) -> None:
    logprobs = engine.logprobs(batch, temperature=1.0)
    if logprobs is not None:
        expected = torch.cat([reference_logprobs(reference, ids) for ids in batch.unpacked("input_ids")])
        torch.testing.assert_close(logprobs[batch["loss_mask"]], expected, rtol=1e-5, atol=1e-5)
        assert not logprobs[~batch["loss_mask"]].any()


def check_greedy(engine: DecoderEngine, batch: PackedBatch, reference: PreTrainedModel) -> None:
    config = GenerationConfig(max_new_tokens=8, temperature=0.0, max_sequences=4)
    rollout = engine.generate(as_prompts(batch), config, seed=1, step=0)
    for prompt, ids in zip(batch.unpacked("input_ids"), rollout.unpacked("input_ids"), strict=True):
        expected = reference.generate(prompt[None], max_new_tokens=8, do_sample=False, pad_token_id=0)[0]
        assert torch.equal(ids, expected)


def check_sampling(engine: DecoderEngine, batch: PackedBatch) -> None:
    """A sampled token's log-probs are what a teacher-forced forward pass gives it."""
    config = GenerationConfig(max_new_tokens=8, temperature=0.7, top_p=0.9, top_k=20)
    rollout = engine.generate(as_prompts(batch), config, seed=1, step=0)
    for key, temperature in (("logprobs", 0.7), ("raw_logprobs", 1.0)):
        logprobs = engine.logprobs(rollout, temperature=temperature)
        if logprobs is not None:
            torch.testing.assert_close(logprobs, rollout[key], rtol=0, atol=1e-5)


def check_training(engine: DecoderEngine, batch: PackedBatch, reference: PreTrainedModel) -> None:
    num_tokens = sum(length - PROMPT for length in LENGTHS)
    matrices = [p for p in reference.parameters() if p.dim() > 1]
    vectors = [p for p in reference.parameters() if p.dim() == 1]
    adamw = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": ADAMW.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=ADAMW.lr,
        betas=(ADAMW.beta1, ADAMW.beta2),
        eps=ADAMW.eps,
    )
    for _ in range(2):
        found = engine.train_logprobs(
            batch, lambda logprobs, micro: (-logprobs.sum() / num_tokens, {}), lr=ADAMW.lr, temperature=1.0
        )
        adamw.zero_grad()
        (-sum(reference_logprobs(reference, ids).sum() for ids in all_ids()) / num_tokens).backward()
        norm = torch.nn.utils.clip_grad_norm_(reference.parameters(), ADAMW.clip_grad_norm)
        adamw.step()
        assert found["grad_norm"].total == pytest.approx(float(norm), rel=1e-5)
    check_weights(engine, reference.state_dict())


def check_weights(engine: DecoderEngine, expected: dict[str, Tensor]) -> None:
    weights = engine.local_tensors()
    for shard in engine.layout.shards(engine.groups.rank):
        box = tuple(slice(a, b) for a, b in zip(shard.box.start, shard.box.stop, strict=True))
        local = tuple(slice(o, o + n) for o, n in zip(shard.offset, shard.box.shape, strict=True))
        torch.testing.assert_close(
            weights[shard.local][local].cpu(), expected[shard.box.tensor][box], rtol=1e-4, atol=1e-5
        )
