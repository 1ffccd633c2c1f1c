"""Ranges of a tensor's elements as boxes."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from realrl.layouts.boxes import boxes_of_range


@given(st.lists(st.integers(1, 5), max_size=4), st.data())
def test_the_boxes_of_a_range_are_its_elements_in_order(shape, data):
    """End to end they are the range, and a matrix needs at most three."""
    size = math.prod(shape)
    start = data.draw(st.integers(0, size))
    stop = data.draw(st.integers(start, size))
    elements = torch.arange(size).view(shape)
    boxes = list(boxes_of_range(tuple(shape), start, stop))
    found = [elements[tuple(slice(o, o + n) for o, n in zip(*box))].flatten().tolist() for box in boxes]
    assert sum(found, []) == list(range(start, stop))
    assert all(found) and len(boxes) <= max(1, 2 * len(shape) - 1)
