"""Attention on a CUDA device: flash attention, and the twin where it cannot, against float64 on the host."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from realrl.ops import cache as cache_module
from realrl.ops import flash
from realrl.ops.attention import packed_attention
from realrl.ops.cache import KeyValueCache
from tests.ops.attention_cases import Case
from tests.ops.test_attention import close, expected, run
from tests.ops.test_cache import attend_last, filled_cache

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

ALONE = Case((40, 1, 300, 64), (-1, -1, -1, -1), 2, 2, 64, None, None)
SHARED = Case((100, 30, 1, 70, 0, 64, 5), (-1, 0, 0, 0, -1, -1, 5), 2, 2, 64, None, None)
BY_FLASH = [ALONE, SHARED, replace(ALONE, window=50), replace(SHARED, head_dim=128, group=3)]
BY_THE_TWIN = [replace(SHARED, window=50), replace(ALONE, softcap=20.0), replace(ALONE, head_dim=20)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("case", BY_FLASH + BY_THE_TWIN)
def test_values_and_gradients(case, dtype):
    """Prefixes shared or none, windows, softcaps, and sizes that flash attention does not have."""
    qkv = case.qkv(dtype=dtype)
    dout = torch.randn(qkv[:, : case.num_kv_heads * case.group].shape).to(dtype)
    out, grad = run(packed_attention, case, qkv.cuda(), dout.cuda())
    wanted_out, wanted_grad = expected(case, qkv, dout)
    tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-4
    close(out.cpu(), wanted_out, tolerance)
    close(grad.cpu(), wanted_grad, tolerance)


@pytest.mark.parametrize("case", BY_FLASH + BY_THE_TWIN)
def test_flash_takes_what_it_can(case):
    """Else the tests above would compare the twin with itself."""
    qkv = case.qkv(dtype=torch.bfloat16).cuda()
    assert flash.can_run(qkv, case.segments, case.window, case.softcap) == (case in BY_FLASH)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("rule", [{}, {"window": 50}, {"softcap": 20.0}])
def test_the_newest_token_over_pages(dtype, rule):
    """Lengths on both sides of a page's tokens; stale pages full of NaN."""
    case = replace(ALONE, lengths=(1, 255, 256, 257, 700), prefix=(-1,) * 5, **rule)
    qkv = case.qkv(dtype=dtype)
    cache, table = filled_cache(case, qkv.cuda())
    last, found = attend_last(case, cache, qkv.cuda(), table)
    wanted = expected(case, qkv, torch.zeros_like(qkv[:, : case.num_kv_heads * case.group]))[0][last]
    close(found.cpu(), wanted, 2e-2 if dtype == torch.bfloat16 else 1e-4)


def test_flash_reads_pages():
    """Else decoding is the twin's, one sequence after the other."""
    assert cache_module._pages_by_flash(torch.device("cuda", torch.cuda.current_device()))


def test_a_sequence_decodes_alike_in_any_company():
    """Bit for bit, as the keys are never split."""
    case = replace(ALONE, lengths=(700, 5, 257), prefix=(-1,) * 3)
    qkv = case.qkv(dtype=torch.bfloat16).cuda()
    cache, table = filled_cache(case, qkv)
    last, found = attend_last(case, cache, qkv, table)
    q, lengths = qkv[last][:, : case.num_kv_heads * case.group], torch.tensor(case.lengths, device="cuda")
    for row in range(3):
        one = slice(row, row + 1)
        assert torch.equal(found[one], cache.attend(1, q[one], table[one], lengths[one], **case.rule))


def test_page_bytes_are_what_a_page_takes():
    cache = KeyValueCache(3, 5, 2, 64, torch.bfloat16, "cuda")
    data = cache._pages._data
    assert KeyValueCache.page_bytes(3, 2, 64, torch.bfloat16, "cuda") * 5 == data.nbytes
