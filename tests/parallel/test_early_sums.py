"""Sums over data-parallel ranks while the last backward pass runs, against one sum at the end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from realrl.api.mesh import DeviceMesh, ParallelLayout, Placement
from realrl.engines.decoder_engine import DecoderEngine
from realrl.engines.options import EngineOptions
from realrl.models.registry import read_decoder_config
from realrl.parallel import early_sums
from realrl.parallel.groups import Groups, create_groups
from tests.engines.test_engine import ADAMW, own_batch
from tests.tiny import tiny_llama
from tests.world import run_world

LAYOUTS = [
    (ParallelLayout(dp=2), {}),
    (ParallelLayout(dp=3), {}),
    (ParallelLayout(dp=2), {"offload": True}),
    (ParallelLayout(pp=2, dp=2), {}),
    (ParallelLayout(pp=2, dp=2, vp=2), {}),
    (ParallelLayout(tp=2, dp=2), {}),
]


@given(sizes=st.lists(st.tuples(st.integers(1, 40), st.booleans()), min_size=1), most=st.integers(1, 60))
def test_parts_and_gaps_are_the_whole_buffer(sizes, most):
    """Each tensor is in one of them; a part has neighbours alone, as few as are large enough."""
    spans, early, position = {}, set(), 0
    for index, (size, is_early) in enumerate(sizes):
        spans[str(index)] = position, position + size
        position += size
        if is_early:
            early.add(str(index))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(early_sums, "PART", most)
        parts = early_sums.early_parts(spans, early)
    others = early_sums.gaps(parts, position + 3)
    covered = sorted([(part.start, part.stop) for part in parts] + others)
    assert [start for start, _ in covered] == [0, *(stop for _, stop in covered[:-1])]
    assert covered[-1][1] == position + 3
    assert [part.stop for part in parts] == sorted((part.stop for part in parts), reverse=True)
    assert sorted(start for part in parts for start in part.tensors) == sorted(spans[n][0] for n in early)
    for part in parts:
        assert part.start == min(part.tensors)
        assert part.stop - spans_from(spans, part.start) < most or len(part.tensors) == 1


def spans_from(spans: dict, start: int) -> int:
    """Where the tensor at `start` ends."""
    return next(stop for first, stop in spans.values() if first == start)


def test_weights_are_those_of_one_sum_at_the_end(tmp_path):
    """Several micro-batches, fewer on one rank; clipped, skipped and discarded steps among the others."""
    own_head = tiny_llama(tmp_path / "own head", layers=4, tie=False)
    tied_head_and_shared_kv_head = tiny_llama(tmp_path / "tied head", layers=4, kv_heads=1)
    run_world(_check_layouts, 4, [own_head, tied_head_and_shared_kv_head])


def _check_layouts(rank: int, models: list[Path]) -> None:
    early_sums.PART = 3000  # Some matrices, so that there are several parts.
    placements = [Placement(DeviceMesh(tuple(range(layout.size))), layout) for layout, _ in LAYOUTS]
    groups = create_groups(placements, rank)
    for placement, (_, optimizer) in zip(placements, LAYOUTS):
        for model in models:
            if rank in placement.ranks:
                _check(model, groups[placement], **optimizer)


def _check(model: Path, groups: Groups, **optimizer) -> None:
    engines = [_engine(model, groups, sum_early, **optimizer) for sum_early in (False, True)]
    calls = [_outcomes(engine) for engine in engines]
    assert calls[0] == pytest.approx(calls[1], rel=1e-5, nan_ok=True)
    plain, early = (engine.weights.flat.buffer for engine in engines)
    torch.testing.assert_close(early, plain, rtol=1e-6, atol=1e-6)


def _engine(model: Path, groups: Groups, sum_early: bool, **optimizer) -> DecoderEngine:
    engine = DecoderEngine(
        read_decoder_config(model),
        "lm",
        groups,
        EngineOptions(
            dtype=torch.float32,
            device="cpu",
            max_tokens_per_microbatch=20,
            sequence_pieces=2 if groups.tp is not None else 0,
            add_products=True,
            sum_early=sum_early,
            optimizer=replace(ADAMW, **optimizer),
        ),
    )
    engine.load(model)
    return engine


def _outcomes(engine: DecoderEngine) -> list[float]:
    """The norms of some steps; each must change the weights, or leave every bit."""
    steps = [
        (1.0, True, True),
        (1e-3, False, False),
        (1e-2, True, True),
        (float("inf"), True, False),
        (1e-3, True, True),
    ]
    norms = []
    for scale, is_accepted, changes in steps:
        before = engine.weights.flat.buffer.clone()
        norms.append(_train(engine, scale, is_accepted))
        assert torch.equal(before, engine.weights.flat.buffer) != changes
        assert not engine.training.optimizer.gradients.any()
    assert norms[0] > ADAMW.clip_grad_norm
    return norms


def _train(engine: DecoderEngine, scale: float, is_accepted: bool) -> float:
    """The gradient's norm; NaN where there was no update."""
    early = engine.training.optimizer._early

    def loss(logprobs: Tensor, micro) -> tuple[Tensor, dict]:
        return -scale * logprobs.sum(), {}

    def accept() -> bool:
        """Asked after the backward passes: all that may be is on its way by then."""
        assert early is None or early._num_sent == len(early._parts) > 1
        return is_accepted

    batch = own_batch(engine.groups)
    found = engine.train_logprobs(batch, loss, lr=ADAMW.lr, temperature=1.0, accept=accept)
    return found["grad_norm"].total if "grad_norm" in found else float("nan")
