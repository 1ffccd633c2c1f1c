"""FlexAttention's masks and scores, compiled and not: forward passes against the reference."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from torch.nn.attention.flex_attention import flex_attention

from realrl.ops import flex
from realrl.ops.attention import packed_attention_reference
from realrl.ops.segments import Segments
from tests.ops.attention_cases import Case, bounds_of, cases

SHARED = Case((150, 3, 1, 70, 0, 5, 4), (-1, 0, 0, -1, 3, 3, 0), 2, 3, 8, None, 5.0)


@pytest.fixture
def _not_compiled(monkeypatch):
    monkeypatch.setattr(flex, "_compiled", lambda: flex_attention)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=cases())
@example(case=SHARED)
@example(case=replace(SHARED, window=60))
def test_it_is_the_reference(_not_compiled, case):
    """Prefixes, windows across them, soft caps, groups of any size, sequences in several blocks."""
    if sum(case.lengths):
        check(case)


def check(case: Case) -> None:
    qkv = case.qkv()
    with torch.no_grad():
        out = flex.attention(qkv, case.num_kv_heads, case.segments, **case.rule)
        expected = packed_attention_reference(qkv, case.num_kv_heads, case.segments, **case.rule)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)


def test_it_compiles():
    """With a cap, a window and a prefix, for two shapes: on a CPU forward passes alone can be compiled."""
    case = replace(SHARED, head_dim=32, window=60)
    check(case)
    check(replace(case, lengths=(200, 3, 1, 70, 9, 5, 4)))


def test_blocks_that_nobody_sees_are_left_out():
    """Three sequences of three blocks each, the last of which has the first for its prefix."""
    segments = Segments(bounds_of([384, 384, 384]), torch.tensor([-1, -1, 0], dtype=torch.int32))
    numbers, indices = flex._blocks(segments)
    seen = [sorted(row[:n].tolist()) for n, row in zip(numbers, indices)]
    assert seen[:6] == [[0], [0, 1], [0, 1, 2], [3], [3, 4], [3, 4, 5]]
    assert seen[6:] == [[0, 1, 2, 6], [0, 1, 2, 6, 7], [0, 1, 2, 6, 7, 8]]


def test_a_host_compiles_nothing():
    assert not flex.can_run(torch.zeros(5000, 3, 16))
