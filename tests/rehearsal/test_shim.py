"""The shim's threads, barriers, shuffles, memory and numbers are CUDA's."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
import torch

from realrl.ops.draw import draw_tokens
from realrl.ops.gated import gated
from realrl.ops.logits import LogitsMap, finish, gradient_, statistics
from realrl.ops.rotary import rotate
from tests.rehearsal import build
from tests.rehearsal.calls import check_copy, check_decode, check_decode_in_float32, check_gae, check_sum
from tests.rehearsal.device import ORDERS, STREAM, DeviceMemory, Library
from tests.rehearsal.rehearse import displaced, rehearsing
from tests.rehearsal.translate import to_cpp


@pytest.fixture(scope="module")
def probes(objects, tmp_path_factory):
    """`probes(name, *arguments)` calls a function of probes.cu; tensors are passed by address."""
    folder = tmp_path_factory.mktemp("probes")
    source = Path(__file__).with_name("probes.cu")
    shim = {name: path for name, path in objects.items() if name.endswith(".cpp")}
    probe = {source.name: build.compile_cuda(folder, source.name, source.read_text())}
    library = Library(build.link(folder, shim | probe))
    library.cdll.realrl_error_string.restype = ctypes.c_char_p

    def call(name, *arguments):
        passed = [ctypes.c_void_p(x.data_ptr()) if torch.is_tensor(x) else x for x in arguments]
        code = getattr(library.cdll, name)(*passed, ctypes.c_void_p(STREAM))
        if code:
            raise RuntimeError(library.cdll.realrl_error_string(code).decode())

    call.library = library
    return call


@pytest.fixture(params=ORDERS)
def memory(request, probes):
    """In each thread order."""
    probes.library.start(request.param, 1)
    with DeviceMemory(probes.library):
        yield


def source_lane(which: int, lane: int, argument: int, width: int) -> int:
    """Which lane a shuffle reads, by the CUDA C++ Programming Guide, section 7.22."""
    first = lane - lane % width
    found = (lane - argument, lane + argument, lane ^ argument, first + argument % width)[which]
    return found if first <= found < first + width else lane


@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize(("argument", "width"), [(0, 32), (1, 32), (5, 32), (16, 32), (3, 8), (9, 8), (1, 1)])
def test_shuffles(probes, memory, which, argument, width):
    out = torch.zeros(64, dtype=torch.int32)
    probes("probe_shuffle", which, argument, width, out)
    lanes = [source_lane(which, lane, argument, width) for lane in range(32)]
    assert out.tolist() == [10 * lane for lane in lanes] + [10 * (32 + lane) for lane in lanes]


def test_votes_of_a_part_of_a_warp(probes, memory):
    out = torch.zeros(64, dtype=torch.int32)
    probes("probe_shuffle", 4, 3, 32, out)
    votes = [sum(1 << lane for lane in range(first, first + 16) if lane % 3 == 0) for first in (0, 16)]
    assert [x % (1 << 32) for x in out.tolist()] == ([votes[0]] * 16 + [votes[1]] * 16) * 2


def test_a_width_that_is_none_is_refused(probes, memory):
    with pytest.raises(RuntimeError, match="__shfl_up_sync of width 12, in .*shuffle_kernel"):
        probes("probe_shuffle", 0, 1, 12, torch.zeros(64, dtype=torch.int32))


def test_only_syncwarp_orders_a_warp(probes, memory):
    """Neither lockstep nor a shuffle does."""
    out = torch.zeros(32, dtype=torch.int32)
    probes("probe_exchange", 1, out)
    assert out.tolist() == [lane ^ 1 for lane in range(32)]
    for is_ordered in (0, 2):
        with pytest.raises(RuntimeError, match="a race|no thread has written"):
            probes("probe_exchange", is_ordered, out)


def test_dynamic_shared_memory(probes, memory):
    """As large as the launch says, and up to what the kernel's attribute allows."""
    out = torch.zeros(100)
    probes("probe_dynamic", 100, 400, 400, out)
    assert out.tolist() == [2.0 * i for i in reversed(range(100))]
    with pytest.raises(
        RuntimeError, match="a write of 4 bytes, 4 bytes past the end of shared memory of 396"
    ):
        probes("probe_dynamic", 100, 396, 400, out)
    with pytest.raises(RuntimeError, match="400 bytes of dynamic shared memory"):
        probes("probe_dynamic", 100, 400, 396, out)
    with pytest.raises(RuntimeError, match="232449 bytes"):
        probes("probe_dynamic", 100, 400, 227 * 1024 + 1, out)


def test_products_by_tensor_cores(probes, memory):
    """Rows and columns of fragments are those of the PTX ISA, section 9.7.14.5.8."""
    a, b, c = (torch.randn(shape) for shape in ((16, 16), (16, 8), (16, 8)))
    wanted = c + (a.bfloat16().float() @ b.bfloat16().float())
    groups, threads = torch.arange(32) // 4, torch.arange(32) % 4
    left = [
        a[groups + (8 if i in (2, 3, 6, 7) else 0), 2 * threads + i % 2 + (8 if i >= 4 else 0)]
        for i in range(8)
    ]
    right = [b[2 * threads + i % 2 + (8 if i >= 2 else 0), groups] for i in range(4)]
    rows = [groups + (8 if i >= 2 else 0) for i in range(4)]
    columns = [2 * threads + i % 2 for i in range(4)]
    fragments = [torch.stack(x, dim=1).bfloat16() for x in (left, right)]
    out = torch.stack([c[row, column] for row, column in zip(rows, columns)], dim=1)
    probes("probe_multiply", *fragments, out)
    for i in range(4):
        torch.testing.assert_close(out[:, i], wanted[rows[i], columns[i]], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("selector", [0x5410, 0x7632, 0x3210, 0x0426])
def test_bytes_are_chosen(probes, memory, selector):
    """A digit of the selector names a byte of two words."""
    out = torch.zeros(1, dtype=torch.int32)
    probes("probe_bytes", 0x33221100, 0x77665544, selector, out)
    digits = [selector >> 4 * i & 15 for i in range(4)]
    assert out.item() == int.from_bytes(bytes(0x11 * digit for digit in digits), "little")


def test_grids_and_blocks_of_three_dimensions(probes, memory):
    out = torch.zeros(12 * 24, dtype=torch.int32)
    probes("probe_blocks", out)
    assert out.tolist() == [1000 * block + thread for block in range(12) for thread in range(24)]


def test_atomics_are_no_race(probes, memory):
    sum_, largest = torch.zeros(1, dtype=torch.int32), torch.zeros(1, dtype=torch.int32)
    probes("probe_count", 3, 70, sum_, largest)
    assert (sum_.item(), largest.item()) == (210, 209)


@pytest.mark.parametrize(("blocks", "threads"), [(0, 32), (1, 0), (1, 1025)])
def test_a_launch_that_cuda_refuses(probes, memory, blocks, threads):
    with pytest.raises(RuntimeError, match="launched with (an empty grid|a block of [0-9]+ threads)"):
        probes("probe_count", blocks, threads, *torch.zeros(2, 1, dtype=torch.int32))


def test_memory_that_is_no_tensor(probes, memory):
    """As the host's is on a device."""
    with pytest.raises(RuntimeError, match="out of bounds: a write of 4 bytes"):
        probes("probe_blocks", ctypes.c_void_p(ctypes.addressof(ctypes.create_string_buffer(2000))))


def test_half_precision(probes):
    """All numbers of 16 bits, and the midpoints between neighbours, round and widen as PyTorch's."""
    probes.library.start(0, 1)
    values = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(torch.bfloat16).float()
    ordered = values[values.isfinite()].sort().values
    midpoints = (ordered[:-1].double() + ordered[1:].double()).div(2).float()
    x = torch.cat((values, midpoints))
    x = x[: len(x) // 64 * 64]
    with DeviceMemory(probes.library):
        x, rounded, back = x.clone(), torch.zeros(len(x), dtype=torch.int16), torch.zeros(len(x))
        probes("probe_halves", x, ctypes.c_int64(len(x)), rounded, back)
    wanted = x.to(torch.bfloat16)
    torch.testing.assert_close(rounded.view(torch.bfloat16), wanted, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(back, wanted.float(), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    "line", ["auto f = k<<<1, 2>>>;", "  return k<<<1, 2>>>(x);", "__shared__ int a, b;"]
)
def test_an_unknown_form_of_cuda_is_refused(line):
    """It would else be compiled as something else."""
    with pytest.raises(ValueError, match="csrc/x.cu:2: .* does not know this form"):
        to_cpp(f"\n{line}\n", "csrc/x.cu")


def test_every_instance_of_every_kernel_runs(library):
    """A new one needs a call here, and tests beside those of the others."""
    with rehearsing(library, order=0):
        check_gae()
        check_sum()
        check_copy()
        for dtype in (torch.float32, torch.bfloat16):
            for width in (3, 8):
                call_pointwise(dtype, width)
                call_logits(dtype, width)
                call_draw(dtype, width)
        check_decode_in_float32()
        for head_dim in (64, 128, 256):
            check_decode(torch.bfloat16, head_dim)
    assert [name for name, count in library.launches().items() if not count] == []


def call_pointwise(dtype: torch.dtype, width: int) -> None:
    for activation in ("silu", "gelu_tanh"):
        gated(torch.ones(2, 2 * width, dtype=dtype, requires_grad=True), activation).sum().backward()
    rotate(torch.ones(1, 2, 2 * width, dtype=dtype), torch.ones(1, width), torch.ones(1, width), 1)


def call_draw(dtype: torch.dtype, width: int) -> None:
    x, uniforms = displaced(torch.ones(2, width, dtype=dtype), 0), torch.zeros(2, dtype=torch.float64)
    for top_p in (1.0, 0.5):
        draw_tokens(x, uniforms, 1.0, top_p)


def call_logits(dtype: torch.dtype, width: int) -> None:
    labels, ones = torch.zeros(2, dtype=torch.int64), torch.ones(2)
    for softcap in (None, 5.0):
        mapping = LogitsMap(first=0, num_real=width, softcap=softcap)
        x = displaced(torch.ones(2, width, dtype=dtype), 0)
        gradient_(x, labels, mapping, finish(statistics(x, labels, mapping)[None]), ones, ones)
