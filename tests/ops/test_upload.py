"""Tensors in one message, and as they were after it."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from realrl.ops.upload import packed, unpacked, upload

TYPES = [torch.int64, torch.int32, torch.float32, torch.bfloat16, torch.bool, torch.uint8, torch.float64]
SHAPES = st.lists(st.integers(0, 5), min_size=0, max_size=3)


@given(st.lists(st.tuples(st.sampled_from(TYPES), SHAPES), max_size=8))
def test_a_message_gives_back_what_was_put_in(kinds):
    """Whatever the types and the shapes: empty tensors, numbers, and sizes that no alignment divides."""
    tensors = [(100 * torch.rand(shape)).to(dtype) for dtype, shape in kinds]
    found = unpacked(packed(tensors), tensors)
    for tensor, copy in zip(tensors, found, strict=True):
        assert copy.dtype == tensor.dtype and torch.equal(copy, tensor)


def test_a_column_of_a_matrix_is_laid_out_anew():
    column = torch.arange(12).view(4, 3)[:, 1]
    (found,) = unpacked(packed([column]), [column])
    assert torch.equal(found, column)


def test_what_is_there_is_not_copied():
    tensor = torch.arange(3)
    assert upload([tensor], "cpu")[0] is tensor
