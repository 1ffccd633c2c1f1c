"""Attention on a CUDA device against float64 on the host: flash attention, its twin, and decoding."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from realrl.ops import flash
from realrl.ops.attention import packed_attention
from realrl.ops.cache import KeyValueCache
from tests.ops.attention_cases import Case
from tests.ops.test_attention import close, expected, run
from tests.ops.test_cache import attend_last, filled_cache
from tests.rehearsal.decode_steps import TOLERANCES, Shape, check, random_step

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

ALONE = Case((40, 1, 300, 64), (-1, -1, -1, -1), 2, 2, 64, None, None)
SHARED = Case((100, 30, 1, 70, 0, 64, 5), (-1, 0, 0, 0, -1, -1, 5), 2, 2, 64, None, None)
DTYPES = pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
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
    case = replace(ALONE, lengths=(1, 31, 32, 33, 700), prefix=(-1,) * 5, **rule)
    qkv = case.qkv(dtype=dtype)
    cache, table = filled_cache(case, qkv.cuda())
    last, found = attend_last(case, cache, qkv.cuda(), table)
    wanted = expected(case, qkv, torch.zeros_like(qkv[:, : case.num_kv_heads * case.group]))[0][last]
    close(found.cpu(), wanted, 2e-2 if dtype == torch.bfloat16 else 1e-4)


DECODED = [
    Shape(1, 64, 16, num_kv_heads=3),
    Shape(2, 80, 64, window=700),
    Shape(6, 128, 32, num_kv_heads=2),
    Shape(7, 128, 32, num_kv_heads=4, window=1000, softcap=5.0),
    Shape(8, 256, 16, softcap=3.0),
    Shape(12, 64, 256),
]


@DTYPES
@pytest.mark.parametrize("shape", DECODED, ids=str)
def test_decoding(dtype, shape):
    """Several spans, and spans that are longer; whatever no sequence has is NaN."""
    step = random_step(shape, (1, 15, 17, 511, 513, 3000, 40_000), dtype)
    check(step.on("cuda").run(), step)


@DTYPES
@pytest.mark.parametrize("window", [None, 600])
def test_a_sequence_decodes_alike_in_any_company(dtype, window):
    """Bit for bit, and with tables of other widths."""
    shape = Shape(6, 128, 32, num_kv_heads=2, window=window)
    step = random_step(shape, (700, 5, 9000, 257), dtype).on("cuda")
    together = step.run()
    for row, length in enumerate(step.lengths.tolist()):
        for width in (-(-length // 32), 2000):
            assert torch.equal(step.row(row, width).run(), together[row : row + 1])


def test_a_graph_serves_all_lengths():
    """What is recorded with short sequences decodes long ones."""
    step = random_step(Shape(6, 128, 32, num_kv_heads=2), (9000, 40), torch.bfloat16).on("cuda")
    wanted = step.run()
    lengths = step.lengths.clone()
    cache = KeyValueCache(1, len(step.pages[0]), 2, 128, torch.bfloat16, "cuda")
    assert cache.is_recordable and cache.page_tokens == 32
    cache._pages._data[:, 0] = step.pages
    graph = torch.cuda.CUDAGraph()
    step.lengths.fill_(1)
    with torch.cuda.graph(graph):
        found = cache.attend(0, step.qkv[:, :12], step.table, step.lengths, scale=step.shape.rule.scale)
    step.lengths.copy_(lengths)
    graph.replay()
    assert torch.equal(found, wanted)


def test_page_bytes_are_what_a_page_takes():
    cache = KeyValueCache(3, 5, 2, 64, torch.bfloat16, "cuda")
    data = cache._pages._data
    assert KeyValueCache.page_bytes(3, 2, 64, torch.bfloat16, "cuda") * 5 == data.nbytes
