"""What generation says of its tokens against what training says of them: near, or the same bits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from realrl.api.batch import PackedBatch, Sample, pack
from realrl.api.config import GenerationConfig
from realrl.api.mesh import DeviceMesh, ParallelLayout, Placement
from realrl.engines.decoder_engine import DecoderEngine
from realrl.engines.options import EngineOptions
from realrl.models.registry import read_decoder_config
from realrl.parallel.groups import Groups, create_groups, local_groups
from tests.models.families import ONE_EACH, tiny_model
from tests.world import run_world

ALONE = Placement(DeviceMesh((0,)), ParallelLayout())
CONFIG = GenerationConfig(max_new_tokens=30, temperature=0.8, max_sequences=5)
LENGTHS = [3, 70, 64, 1]
GROUP = 3


def loaded(model: Path, groups: Groups, dtype: torch.dtype, **options) -> DecoderEngine:
    engine = DecoderEngine(
        read_decoder_config(model),
        "lm",
        groups,
        EngineOptions(dtype=dtype, device="cpu", max_tokens_per_microbatch=200, **options),
    )
    engine.load(model)
    return engine


def prompts(groups: Groups | None = None) -> PackedBatch:
    """Three samples of each of four prompts, or a data-parallel rank's share of them."""
    generator = torch.Generator().manual_seed(0)
    ids = [torch.randint(3, 60, (n,), generator=generator) for n in LENGTHS]
    dp_rank, dp = (groups.place.dp_rank, groups.placement.layout.dp) if groups else (0, 1)
    rows = [i for i in range(len(LENGTHS)) for _ in range(GROUP)]
    samples = [Sample(i, row) for i, row in enumerate(rows) if row % dp == dp_rank]
    return pack(samples, {"prompts": [ids[sample.row] for sample in samples]})


@pytest.mark.parametrize("row", ONE_EACH)
def test_float32_agrees_to_1e_5(row, tmp_path):
    """Log-probabilities and raw ones, through another batch, a cache and shared prompts."""
    engine = loaded(tiny_model(tmp_path, row), local_groups(ALONE), torch.float32)
    rollout = engine.generate(prompts(), CONFIG, seed=3, step=1)
    for key, temperature in (("logprobs", 0.8), ("raw_logprobs", 1.0)):
        found = engine.logprobs(rollout, temperature=temperature)
        torch.testing.assert_close(found, rollout[key], rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("row", ONE_EACH)
def test_deterministic_arithmetic_agrees_exactly(row, dtype, tmp_path):
    """In any type, and whichever prompts are shared and samples packed together."""
    model = tiny_model(tmp_path, row)
    engine = loaded(model, local_groups(ALONE), dtype, deterministic=True)
    rollout = engine.generate(prompts(), CONFIG, seed=3, step=1)
    assert len(rollout["logprobs"].unique()) > 50
    unshared = loaded(model, local_groups(ALONE), dtype, deterministic=True, share_prompts=False)
    for other in (engine, unshared):
        assert torch.equal(other.logprobs(rollout, temperature=0.8), rollout["logprobs"])
        assert torch.equal(other.logprobs(rollout, temperature=1.0), rollout["raw_logprobs"])
    some = [7, 2, 4]
    alone = engine.logprobs(rollout.select(some), temperature=0.8)
    assert torch.equal(alone, rollout.select(some)["logprobs"])


@pytest.mark.slow
def test_deterministic_layouts_of_one_tp_agree_exactly(tmp_path):
    """Generated on one layout, scored on another, as a run does it."""
    run_world(_check_layouts, 4, tiny_model(tmp_path, "qwen2"))


PAIRS = [
    (ParallelLayout(dp=4), ParallelLayout(pp=4)),
    (ParallelLayout(dp=2, tp=2), ParallelLayout(pp=2, tp=2)),
    (ParallelLayout(pp=2, dp=2), ParallelLayout(dp=4)),
]


def _check_layouts(rank: int, model: Path) -> None:
    placed = {x: Placement(DeviceMesh(tuple(range(4))), x) for pair in PAIRS for x in pair}
    groups = create_groups(placed.values(), rank)
    for generating, scoring in PAIRS:
        source, target = groups[placed[generating]], groups[placed[scoring]]
        engine = loaded(model, source, torch.bfloat16, deterministic=True)
        whole = gathered(engine.generate(prompts(source), CONFIG, seed=3, step=1))
        mine = [i for i in range(len(whole)) if i % scoring.dp == target.place.dp_rank]
        rollout = whole.select(mine)
        found = loaded(model, target, torch.bfloat16, deterministic=True).logprobs(rollout, temperature=0.8)
        assert found is None or torch.equal(found, rollout["logprobs"])


def gathered(batch: PackedBatch) -> PackedBatch:
    """The samples of all ranks, each once."""
    batches: list[PackedBatch] = [batch] * dist.get_world_size()
    dist.all_gather_object(batches, batch)
    found = {sample: one.select([i]) for one in batches for i, sample in enumerate(one.samples)}
    keys = ("input_ids", "loss_mask", "logprobs")
    ones = [found[sample] for sample in sorted(found, key=lambda sample: sample.id)]
    return pack([one.samples[0] for one in ones], {key: [one[key] for one in ones] for key in keys})
