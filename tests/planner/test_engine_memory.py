"""Predicted memory against what engines hold, what autograd keeps, and what processes really take."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from realrl.api.config import GenerationConfig, OptimizerConfig
from realrl.api.mesh import Coordinate, DeviceMesh, ParallelLayout, Placement
from realrl.engines.decoder_engine import DecoderEngine
from realrl.engines.options import EngineOptions
from realrl.models.registry import read_decoder_config
from realrl.ops.cache import KeyValueCache
from realrl.ops.linear import PackedWeight, has_bf16_products
from realrl.parallel.groups import create_groups, local_groups
from realrl.planner.engine_memory import GenerationLoad, Load, generation, resident, training
from realrl.planner.model_memory import Stage
from tests.engines.measuring import check_calls, llama
from tests.engines.test_engine import as_prompts, own_batch
from tests.models.families import ONE_EACH, tiny_model
from tests.world import run_world

ALONE = Placement(DeviceMesh((0,)), ParallelLayout())
DTYPES = [torch.float32, torch.bfloat16]


def stage_of(decoder, dtype: torch.dtype, layout: ParallelLayout | None = None, **traits) -> Stage:
    layout, place = layout or ParallelLayout(), traits.pop("place", Coordinate(0, 0, 0))
    return Stage(decoder=decoder, layout=layout, place=place, head="lm", itemsize=dtype.itemsize, **traits)


def engine_of(model, dtype: torch.dtype, optimizer: OptimizerConfig | None = None) -> DecoderEngine:
    engine = DecoderEngine(
        read_decoder_config(model),
        "lm",
        local_groups(ALONE),
        EngineOptions(dtype=dtype, device="cpu", max_tokens_per_microbatch=1000, optimizer=optimizer),
    )
    engine.load(model)
    return engine


def storage_bytes(tensors) -> int:
    """Of the memory under tensors, each block once."""
    blocks = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(blocks.values())


@pytest.mark.parametrize("row", ONE_EACH)
def test_engines_hold_and_autograd_keeps_what_is_predicted(row, tmp_path):
    """Of every family, in both types."""
    model = tiny_model(tmp_path, row)
    for dtype in DTYPES:
        engine = engine_of(model, dtype, OptimizerConfig())
        check_layers(engine)
        check_resident(engine)


def check_layers(engine: DecoderEngine) -> None:
    """To a hundredth: indices are left out."""
    (micro,) = engine.split(own_batch(engine.groups))
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        engine.model.forward_micro(micro, None, 0)
    weights = engine.weights.flat.buffer.untyped_storage().data_ptr()
    found = storage_bytes(x for x in kept if x.untyped_storage().data_ptr() != weights)
    config, stage, tokens = engine.decoder, stage_of(engine.decoder, engine.options.dtype), micro.num_tokens
    # Beside the layers: the last norm's input, ids, and positions or all layers' angles.
    beside = stage.hidden_bytes(tokens) + 8 * tokens + (4 * config.head_dim if config.rope else 8) * tokens
    assert found == pytest.approx(config.num_layers * stage.layer_bytes(tokens) + beside, rel=0.01)


def check_resident(engine: DecoderEngine) -> None:
    """Weights and all of the optimizer's states after a step, to the byte."""
    engine.train_logprobs(
        own_batch(engine.groups), lambda logprobs, _: (logprobs.sum(), {}), lr=1e-5, temperature=1.0
    )
    optimizer, weights = engine.training.optimizer, engine.weights.flat.buffer
    moments = [optimizer.states[name] for name in ("exp_avg", "exp_avg_sq")]
    everything = storage_bytes([weights, optimizer.master, optimizer.gradients, *moments])
    expected = resident(stage_of(engine.decoder, engine.options.dtype), trained=True)
    assert (expected.weights_bytes, expected.total_bytes) == (storage_bytes([weights]), everything)


def test_generation_packs_and_caches_what_is_predicted(tmp_path, monkeypatch):
    """To the byte, but for what fills up the blocks of a packed weight."""
    packed, pages = [], []
    pack, cache = PackedWeight.__init__, KeyValueCache.__init__

    def packing(self, *args):
        pack(self, *args)
        packed.append(self._packed.numel() * self._packed.element_size())

    def caching(self, **shape):
        cache(self, **shape)
        pages.append(self._pages._data.nbytes)

    monkeypatch.setattr(PackedWeight, "__init__", packing)
    monkeypatch.setattr(KeyValueCache, "__init__", caching)
    engine = engine_of(tiny_model(tmp_path, "llama"), torch.bfloat16)
    config, prompts = (
        GenerationConfig(max_new_tokens=90, max_sequences=4),
        as_prompts(own_batch(engine.groups)),
    )
    engine.generate(prompts, config, seed=1, step=0)
    load = GenerationLoad(
        num_sequences=len(prompts),
        longest_prompt=max(prompts.lengths),
        num_prompt_tokens=prompts.num_tokens,
    )
    found = generation(stage_of(engine.decoder, torch.bfloat16), load, config, max_prefill_tokens=1000)
    assert ([found.cache_bytes], found.weights_bytes) == (pages, sum(packed))


def test_more_micro_batches_in_flight_take_more():
    """The first of four stages keeps four, the last one; with fewer micro-batches, as many as there are."""
    decoder, layout = llama(num_layers=8), ParallelLayout(pp=4)
    stages = [
        stage_of(decoder, torch.float32, layout, place=Coordinate(pp_rank, 0, 0)) for pp_rank in range(4)
    ]

    def activations(stage: Stage, num_micros: int) -> int:
        load = Load(num_micros=num_micros, num_tokens=1000, num_logits=10)
        return training(stage, load, recompute=False).activations_bytes

    kept = stages[1].kept_bytes(1000, recompute=False)
    for pp_rank in (1, 2):
        found = [activations(stages[pp_rank], n) for n in (1, 2, 3, 4)]
        steps = [b - a for a, b in zip(found, found[1:])]
        sent = 2 * stages[1].hidden_bytes(1000)
        assert steps == [kept if n < 4 - pp_rank else sent for n in (1, 2, 3)]


QUICK = torch.bfloat16 if has_bf16_products() else torch.float32
"""The type that this CPU is quick with: elsewhere these calls take minutes."""
ALONE_KINDS = [
    *(("activations", QUICK, kind) for kind in ("train", "recompute", "inference")),
    ("sequences", QUICK, "generate"),
    *(("vocabulary", QUICK, kind) for kind in ("train", "inference", "generate")),
    *(("long vocabulary", QUICK, kind) for kind in ("train", "inference")),
    ("activations", torch.float32, "train"),
    ("sequences", torch.float32, "generate"),
]
JOINED_KINDS = [
    *(("activations", QUICK, kind) for kind in ("train", "recompute")),
    ("sequences", QUICK, "generate"),
    ("vocabulary", QUICK, "inference"),
]


@pytest.mark.slow
@pytest.mark.parametrize("layouts", [("p1d1t1",), ("p2d1t1", "p1d2t1", "p1d1t2")], ids=["one", "two"])
def test_processes_take_what_is_predicted(layouts, monkeypatch):
    """Each kind of call, in fresh processes that give back what they free at once."""
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")
    run_world(_check_layouts, 1 if layouts == ("p1d1t1",) else 2, layouts, start="spawn")


def _check_layouts(rank: int, names: tuple[str, ...]) -> None:
    every = [ParallelLayout(), ParallelLayout(pp=2), ParallelLayout(dp=2), ParallelLayout(tp=2)]
    placed = [Placement(DeviceMesh(tuple(range(x.size))), x) for x in every if str(x) in names]
    groups = create_groups(placed, rank)
    for placement in placed:
        check_calls(ALONE_KINDS if len(names) == 1 else JOINED_KINDS, groups[placement], "cpu")
