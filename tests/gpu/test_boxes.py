"""Boxes' CUDA kernels against plain PyTorch indexing and the CPU's checksum."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from realrl.ops import box_copies as ops
from realrl.ops import kernels
from realrl.ops.box_copies import Boxes
from tests.ops.random_boxes import (
    BLENDABLE,
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
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

ETAS = st.sampled_from([0.0, 0.1, 0.5, 0.995])


def test_cuda_kernel_is_built():
    """Without it `pack` would be the twin, and the tests below would compare the twin with itself."""
    assert kernels.for_device(torch.device("cuda")) is not None


def on_device(region):
    """The same elements with the same strides."""
    return torch.empty_strided(region.shape, region.stride(), dtype=region.dtype, device="cuda").copy_(region)


def random_message(num_bytes, seed=0):
    return torch.randint(
        0, 256, (num_bytes,), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8
    )


def empty_checksum():
    return torch.full((1,), 7, dtype=torch.int64, device="cuda")


@pytest.mark.parametrize("pack", [ops.pack, ops.pack_reference])
@settings(max_examples=100, deadline=None)
@given(case=regions_in_a_message(), seed=st.integers(0, 1 << 16))
def test_pack_is_indexing(pack, case, seed):
    """Any ranks, strides, dtypes, casts and order; what lies between the regions stays, and is summed."""
    (regions, *places), num_bytes = case[:-1], case[-1]
    before = random_message(num_bytes, seed)
    message, total = before.cuda(), empty_checksum()
    pack(Boxes([on_device(region) for region in regions], *places), message, total)
    assert same_messages(regions, *places, message.cpu(), expected_message(regions, *places, before))
    assert total.item() == ops.checksum(message.cpu())


@pytest.mark.parametrize("unpack", [ops.unpack, ops.unpack_reference])
@settings(max_examples=100, deadline=None)
@given(case=regions_in_a_message(BLENDABLE), seed=st.integers(0, 1 << 16), eta=st.one_of(st.just(1.0), ETAS))
def test_unpack_is_indexing(unpack, case, seed, eta):
    """Any bits in the message arrive as they are, cast, or blended."""
    (regions, *places), num_bytes = case[:-1], case[-1]
    message, total = random_message(num_bytes, seed), empty_checksum()
    received = [on_device(region) for region in regions]
    unpack(Boxes(received, *places), message.cuda(), total, eta=eta)
    expected = expected_regions(regions, *places, message, eta)
    assert all(same(got.cpu(), wanted) for got, wanted in zip(received, expected))
    assert total.item() == ops.checksum(message)


@settings(max_examples=50, deadline=None)
@any_columns
def test_columns_of_any_width(dtype, columns, start, num_bytes):
    """Vectors of every width, rows longer and shorter than a warp's share, there and back."""
    check_columns(dtype, columns, start, num_bytes, "cuda")


@pytest.mark.parametrize("eta", [1.0, 0.3])
@pytest.mark.parametrize("dtype", BLENDABLE)
def test_copy_is_indexing(dtype, eta):
    """Many pairs of different strides by one launch."""
    sources = [random_tensor([i, 37], dtype, seed=i) for i in range(50)]
    targets = [random_tensor([37, i], dtype, seed=99).t() for i in range(50)]
    received = [on_device(target) for target in targets]
    ops.copy([source.cuda() for source in sources], received, eta=eta)
    for source, target, got in zip(sources, targets, received):
        assert same(got.cpu(), blended(source, clone(target), eta))


def test_another_stream():
    """The kernels run on the stream that is current, and the table serves every stream."""
    boxes = Boxes([torch.arange(1 << 16, device="cuda").float()], [0], [torch.bfloat16])
    message, total = torch.zeros(1 << 17, dtype=torch.uint8, device="cuda"), empty_checksum()
    expected = torch.arange(1 << 16).bfloat16().view(torch.uint8)
    for stream in (torch.cuda.Stream(), torch.cuda.Stream()):
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            torch.cuda._sleep(10_000_000)
            message.zero_()
            ops.pack(boxes, message, total)
        stream.synchronize()
        assert torch.equal(message.cpu(), expected)
        assert total.item() == ops.checksum(expected)
