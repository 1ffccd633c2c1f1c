"""What kernels need of segments, against loops over them."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from realrl.ops.segments import Segments


@st.composite
def segments(draw) -> Segments:
    """Some segments, empty ones among them, of which some see an earlier one."""
    lengths = draw(st.lists(st.integers(0, 5), max_size=9))
    prefix: list[int] = []
    for _ in lengths:
        roots = [i for i, seen in enumerate(prefix) if seen == -1]
        prefix.append(draw(st.sampled_from([-1, *roots])))
    bounds = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    return Segments(bounds, torch.tensor(prefix, dtype=torch.int32))


def runs(tokens: torch.Tensor, starts: torch.Tensor) -> list[list[int]]:
    ends = starts.tolist()
    return [tokens[a:b].tolist() for a, b in zip(ends, ends[1:])]


@settings(max_examples=200, deadline=None)
@given(segments())
def test_tokens_that_see_a_prefix_are_one_sequence_with_it(found):
    bounds = found.bounds()
    expected: dict[int, list[int]] = {}
    for first, end, prefix in bounds:
        if prefix >= 0 and end > first and bounds[prefix][1] > bounds[prefix][0]:
            expected.setdefault(prefix, []).extend(range(first, end))
    index = found.on("cpu").prefixed
    assert (index is None) == (not expected)
    if index is None:
        return
    order = sorted(expected)
    assert runs(index.tokens, index.bounds.queries) == [expected[prefix] for prefix in order]
    assert runs(index.prefix_tokens, index.bounds.keys) == [[*range(*bounds[p][:2])] for p in order]
    assert index.bounds.longest_queries == max(map(len, expected.values()))
    assert index.bounds.longest_keys == max(bounds[p][1] - bounds[p][0] for p in order)


@settings(max_examples=100, deadline=None)
@given(segments())
def test_positions_and_bounds(found):
    bounds = found.bounds()
    positions = []
    for first, end, prefix in bounds:
        before = bounds[prefix][1] - bounds[prefix][0] if prefix >= 0 else 0
        positions += range(before, before + end - first)
    index = found.on("cpu")
    assert index.positions.tolist() == positions
    assert torch.equal(index.own.queries, found.cu_seqlens)
    assert index.own.longest_queries == max((end - first for first, end, _ in bounds), default=0)


def test_an_index_is_made_once_for_a_device():
    found = Segments.of_sequences(torch.tensor([0, 3, 5], dtype=torch.int32))
    assert found.on("cpu") is found.on(torch.device("cpu"))
