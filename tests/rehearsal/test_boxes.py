"""Boxes' CUDA kernels, run on the CPU, against plain PyTorch indexing."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from realrl.ops import box_copies as ops
from realrl.ops.box_copies import Boxes
from tests.ops.random_boxes import (
    BLENDABLE,
    FLOATS,
    blended,
    clone,
    expected_message,
    expected_regions,
    random_tensor,
    regions_in_a_message,
    same,
    same_messages,
)
from tests.rehearsal.device import ORDERS
from tests.rehearsal.rehearse import in_every_order, rehearsing

ETAS = st.sampled_from([1.0, 0.0, 0.1, 0.995])


def random_message(num_bytes, seed=0):
    return torch.randint(
        0, 256, (num_bytes,), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8
    )


@settings(max_examples=40, deadline=None)
@given(
    case=regions_in_a_message(BLENDABLE),
    seed=st.integers(0, 1 << 16),
    eta=ETAS,
    order=st.sampled_from(ORDERS),
)
def test_there_and_back_is_indexing(library, case, seed, eta, order):
    """Any ranks, strides, casts and order of places; what lies between them stays, and is summed."""
    (regions, *places), num_bytes = case[:-1], case[-1]
    before = random_message(num_bytes, seed)
    with rehearsing(library, order):
        sources, received = ([clone(region) for region in regions] for _ in range(2))
        message, incoming, totals = before.clone(), before.clone(), torch.zeros(2, 1, dtype=torch.int64)
        ops.pack(Boxes(sources, *places), message, totals[0])
        ops.unpack(Boxes(received, *places), incoming, totals[1], eta=eta)
    assert same_messages(regions, *places, message, expected_message(regions, *places, before))
    assert totals.flatten().tolist() == [ops.checksum(message), ops.checksum(before)]
    assert torch.equal(incoming, before)
    for got, wanted in zip(received, expected_regions(regions, *places, before, eta)):
        assert same(got, wanted)


@pytest.mark.parametrize("eta", [1.0, 0.3])
@pytest.mark.parametrize("source", BLENDABLE, ids=str)
def test_copies_between_all_dtypes(library, source, eta):
    """Rows of whole vectors and others, longer and shorter than a warp's share, by several blocks."""
    targets = FLOATS if source in FLOATS else [source]
    shapes = [(9, 40), (40, 9), (1, 3000), (700, 4), (3, 1), (0, 5)]
    sources = [random_tensor(shape, source, seed=1) for shape in shapes for _ in targets]
    olds = [random_tensor(shape, target, seed=2) for shape in shapes for target in targets]

    def run(*tensors):
        ours, theirs = tensors[: len(sources)], tensors[len(sources) :]
        ops.copy(ours, theirs, eta=eta)
        return theirs

    found = in_every_order(library, run, *sources, *olds, processors=2)
    for got, incoming, old in zip(found, sources, olds):
        assert same(got, blended(incoming, old, eta))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.float32, torch.complex128], ids=str)
@pytest.mark.parametrize(("columns", "start"), [(1, 0), (7, 3), (64, 16), (501, 7), (1030, 2)])
def test_columns_of_any_width(library, dtype, columns, start):
    """Vectors of every width that an address allows, there and back; the other columns stay."""
    rows = 12_000 // (columns * dtype.itemsize) + 1
    whole = random_tensor([rows, start + columns + 3], dtype, seed=columns)
    num_bytes = -(-rows * columns * dtype.itemsize // 64) * 64

    def run(whole):
        message, total = torch.zeros(num_bytes, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64)
        received = torch.zeros_like(whole)
        ops.pack(Boxes([whole[:, start : start + columns]], [0], [dtype]), message, total)
        ops.unpack(Boxes([received[:, start : start + columns]], [0], [dtype]), message)
        return message, total, received

    message, total, received = in_every_order(library, run, whole)
    expected = torch.zeros_like(whole)
    expected[:, start : start + columns] = whole[:, start : start + columns]
    assert same(received, expected)
    assert total.item() == ops.checksum(message)


def test_regions_may_share_a_place(library):
    """One place of the message is written to several regions, and its sum is the message's."""

    def run(message):
        regions, total = [torch.zeros(100) for _ in range(3)], torch.zeros(1, dtype=torch.int64)
        ops.unpack(Boxes(regions, [0, 64, 64], [torch.float32] * 3), message, total)
        return *regions, total

    message = torch.randn(128).view(torch.uint8)
    *regions, total = in_every_order(library, run, message)
    for region, begin in zip(regions, (0, 64, 64)):
        assert torch.equal(region, message[begin : begin + 400].clone().view(torch.float32))
    assert total.item() == ops.checksum(message)


@pytest.mark.parametrize("num_bytes", [0, 8, 4096, 30_000])
@pytest.mark.parametrize("processors", [1, 3])
@pytest.mark.parametrize("move", [ops.pack, ops.unpack])
def test_a_message_is_added_up(library, num_bytes, processors, move):
    """By one block and by several; nothing is nothing."""

    def run(message):
        total = torch.full((1,), 7, dtype=torch.int64)
        move(Boxes([], [], []), message, total)
        return [total]

    message = random_message(num_bytes)
    (total,) = in_every_order(library, run, message, processors=processors)
    assert total.item() == ops.checksum(message)
