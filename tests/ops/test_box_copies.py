"""Boxes' kernels and their twins against plain PyTorch indexing."""

from __future__ import annotations

import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from realrl.ops import box_copies as ops
from realrl.ops import kernels
from realrl.ops.box_copies import Boxes
from tests.ops.random_boxes import (
    BLENDABLE,
    DTYPES,
    FLOATS,
    any_columns,
    blended,
    check_columns,
    clone,
    expected_message,
    expected_regions,
    random_tensor,
    regions_in_a_message,
    same,
    same_messages,
    strided,
)

PACKS = [ops.pack, ops.pack_reference]
UNPACKS = [ops.unpack, ops.unpack_reference]
COPIES = [ops.copy, ops.copy_reference]
ETAS = st.sampled_from([0.0, 0.1, 0.5, 0.995])


def test_cpu_kernel_is_built():
    """Without it `pack` would be the twin, and the tests below would compare the twin with itself."""
    assert kernels.for_device(torch.device("cpu")) is not None


def empty_checksum():
    return torch.zeros(1, dtype=torch.int64)


def checksum_loop(message):
    """The definition, in Python's integers."""
    raw = bytes(message.tolist())
    words = [int.from_bytes(raw[i : i + 8], "little") for i in range(0, len(raw), 8)]
    return sum((2 * i + 1) * word for i, word in enumerate(words)) % (1 << 64)


def random_message(num_bytes, seed=0):
    return torch.randint(
        0, 256, (num_bytes,), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8
    )


@settings(max_examples=100, deadline=None)
@given(case=regions_in_a_message(), seed=st.integers(0, 1 << 16))
def test_pack_is_indexing(case, seed):
    """Any ranks, strides, dtypes, casts and order; what lies between the regions stays, and is summed."""
    *table, num_bytes = case
    before = random_message(num_bytes, seed)
    expected = expected_message(*table, before)
    for pack in PACKS:
        message, total = before.clone(), empty_checksum()
        pack(Boxes(*table), message, total)
        assert same_messages(*table, message, expected)
        assert total.item() % (1 << 64) == checksum_loop(message)


@settings(max_examples=100, deadline=None)
@given(case=regions_in_a_message(), seed=st.integers(0, 1 << 16))
def test_unpack_is_indexing(case, seed):
    """Any bits in the message arrive as they are, or cast."""
    check_unpack(case, seed, eta=1.0)


@settings(max_examples=100, deadline=None)
@given(case=regions_in_a_message(BLENDABLE), seed=st.integers(0, 1 << 16), eta=ETAS)
def test_unpack_blends(case, seed, eta):
    """Two products and their sum in float32, each rounded, as PyTorch does it."""
    check_unpack(case, seed, eta)


def check_unpack(case, seed, eta):
    *table, num_bytes = case
    message = random_message(num_bytes, seed)
    for begin, wire, region in zip(table[1], table[2], table[0]):
        if wire == torch.bool:
            message[begin : begin + region.numel()] &= 1
    expected = expected_regions(*table, message, eta)
    for unpack in UNPACKS:
        regions, total, read = [clone(region) for region in table[0]], empty_checksum(), message.clone()
        unpack(Boxes(regions, *table[1:]), read, total, eta=eta)
        assert all(same(got, wanted) for got, wanted in zip(regions, expected))
        assert torch.equal(read, message)
        assert total.item() % (1 << 64) == checksum_loop(message)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), eta=st.one_of(st.just(1.0), ETAS))
def test_copy_is_indexing(data, eta):
    """Strides, and dtypes among those that can be cast, differ between source and target."""
    sources, targets = [], []
    for dtype in data.draw(st.lists(st.sampled_from(DTYPES if eta == 1 else BLENDABLE), max_size=5)):
        sources.append(data.draw(strided(dtype)))
        other = data.draw(st.sampled_from(FLOATS)) if dtype in FLOATS else dtype
        shape = sources[-1].shape
        order = data.draw(st.permutations(range(len(shape))))
        whole = random_tensor([shape[i] for i in order], other, seed=7)
        targets.append(whole.permute([order.index(i) for i in range(len(shape))]))
    expected = [blended(source, target, eta) for source, target in zip(sources, targets)]
    for copy in COPIES:
        received = [clone(target) for target in targets]
        copy(sources, received, eta=eta)
        assert all(same(got, wanted) for got, wanted in zip(received, expected))


@settings(max_examples=25, deadline=None)
@any_columns
def test_columns_of_any_width(dtype, columns, start, num_bytes):
    """Rows shorter and longer than what is moved at a time, at any alignment; some past the caches."""
    check_columns(dtype, columns, start, num_bytes, "cpu")


@pytest.mark.parametrize("wire", [torch.bfloat16, torch.float16])
def test_every_half_is_decoded(wire):
    """All 65,536 bit patterns, by decoding them into float32."""
    message = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(torch.uint8).clone()
    decoded = torch.empty(1 << 16)
    ops.unpack(Boxes([decoded], [0], [wire]), message)
    assert same(decoded, message.view(wire).float())


@pytest.mark.parametrize("wire", [torch.bfloat16, torch.float16])
def test_encoding_rounds_to_the_nearest_and_ties_to_even(wire):
    """Every half, the midpoints between neighbours, and the floats on either side of each."""
    halves = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(wire).float()
    ordered = halves[halves.isfinite()].sort().values
    midpoints = (ordered[:-1].double() + ordered[1:].double()).div(2).float()
    infinity = torch.tensor(torch.inf)
    around = [
        x
        for y in (ordered, midpoints)
        for x in (y, torch.nextafter(y, infinity), torch.nextafter(y, -infinity))
    ]
    limits = torch.tensor([65504.0, 65519.99, 65520.0, 3.4e38, torch.inf, -torch.inf, torch.nan, 1e-45, -0.0])
    values = torch.cat([*around, limits])
    message = torch.empty(-(-len(values) * 2 // 64) * 64, dtype=torch.uint8)
    ops.pack(Boxes([values], [0], [wire]), message)
    assert same(message[: 2 * len(values)].clone().view(wire), values.to(wire))


@pytest.mark.parametrize("eta", [1.0, 0.3])
def test_threads_do_not_change_the_result(eta):
    """A message large enough for several threads is the one that a single thread packs, and so its sum."""
    regions = [random_tensor([700, 300], dtype, seed=1)[:, 5:133] for dtype in FLOATS]
    regions += [random_tensor([3, 5, 4000], torch.float64, seed=2)[:, ::2, 7:]]
    wires = [torch.bfloat16, torch.float32, torch.float32, torch.float64]
    begins = [i << 20 for i in range(4)]
    message = random_message(5 << 20)
    results = [packed_and_unpacked(n, regions, begins, wires, message, eta) for n in (1, 2, 3, 7)]
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other))


def packed_and_unpacked(num_threads, regions, begins, wires, message, eta):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(num_threads)
        packed, received = message.clone(), [torch.ones_like(region) for region in regions]
        totals = [empty_checksum(), empty_checksum()]
        ops.pack(Boxes(regions, begins, wires), packed, totals[0])
        ops.unpack(Boxes(received, begins, wires), packed, totals[1], eta=eta)
    finally:
        torch.set_num_threads(before)
    assert totals[0].item() == totals[1].item() == ops.checksum(packed)
    return [packed, *(x.nan_to_num() for x in received), *totals]


@settings(max_examples=200, deadline=None)
@given(num_words=st.integers(1, 600), seed=st.integers(0, 1 << 16), data=st.data())
def test_checksum_sees_each_flipped_bit(num_words, seed, data):
    """And is the sum that Python's integers give, by the kernel and by the twin."""
    message = random_message(8 * num_words, seed)
    totals = [kernel_checksum(message)]
    assert totals[0] % (1 << 64) == checksum_loop(message)
    assert totals[0] == ops.checksum(message)
    message[data.draw(st.integers(0, len(message) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert kernel_checksum(message) != totals[0]


def test_checksum_sees_swapped_blocks():
    """Of a message of sixteen different blocks, any two."""
    blocks = random_message(16 * 4096).view(16, 4096)
    total = kernel_checksum(blocks.view(-1))
    for a in range(16):
        for b in range(a):
            order = list(range(16))
            order[a], order[b] = b, a
            assert kernel_checksum(blocks[order].view(-1)) != total


def kernel_checksum(message):
    total = empty_checksum()
    ops.pack(Boxes([], [], []), message, total)
    return total.item()


@pytest.mark.parametrize("unpack", UNPACKS)
def test_regions_may_share_a_place(unpack):
    """One place of the message can be written to several regions, and cannot be packed from them."""
    message, total = random_message(256), empty_checksum()
    regions = [torch.zeros(4, 8), torch.zeros(4, 16, dtype=torch.float32)[:, ::2], torch.zeros(16)]
    boxes = Boxes(regions, [0, 0, 64], [torch.float32] * 3)
    unpack(boxes, message, total)
    whole = message.view(torch.float32)
    assert same(regions[0], whole[:32].view(4, 8)) and same(regions[1], whole[:32].view(4, 8))
    assert same(regions[2], whole[16:32])
    assert total.item() == ops.checksum(message)
    with pytest.raises(ValueError, match="the same place"):
        ops.pack(boxes, message)


@pytest.mark.parametrize("pack", PACKS)
def test_broadcast_regions_can_be_read(pack):
    """A dimension of stride 0 is packed as often as it is long."""
    region = torch.arange(3.0)[:, None].expand(3, 5)
    message = torch.zeros(64, dtype=torch.uint8)
    pack(Boxes([region], [0], [torch.float32]), message)
    assert torch.equal(message[:60].clone().view(torch.float32).view(3, 5), region)


def test_regions_are_kept_alive():
    """The table holds addresses only, so `Boxes` holds the tensors."""
    boxes = Boxes([torch.full((1 << 16,), 3.0)], [0], [torch.float32])
    other = [torch.zeros(1 << 16) for _ in range(8)]
    message = torch.zeros(1 << 18, dtype=torch.uint8)
    ops.pack(boxes, message)
    assert torch.equal(message.view(torch.float32), torch.full((1 << 16,), 3.0)) and len(other) == 8


@pytest.mark.quiet
def test_building_is_cheap():
    """Thousands of regions are listed in each step: a fraction of a millisecond for ten of them."""
    regions = [torch.zeros(64, 64)[:, :32] for _ in range(2000)]
    begins, wires = [8192 * i for i in range(2000)], [torch.float32] * 2000
    best = min(seconds_to_build(regions, begins, wires) for _ in range(5))
    assert best < 2000 * 100e-6


def seconds_to_build(regions, begins, wires):
    start = time.perf_counter()
    assert len(Boxes(regions, begins, wires).table) == len(regions)
    return time.perf_counter() - start


@pytest.mark.parametrize(
    ("regions", "begins", "wires", "message"),
    [
        ([torch.zeros(4)], [32], [torch.float32], "multiple of 64"),
        ([torch.zeros(4)], [-64], [torch.float32], "multiple of 64"),
        ([torch.zeros(4)], [0], [torch.float64], "cannot cast"),
        ([torch.zeros(4, dtype=torch.int64)], [0], [torch.int32], "cannot cast"),
        ([torch.zeros(4)], [0, 64], [torch.float32], "as many"),
        ([torch.zeros(4), torch.zeros(4, device="meta")], [0, 64], [torch.float32] * 2, "one device"),
        ([torch.zeros(4, dtype=torch.complex64).conj()], [0], [torch.complex64], "plain strided"),
    ],
)
def test_boxes_that_do_not_fit_are_refused(regions, begins, wires, message):
    """The kernels read and write raw memory, so nothing of a wrong place or type may reach them."""
    with pytest.raises(ValueError, match=message):
        Boxes(regions, begins, wires)


def zeros(*shape, dtype=torch.uint8):
    return torch.zeros(*shape, dtype=dtype)


@pytest.mark.parametrize(
    ("message", "total", "expected"),
    [
        (zeros(64), None, "need a message of 80 bytes"),
        (zeros(128, dtype=torch.int8), None, "contiguous torch.uint8"),
        (zeros(8, 16), None, "contiguous torch.uint8"),
        (zeros(256)[::2], None, "contiguous torch.uint8"),
        (zeros(129)[1:], None, "multiple of 8"),
        (zeros(128, dtype=torch.uint8).to("meta"), None, "the message on meta"),
        (zeros(128), zeros(1), "torch.int64 \\[1\\]"),
        (zeros(128), zeros(2, dtype=torch.int64), "torch.int64 \\[1\\]"),
    ],
)
def test_messages_that_do_not_fit_are_refused(message, total, expected):
    """Packing and unpacking alike."""
    boxes = Boxes([torch.zeros(20)], [0], [torch.float32])
    for move in (ops.pack, ops.unpack):
        with pytest.raises(ValueError, match=expected):
            move(boxes, message, total)


def test_a_checksum_is_of_whole_words():
    """Half a word has no weight."""
    with pytest.raises(AssertionError, match="whole 64-bit words"):
        ops.pack(Boxes([], [], []), zeros(68), empty_checksum())


def test_what_cannot_be_blended_is_refused():
    """Integers have no fraction, and a weight lies between 0 and 1."""
    integers = Boxes([torch.zeros(4, dtype=torch.int64)], [0], [torch.int64])
    floats = Boxes([torch.zeros(4)], [0], [torch.float32])
    with pytest.raises(ValueError, match="unless all regions are floats"):
        ops.unpack(integers, zeros(64), eta=0.5)
    with pytest.raises(ValueError, match="from 0 to 1"):
        ops.unpack(floats, zeros(64), eta=1.5)


def test_copies_that_do_not_fit_are_refused():
    """By number, shape and dtype."""
    with pytest.raises(ValueError, match="1 sources for 0 targets"):
        ops.copy([torch.zeros(4)], [])
    with pytest.raises(ValueError, match="the shapes must be equal"):
        ops.copy([torch.zeros(4)], [torch.zeros(5)])
    with pytest.raises(ValueError, match="cannot cast"):
        ops.copy([torch.zeros(4)], [torch.zeros(4, dtype=torch.int32)])


@pytest.mark.parametrize("num_bytes", [0, 64, 1 << 16, (1 << 22) + 64])
@pytest.mark.parametrize("move", [ops.pack, ops.unpack])
def test_a_message_alone_is_added_up(num_bytes, move):
    """Without regions, the message stays as it is."""
    message = torch.randint(0, 256, (num_bytes,), dtype=torch.uint8)
    found = torch.ones(1, dtype=torch.int64)
    move(Boxes([], [], []), message, found)
    assert found.item() == ops.checksum(message)
