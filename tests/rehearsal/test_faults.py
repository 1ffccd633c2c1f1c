"""Faults planted into the CUDA kernels are found, in each thread order.

All of them are found before memory is touched, so that the process survives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from tests.rehearsal import build
from tests.rehearsal.calls import (
    check_copy,
    check_decode,
    check_decode_in_float32,
    check_draw,
    check_gae,
    check_logits,
    check_logits_at_an_odd_address,
    check_rotate,
    check_sum,
)
from tests.rehearsal.device import ORDERS, Library
from tests.rehearsal.rehearse import rehearsing


class Fault(NamedTuple):
    """A change of one place in a source, a call that meets it, and what the failure says."""

    source: str
    before: str
    after: str
    call: Callable[[], None]
    says: str


FAULTS = {
    "a thread past the end": Fault(
        "pointwise_cuda.cu",
        "if (at >= job.tokens * job.heads * job.half) return;",
        "if (at > job.tokens * job.heads * job.half) return;",
        check_rotate,
        "out of bounds: a read of 4 bytes.*past the end.*rotate_kernel<float, 1>.* thread .60, 0, 0., "
        "csrc/cuda/pointwise_cuda.cu:[0-9]+ in csrc/cuda/pointwise_cuda.cu:[0-9]+, thread order",
    ),
    "an index before the begin": Fault(
        "gae_cuda.cu",
        "if (t >= 0) sequence.write",
        "if (t >= -1) sequence.write",
        check_gae,
        "out of bounds.*before|a race",
    ),
    "an index one too far in shared memory": Fault(
        "logits_cuda.cu",
        "warps[threadIdx.x / kRowLanes] = row",
        "warps[threadIdx.x / kRowLanes + 1] = row",
        check_logits,
        "out of bounds: a write of 16 bytes.*past the end of shared memory of 256 bytes.*statistics_kernel"
        "|shared memory is read that no thread has written",
    ),
    "no barrier in the statistics": Fault(
        "logits_cuda.cu", "__syncthreads();", "", check_logits, "a race|no thread has written"
    ),
    "sums that are not read yet are overwritten": Fault(
        "draw_cuda.cu",
        "  __syncthreads();  // the sums of the call before have been read",
        "",
        check_draw,
        "a race.*draw_kernel<true, float, 4>",
    ),
    "no barrier in the checksum": Fault(
        "boxes_cuda.cu", "__syncthreads();", "", check_sum, "a race|no thread has written"
    ),
    "a barrier that a thread does not reach": Fault(
        "boxes_cuda.cu",
        "__syncthreads();",
        "if (threadIdx.x == 77) return; __syncthreads();",
        check_sum,
        r"deadlock: 1 threads have exited \(the first is 77.*255 threads wait in __syncthreads.*checksum",
    ),
    "a shuffle that names too many lanes": Fault(
        "gae_cuda.cu",
        "if (i >= in.num_sequences) return;",
        "if (i >= in.num_sequences || lane == 9) return;",
        check_gae,
        "__shfl_up_sync of mask ffffffff: lane 9 has exited|deadlock",
    ),
    "a shuffle of half the width": Fault(
        "gae_cuda.cu", "(kAllLanes, sum, distance)", "(kAllLanes, sum, distance, 16)", check_gae, "not close"
    ),
    "a vector at an odd address": Fault(
        "logits_cuda.cu",
        "reinterpret_cast<uintptr_t>(job.logits) % kVectorBytes == 0",
        "true",
        check_logits_at_an_odd_address,
        "misaligned: 0x[0-9a-f]+ is no multiple of 16, in .*statistics_kernel.*"
        "csrc/cuda/logits_cuda.cu:[0-9]+, thread order",
    ),
    "vectors in rows that are not of whole vectors": Fault(
        "boxes_cuda.cu", "s.row_elements % kWidth == 0 &&", "true &&", check_copy, "assert|out of bounds"
    ),
    "a sum of blocks that is not atomic": Fault(
        "boxes_cuda.cu",
        "atomicAdd(reinterpret_cast<unsigned long long *>(checksum), static_cast<unsigned long long>(sum))",
        "*checksum += sum",
        check_sum,
        "a race: thread 0 of block [0-9] has (written|read) this byte of global memory",
    ),
    "warps' results without a barrier": Fault(
        "decode_half_cuda.cu",
        "__syncthreads();\n    store_span",
        "store_span",
        check_decode,
        "a race|no thread has written",
    ),
    "values that are not seen": Fault(
        "decode_half_cuda.cu",
        "seen.has(key) && column < head_dim, values",
        "column < head_dim, values",
        check_decode,
        "not close",
    ),
    "a sum over too few lanes": Fault(
        "decode_float_cuda.cu",
        "for (; distance > 0; distance /= 2) x[0] +=",
        "for (; distance > 1; distance /= 2) x[0] +=",
        check_decode_in_float32,
        "not close",
    ),
    "arguments in another order": Fault(
        "pointwise_cuda.cu",
        "int64_t heads, int64_t rotated_heads, int64_t half, int inverse",
        "int64_t rotated_heads, int64_t heads, int64_t half, int inverse",
        check_rotate,
        "out of bounds|not close|not equal",
    ),
    "another stream": Fault(
        "gae_cuda.cu",
        ", 0, static_cast<cudaStream_t>(stream)>>>",
        ">>>",
        check_gae,
        "launched with another stream than the current one: realrl::gae_kernel",
    ),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_planted_fault_is_found(fault, objects, tmp_path):
    text = build.sources()[fault.source]
    assert text.count(fault.before) == 1, "the source has changed: plant the fault elsewhere"
    planted = build.compile_cuda(tmp_path, fault.source, text.replace(fault.before, fault.after))
    library = Library(build.link(tmp_path, objects | {fault.source: planted}))
    for order in ORDERS:
        with (
            rehearsing(library, order, processors=2),
            pytest.raises((RuntimeError, AssertionError)) as caught,
        ):
            fault.call()
        caught.match(fault.says)


@pytest.mark.parametrize("call", sorted({fault.call for fault in FAULTS.values()}, key=lambda f: f.__name__))
def test_without_the_fault_nothing_is_found(library, call):
    """Else the tests above would show nothing."""
    for order in ORDERS:
        with rehearsing(library, order, processors=2):
            call()
