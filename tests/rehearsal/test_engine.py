"""The engine's CUDA path on tensors that claim to be on a device: its numbers, waits, copies and launches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from realrl.api.batch import PackedBatch
from realrl.api.config import GenerationConfig, OptimizerConfig
from realrl.engines.decoder_engine import DecoderEngine
from realrl.engines.options import EngineOptions
from realrl.layouts.layout import Box, Layout, Shard
from realrl.layouts.plan import plan
from realrl.models.registry import read_decoder_config
from realrl.parallel.groups import local_groups
from realrl.realloc.transfer import Transfer
from tests.engines.test_engine import as_prompts
from tests.recipes.test_variants import ALONE, VARIANTS, config_of, rollouts
from tests.rehearsal.claimed import DEVICE, Ledger, counted
from tests.tiny import tiny_llama

SHORT, LONG = 16, 1000
"""Tokens of micro-batches: several of them, and one."""


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[int, Path]:
    """By the number of layers; heads as flash attention takes them."""
    make = tmp_path_factory.mktemp
    return {n: tiny_llama(make(f"tiny{n}"), layers=n, hidden=32, heads=4) for n in (2, 4)}


@pytest.fixture(scope="module")
def batch(models) -> PackedBatch:
    return rollouts(models[2])


def engine_of(model: Path, device: str, max_tokens: int = LONG, head: str = "lm", **options) -> DecoderEngine:
    engine = DecoderEngine(
        read_decoder_config(model),
        head,
        local_groups(ALONE),
        EngineOptions(
            dtype=torch.bfloat16,
            device=device,
            max_tokens_per_microbatch=max_tokens,
            optimizer=options.pop("optimizer", OptimizerConfig(lr=1e-2, eps=0.1)),
            **options,
        ),
    )
    engine.load(model)
    return engine


def trained(engine: DecoderEngine, model: Path, batch: PackedBatch, algorithm: str = "grpo") -> Ledger:
    """Two of a recipe's training calls; the second one is counted."""
    config = config_of(algorithm, model)
    ctx = SimpleNamespace(
        config=config,
        step=0,
        engine=engine,
        reduce=engine.groups.reduce,
        reduce_mesh=engine.groups.reduce_mesh,
        memory={},
    )
    bodies = VARIANTS[algorithm].bodies
    batch = bodies["advantages"](ctx, batch).batch
    bodies["actor_train"](ctx, batch)
    with counted() as ledger:
        bodies["actor_train"](ctx, batch)
    return ledger


@pytest.mark.parametrize("options", [{}, {"gradient_checkpointing": True}, {"share_prompts": False}], ids=str)
def test_its_numbers_are_the_hosts(device, models, batch, options):
    """To within bfloat16's rounding: log-probabilities before and after two training calls."""
    host, on_device = (engine_of(models[4], kind, SHORT, **options) for kind in ("cpu", "cuda"))
    before = checked_logprobs(host, on_device, batch)
    for engine in (on_device, host):
        trained(engine, models[4], batch)
    assert (checked_logprobs(host, on_device, batch) - before).abs().max() > 0.3


def checked_logprobs(host: DecoderEngine, on_device: DecoderEngine, batch: PackedBatch) -> Tensor:
    found, expected = (engine.logprobs(batch, temperature=1.0) for engine in (on_device, host))
    assert (found - expected).abs().max() < 0.2 and (found - expected).abs().mean() < 0.02
    return expected


def test_values_are_the_hosts(device, models, batch):
    def loss(values, micro):
        return (values[micro.responses] - 1).square().sum() / 100, {}

    host, on_device = (engine_of(models[2], kind, SHORT, "scalar") for kind in ("cpu", "cuda"))
    for engine in (on_device, host):
        for _ in range(5):
            engine.train_values(batch, loss, lr=1e-2)
    found, expected = (engine.values(batch) for engine in (on_device, host))
    assert expected.abs().max() > 0.1 and (found - expected).abs().max() < 0.05


@pytest.mark.parametrize(
    ("algorithm", "options"),
    [("grpo", {}), ("gspo", {}), ("decoupled", {}), ("grpo", {"gradient_checkpointing": True})],
    ids=str,
)
def test_a_training_call_waits_as_often_whatever_it_is_cut_into(device, models, batch, algorithm, options):
    """No wait in a layer and none in a micro-batch: at most four in a mini-batch, for the gradient's norm and
    for what is reported; two copies to the device for each micro-batch."""
    ledgers = []
    for layers, tokens in ((2, SHORT), (2, LONG), (4, SHORT)):
        engine = engine_of(models[layers], "cuda", tokens, **options)
        ledgers.append(trained(engine, models[layers], batch, algorithm))
    short, long, deep = ledgers
    minibatches = config_of(algorithm, models[2]).ppo.num_minibatches
    assert len(short.waits) == len(long.waits) == len(deep.waits) <= 4 * minibatches
    assert len(short.uploads) == len(deep.uploads) > len(long.uploads) >= 2 * minibatches


def test_inference_waits_once(device, models, batch):
    for layers in (2, 4):
        for tokens in (SHORT, LONG):
            engine = engine_of(models[layers], "cuda", tokens)
            engine.logprobs(batch, temperature=1.0)
            with counted() as ledger:
                engine.logprobs(batch, temperature=1.0)
            assert ledger.waits == [f"download of {4 * batch.num_tokens} bytes"]


def launches(model: Path, batch: PackedBatch, **options) -> int:
    return sum(trained(engine_of(model, "cuda", **options), model, batch).launches.values())


@pytest.mark.parametrize(
    ("options", "most"),
    [
        ({"share_prompts": False}, 26),
        ({}, 53),
        ({"share_prompts": False, "gradient_checkpointing": True}, 34),
    ],
    ids=["", "prompts shared", "recomputed"],
)
def test_launches_of_a_layer(device, models, batch, options, most):
    """In a forward and a backward pass, without the kernels of csrc, of which there are four."""
    few, many = (launches(models[layers], batch, **options) for layers in (2, 4))
    assert (many - few) / 2 <= most


@pytest.mark.parametrize("options", [{}, {"top_p": 0.8, "min_new_tokens": 3}, {"temperature": 0.0}], ids=str)
def test_what_is_generated_has_the_trainers_logprobs(device, models, batch, options):
    """To within bfloat16's rounding: pages, the draw, and a prefill whose prompts are shared."""
    engine = engine_of(models[2], "cuda")
    config = GenerationConfig(max_new_tokens=6, max_sequences=5, **options)
    rollout = engine.generate(as_prompts(batch), config, seed=1, step=0)
    assert rollout["loss_mask"].sum() > len(batch)
    found = engine.logprobs(rollout, temperature=1.0)
    assert (found - rollout["raw_logprobs"]).abs().max() < 0.2
    assert (found - rollout["raw_logprobs"]).abs().mean() < 0.02


def test_no_matrix_has_a_gradient_of_its_own(device, models, batch):
    """Except the embedding, for its lookups; also after weights were offloaded."""
    engine = engine_of(models[2], "cuda")
    found: set[str] = set()
    for _ in range(2):
        for name, weight in engine.local_tensors().items():
            weight.register_hook(lambda _, name=name: found.add(name))
        trained(engine, models[2], batch)
        assert {name for name in found if "norm" not in name} == {"embed"}
        engine.offload()


def test_weights_and_states_that_were_offloaded_come_back(device, models, batch):
    """The same bits, and the host waits for no copy."""
    plain, offloaded = (engine_of(models[2], "cuda") for _ in range(2))
    for _ in range(2):
        with counted() as ledger:
            offloaded.offload()
            offloaded.onload()
            offloaded.local_tensors()
        assert not ledger.waits
        for engine in (plain, offloaded):
            trained(engine, models[2], batch)
        assert torch.equal(plain.weights.flat.buffer.inner, offloaded.weights.flat.buffer.inner)


def test_an_optimizer_in_host_memory(device, models, batch):
    """The same weights as with states on the device, but for the order of a sum."""
    optimizer = OptimizerConfig(lr=1e-2, eps=1e-3)
    engines = [
        engine_of(models[2], "cuda", optimizer=replace(optimizer, offload=offload))
        for offload in (False, True)
    ]
    for engine in engines:
        trained(engine, models[2], batch)
    torch.testing.assert_close(
        *(engine.weights.flat.buffer.inner for engine in engines), rtol=1e-2, atol=1e-3
    )


def test_a_rank_rearranges_and_casts_its_own_tensors(device):
    """Reallocation within a device: float32 to bf16, column by column, without a wait."""
    source = Layout.of((Shard(0, Box("w", (0, 0), (64, 48)), "w", (0, 0)),))
    columns = [Shard(0, Box("w", (0, c), (64, c + 16)), f"column{c}", (0, 0)) for c in (0, 16, 32)]
    transfer = Transfer(plan(source, Layout.of(columns)), rank=0, wire_dtype=torch.bfloat16)
    weight = torch.randn(64, 48)
    held = {"w": weight.clone().pin_memory().to(DEVICE, non_blocking=True)}
    target = {f"column{c}": torch.ones(64, 16, dtype=torch.bfloat16, device="cuda") for c in (0, 16, 32)}
    with counted() as ledger:
        transfer.run(held, target)
    assert not ledger.waits
    assert torch.equal(torch.cat([part.cpu() for part in target.values()], dim=1), weight.bfloat16())


def test_what_a_device_would_refuse_fails(device):
    """Tensors of both sides, and an index that is on the host."""
    there, here = torch.ones(3, device="cuda"), torch.ones(3)
    for mixed in (lambda: there + here, lambda: there[here.long()], lambda: torch.cat([there, here])):
        with pytest.raises(RuntimeError, match="expected all tensors on cuda:0"):
            mixed()
    assert float((there * torch.tensor(2.0)).sum()) == 6.0


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.isfinite().all()),
        lambda x: x.tolist(),
        lambda x: x.cpu(),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: torch.zeros(3).to(x.device),
        lambda x: torch.zeros(3).to(x.device, non_blocking=True),
        lambda x: torch.zeros(3).pin_memory().to(x.device),
        lambda x: torch.tensor([1.0], device=x.device),
        lambda x: x.copy_(torch.zeros(3)),
        lambda x: torch.zeros(3).copy_(x),
    ],
)
def test_what_would_make_the_host_wait_is_counted(device, wait):
    x = torch.ones(3, device="cuda")
    with counted() as ledger:
        wait(x)
    assert len(ledger.waits) == 1


def test_what_would_not_is_not(device):
    x = torch.ones(3, device="cuda")
    with counted() as ledger:
        torch.zeros(3).pin_memory().to(x.device, non_blocking=True)
        x[torch.zeros(2, dtype=torch.long, device="cuda")] += x.sum().double().float()
        x.view(3, 1).expand(3, 2).t()
    assert not ledger.waits and ledger.uploads == [12]
