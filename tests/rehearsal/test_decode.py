"""The CUDA kernels of decoding, run on the CPU, against a plain softmax in float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from realrl.api.config import GenerationConfig
from realrl.ops import cache as cache_module
from realrl.ops.cache import KeyValueCache
from tests.engines.test_generate import generated, loaded, prompts
from tests.models.families import tiny_model
from tests.rehearsal.decode_steps import TOLERANCES, Shape, check, random_step
from tests.rehearsal.device import FORWARDS
from tests.rehearsal.rehearse import bits, in_every_order, rehearsing

DTYPES = pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
KERNELS = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
"""One type of each of the two kernels, where their types differ in nothing that is tested."""

RAGGED = (1, 15, 16, 17, 63, 64, 65, 131)
OF_TENSOR_CORES = [
    Shape(6, 80, 16, num_kv_heads=2),
    Shape(2, 256, 256, window=20, softcap=4.0),
    Shape(5, 16, 32),
]
SHAPES = [
    Shape(1, 64, 16, num_kv_heads=3),
    Shape(2, 80, 64, window=40),
    Shape(4, 128, 256, softcap=3.0),
    Shape(6, 128, 32, num_kv_heads=2),
    Shape(7, 128, 64, window=33, softcap=5.0),
    Shape(8, 256, 16),
    Shape(12, 64, 64, window=1),
    Shape(9, 8, 128, num_kv_heads=2),
]


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        *((shape, dtype) for shape in SHAPES for dtype in (torch.float32, torch.bfloat16)),
        *((shape, torch.bfloat16) for shape in OF_TENSOR_CORES),
    ],
    ids=str,
)
def test_ragged_lengths(library, shape, dtype):
    """Lengths on both sides of tiles and pages, for groups that fill a block's heads, and others."""
    step = random_step(shape, RAGGED, dtype)
    (found,) = in_every_order(library, lambda: [step.run()])
    check(found, step)


@DTYPES
@pytest.mark.parametrize("window", [None, 512])
def test_several_spans(library, dtype, window):
    """Their results are combined; a window begins within one."""
    step = random_step(Shape(2, 64, 64, window=window), (1, 512, 513, 1100), dtype)
    (found,) = in_every_order(library, lambda: [step.run()])
    check(found, step)


@DTYPES
def test_scores_of_any_size(library, dtype):
    """The largest key first, last, or alone; no sum overflows."""
    step = random_step(Shape(2, 64, 16), (530, 530, 530), dtype)
    keys = step.pages[0].view(-1, 64)
    for row, position in enumerate((0, 529, 300)):
        keys[step.table[row, position // 16] * 16 + position % 16] = 40 * step.qkv[row, 0].sign()
    (found,) = in_every_order(library, lambda: [step.run()])
    check(found, step)


@pytest.mark.parametrize(
    ("length", "window", "dtype"),
    [
        (32_769, None, torch.bfloat16),
        (70_000, None, torch.float32),
        (33_279, 32_768, torch.float32),
        (33_791, 33_280, torch.float32),
    ],
    ids=str,
)
def test_long_sequences_have_longer_spans(library, length, window, dtype):
    """So that scratch memory has a bound, also where a window begins at the end of a span.

    One page is all that the sequence has, again and again.
    """
    step = random_step(Shape(1, 8, 256, window=window), (256,), dtype)
    table = torch.zeros(1, -(-length // 256), dtype=torch.int32)
    step = replace(step, table=table, lengths=torch.tensor([length]))
    with rehearsing(library, FORWARDS):
        check(step.run(), step)


@KERNELS
def test_blocks_that_have_several_spans(library, dtype):
    """There are fewer blocks a sequence than spans where there are many sequences."""
    lengths = [1] * 1400
    lengths[3], lengths[1300] = 1900, 2048
    step = random_step(Shape(1, 8, 256), lengths, dtype)
    with rehearsing(library, FORWARDS):
        check(step.run(), step)


@KERNELS
@pytest.mark.parametrize("window", [None, 70])
def test_bits_do_not_depend_on_the_company(library, dtype, window):
    """A sequence alone, with a table as wide as it needs or wider, has the result it has among others."""
    step = random_step(Shape(7, 64, 16, window=window), (1, 700, 65, 530), dtype)
    with rehearsing(library, FORWARDS):
        together = step.run()
        for row, length in enumerate(step.lengths.tolist()):
            for width in (-(-length // 16), 3000):
                alone = step.row(row, width).run()
                assert torch.equal(bits(alone), bits(together[row : row + 1]))


@KERNELS
def test_rows_of_a_recorded_step_that_no_sequence_has(library, dtype):
    """They have one token in a page to spare, which all of them write; the other rows have the same bits."""
    shape = Shape(6, 64, 32)
    step = random_step(shape, (40, 600), dtype)
    spare = len(step.pages[0]) - 1

    def run(filled: int) -> tuple[Tensor, Tensor]:
        table = torch.full((2 + filled, step.table.shape[1]), spare, dtype=torch.int32)
        table[:2] = step.table
        lengths = torch.ones(2 + filled, dtype=torch.int64)
        lengths[:2] = step.lengths
        cache = cache_module._CudaPages(1, spare + 1, 32, 1, 64, dtype, "cpu")
        cache._data[:, 0] = step.pages
        qkv = torch.cat((step.qkv, step.qkv[:1].expand(filled, -1, -1)))
        cache.write(0, qkv[2:], torch.full((filled,), spare * 32))
        found = cache.attend(0, qkv[:, :6], table, lengths, shape.rule)
        return found[:2], found[2:]

    wanted, fill = in_every_order(library, run, 4)
    with rehearsing(library, FORWARDS):
        assert torch.equal(bits(run(0)[0]), bits(wanted))
    check(wanted, step)
    assert torch.equal(fill, step.qkv[:1, 7:].expand(4, 6, -1))


@KERNELS
def test_queries_at_any_address(library, dtype):
    """Vectors want multiples of 16 bytes, and heads in a row."""
    with rehearsing(library, FORWARDS):
        step = random_step(Shape(2, 64, 16), (20, 3), dtype)
        wanted = step.run()
        for shift, gap in ((1, 0), (0, 1), (0, 8)):
            buffer = torch.zeros(2, 300 + gap, dtype=dtype)
            q = buffer[:, shift : shift + 128].view(2, 2, 64)
            q.copy_(step.qkv[:, :2])
            cache = cache_module._CudaPages(1, len(step.pages[0]), 16, 1, 64, dtype, "cpu")
            cache._data[:, 0] = step.pages
            found = cache.attend(0, q, step.table, step.lengths, step.shape.rule)
            assert torch.equal(bits(found), bits(wanted))


@pytest.mark.parametrize(
    ("page_tokens", "head_dim"), [(8, 64), (48, 64), (512, 64), (16, 12), (16, 264)], ids=str
)
def test_the_library_refuses_what_its_kernels_do_not_take(library, page_tokens, head_dim):
    step = random_step(Shape(1, head_dim, page_tokens), (3,), torch.float32)
    with rehearsing(library, FORWARDS), pytest.raises(RuntimeError, match="CUDA kernel failed"):
        step.run()


@pytest.mark.parametrize("head_dim", [36, 264])
def test_a_cache_of_other_heads_is_refused(library, head_dim):
    with rehearsing(library, FORWARDS), pytest.raises(ValueError, match=f"model's is {head_dim}: let vLLM"):
        KeyValueCache(1, 1, 1, head_dim, torch.bfloat16, "cuda")


def test_a_cache_without_kernels_is_refused(monkeypatch):
    """Nothing slow stands in."""
    monkeypatch.setattr(cache_module.kernels, "for_device", lambda device: None)
    with pytest.raises(ValueError, match="not built: install realrl again"):
        KeyValueCache(1, 1, 1, 64, torch.bfloat16, "cuda")


@pytest.mark.parametrize("family", ["qwen2", "gemma2"])
def test_generation_draws_the_same_tokens(library, family, tmp_path, monkeypatch):
    """As on the CPU, by a whole engine, with shared prompts and with windows and soft caps."""
    model = tiny_model(tmp_path, family)
    config = GenerationConfig(max_new_tokens=4, min_new_tokens=4, temperature=0.0)
    wanted = generated(loaded(model), prompts(), config)
    monkeypatch.setattr(cache_module, "_pages_for", lambda *_: cache_module._CudaPages)
    kernel = "realrl::{anonymous}::attend_float_kernel"
    before = library.launches()[kernel]
    with rehearsing(library, FORWARDS):
        found = generated(loaded(model), prompts(), config)
    assert library.launches()[kernel] > before
    assert torch.equal(found["input_ids"], wanted["input_ids"])
    torch.testing.assert_close(found["logprobs"], wanted["logprobs"], rtol=1e-4, atol=1e-4)
