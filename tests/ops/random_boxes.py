"""Random regions and messages, and what becomes of them by plain PyTorch indexing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from realrl.ops import box_copies as ops
from realrl.ops.box_copies import Boxes

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
BLENDABLE = (*FLOATS, torch.float64)
DTYPES = (*BLENDABLE, torch.bool, torch.uint8, torch.int16, torch.int64, torch.complex64, torch.complex128)
ALIGNMENT = 64


@st.composite
def strided(draw, dtype: torch.dtype, *, max_rank: int = 4, max_length: int = 5) -> Tensor:
    """A slice of a tensor with its dimensions in any order."""
    rank = draw(st.integers(0, max_rank))
    slices, lengths = [], []
    for _ in range(rank):
        start, step = draw(st.integers(0, 2)), draw(st.integers(1, 2))
        stop = start + step * draw(st.integers(0, max_length))
        slices.append(slice(start, stop, step))
        lengths.append(stop + draw(st.integers(0, 1)))
    whole = random_tensor(lengths, dtype, seed=draw(st.integers(0, 1 << 16)))
    return whole[tuple(slices)].permute(draw(st.permutations(range(rank))))


def random_tensor(shape: Sequence[int], dtype: torch.dtype, *, seed: int) -> Tensor:
    """Any bits for what is only copied; for floats, values that overflow or vanish in smaller dtypes too."""
    generator = torch.Generator().manual_seed(seed)
    if dtype == torch.bool:
        return torch.rand(shape, generator=generator) < 0.5
    if dtype in BLENDABLE:
        exponents = torch.randint(-45, 20, tuple(shape), generator=generator).double()
        signed = torch.randn(tuple(shape), generator=generator, dtype=torch.float64)
        values = (signed * torch.exp2(exponents)).to(dtype)
        return torch.where(torch.rand(tuple(shape), generator=generator) < 0.02, torch.nan, values).to(dtype)
    num_bytes = math.prod(shape) * dtype.itemsize
    raw = torch.randint(0, 256, (num_bytes,), generator=generator, dtype=torch.uint8)
    return raw.view(dtype).view(tuple(shape))


@st.composite
def regions_in_a_message(draw, dtypes: Sequence[torch.dtype] = DTYPES):
    """Regions, their begins, their wire dtypes, and the message's length; gaps between and after them."""
    regions, begins, wires, end = [], [], [], 0
    for dtype in draw(st.lists(st.sampled_from(dtypes), max_size=6)):
        region = draw(strided(dtype))
        wire = draw(st.sampled_from(FLOATS)) if dtype in FLOATS else dtype
        begins.append(end + ALIGNMENT * draw(st.integers(0, 2)))
        end = aligned(begins[-1] + region.numel() * wire.itemsize)
        regions.append(region)
        wires.append(wire)
    order = draw(st.permutations(range(len(regions))))
    shuffled = ([column[i] for i in order] for column in (regions, begins, wires))
    return *shuffled, end + ALIGNMENT * draw(st.integers(0, 2))


def aligned(num_bytes: int) -> int:
    return math.ceil(num_bytes / ALIGNMENT) * ALIGNMENT


def clone(region: Tensor) -> Tensor:
    """Its elements in memory of their own, with the same strides."""
    copied = torch.empty_strided(region.shape, region.stride(), dtype=region.dtype, device=region.device)
    return copied.copy_(region)


def bytes_of(tensor: Tensor) -> list[int]:
    dense = torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor)
    return dense.view(-1).view(torch.uint8).tolist()


def expected_message(regions, begins, wires, message: Tensor) -> Tensor:
    """The message once the regions are packed into it, element by element."""
    message = message.clone()
    for region, begin, wire in zip(regions, begins, wires):
        for i, element in enumerate(region.flatten()):
            place = begin + i * wire.itemsize
            message[place : place + wire.itemsize] = torch.tensor(bytes_of(element.to(wire)))
    return message


def expected_regions(regions, begins, wires, message: Tensor, eta: float) -> list[Tensor]:
    """The regions once they have received the message, element by element."""
    received = []
    for region, begin, wire in zip(regions, begins, wires):
        elements = [message[begin + i * wire.itemsize :][: wire.itemsize] for i in range(region.numel())]
        incoming = [element.clone().view(wire)[0] for element in elements]
        flat = torch.stack(incoming) if incoming else torch.empty(0, dtype=wire)
        received.append(blended(flat.view(region.shape), region, eta))
    return received


def blended(incoming: Tensor, region: Tensor, eta: float) -> Tensor:
    if eta == 1:
        return incoming.to(region.dtype)
    wide = torch.float64 if region.dtype == torch.float64 else torch.float32
    weight, rest = torch.tensor(eta, dtype=wide), torch.tensor(1 - eta, dtype=wide)
    return (weight * incoming.to(wide) + rest * region.to(wide)).to(region.dtype)


def same(got: Tensor, expected: Tensor) -> bool:
    """Bit for bit, but that a NaN may be any NaN."""
    if got.dtype != expected.dtype or got.shape != expected.shape:
        return False
    if not got.dtype.is_floating_point:
        return bytes_of(got) == bytes_of(expected)
    nan = got.isnan()
    numbers = [x.masked_fill(nan, 0) for x in (got, expected)]
    return torch.equal(nan, expected.isnan()) and bytes_of(numbers[0]) == bytes_of(numbers[1])


def same_messages(regions, begins, wires, got: Tensor, expected: Tensor) -> bool:
    """Region by region, and the gaps between them."""
    gaps = torch.ones(len(got), dtype=torch.bool)
    for region, begin, wire in zip(regions, begins, wires):
        place = slice(begin, begin + region.numel() * wire.itemsize)
        gaps[place] = False
        if not same(got[place].clone().view(wire), expected[place].clone().view(wire)):
            return False
    return torch.equal(got[gaps], expected[gaps])


def any_columns(test):
    """Rows from a byte to megabytes, at any alignment."""
    test = example(dtype=torch.uint8, columns=1501, start=7, num_bytes=600_000)(test)
    test = example(dtype=torch.float32, columns=4999, start=5, num_bytes=4_000_000)(test)
    return given(
        dtype=st.sampled_from([torch.uint8, torch.int16, torch.float32, torch.complex128]),
        columns=st.integers(1, 5000),
        start=st.integers(0, 70),
        num_bytes=st.integers(1, 600_000),
    )(test)


def check_columns(dtype: torch.dtype, columns: int, start: int, num_bytes: int, device: str) -> None:
    """Some columns of a matrix there and back: every byte, and what else is in the matrix stays."""
    rows = max(num_bytes // (columns * dtype.itemsize), 1)
    whole = random_tensor([rows, start + columns + 3], dtype, seed=columns)
    region = whole[:, start : start + columns]
    message = torch.zeros(-(-region.nbytes // ALIGNMENT) * ALIGNMENT, dtype=torch.uint8, device=device)
    totals = torch.full((2, 1), 7, dtype=torch.int64, device=device)
    ops.pack(Boxes([whole.to(device)[:, start : start + columns]], [0], [dtype]), message, totals[0])
    assert torch.equal(message[: region.nbytes].cpu(), region.contiguous().view(-1).view(torch.uint8))
    received, expected = torch.zeros_like(whole, device=device), torch.zeros_like(whole)
    ops.unpack(Boxes([received[:, start : start + columns]], [0], [dtype]), message, totals[1])
    expected[:, start : start + columns] = region
    assert same(received.cpu(), expected)
    assert totals.flatten().tolist() == [ops.checksum(message.cpu())] * 2
