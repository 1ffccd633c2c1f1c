"""The paged cache: the newest token sees what the training pass shows it, bit for bit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from realrl.ops import cache as cache_module
from realrl.ops.attention import packed_attention
from realrl.ops.cache import KeyValueCache
from tests.ops.attention_cases import Case, bounds_of, cases

DTYPES = [torch.float32, torch.bfloat16]


def filled_cache(case, qkv, seed=0):
    """A cache of random pages that were full of NaN, written in random order in two calls; and its table."""
    page = KeyValueCache.tokens_of_page(qkv.device)
    counts = [-(-length // page) for length in case.lengths]
    num_pages = sum(counts) + 3
    cache = KeyValueCache(2, num_pages, case.num_kv_heads, case.head_dim, qkv.dtype, qkv.device)
    cache._pages._data.fill_(float("nan"))
    generator = torch.Generator().manual_seed(seed)
    pages = torch.randperm(num_pages, generator=generator).to(torch.int32)
    table = torch.zeros(len(counts), max(counts), dtype=torch.int32)
    slots = []
    for row, (length, own) in enumerate(zip(case.lengths, pages[: sum(counts)].split(counts))):
        table[row, : len(own)] = own
        places = torch.arange(length)
        slots.append(own.long()[places // page] * page + places % page)
    slots, order = torch.cat(slots).to(qkv.device), torch.arange(len(qkv))
    # Runs of places in a row, cut and shuffled, and single ones.
    pieces = list(order.split(int(torch.randint(1, 100, (), generator=generator))))
    shuffled = [pieces[i] for i in torch.randperm(len(pieces), generator=generator)]
    for part in torch.cat(shuffled).to(qkv.device).tensor_split(2):
        cache.write(1, qkv[part], slots[part])
    return cache, table.to(qkv.device)


def attend_last(case, cache, qkv, table):
    last = bounds_of(case.lengths)[1:].long() - 1
    lengths = torch.tensor(case.lengths, device=qkv.device)
    num_heads = case.num_kv_heads * case.group
    return last, cache.attend(1, qkv[last.to(qkv.device)][:, :num_heads], table, lengths, **case.rule)


def sequences_of(case):
    lengths = tuple(max(1, length) for length in case.lengths)
    return replace(case, lengths=lengths, prefix=(-1,) * len(lengths))


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=60, deadline=None)
@given(case=cases(longest=300), seed=st.integers(0, 999))
def test_decoding_has_the_bits_of_training(dtype, case, seed):
    """Whatever pages a sequence has, and whatever was in them before."""
    case = sequences_of(case)
    qkv = case.qkv(dtype=dtype)
    cache, table = filled_cache(case, qkv, seed)
    last, found = attend_last(case, cache, qkv, table)
    trained = packed_attention(qkv, case.num_kv_heads, case.segments, **case.rule)
    assert torch.equal(found, trained[last])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@settings(max_examples=20, deadline=None)
@given(case=cases(longest=300))
def test_the_twin_agrees(dtype, tolerance, case):
    """The pages that are used where there is no kernel."""
    case = sequences_of(case)
    qkv = case.qkv(dtype=dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache_module, "_pages_for", lambda *_: cache_module._PlainPages)
        cache, table = filled_cache(case, qkv)
        last, found = attend_last(case, cache, qkv, table)
    trained = packed_attention(qkv, case.num_kv_heads, case.segments, **case.rule)
    torch.testing.assert_close(found, trained[last], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", [cache_module._TiledPages, cache_module._PlainPages])
@settings(max_examples=20, deadline=None)
@given(length=st.integers(1, 200), layer=st.integers(0, 2))
def test_pages_of_one_prompt_are_continued_apart(kind, length, layer):
    """A prompt written into pages of each of two samples; one's next token does not reach the other."""
    case = Case((length, 1, 1), (-1, 0, 0), 2, 2, 8, None, None)
    qkv = case.qkv(dtype=torch.bfloat16)
    count = -(-(length + 1) // 64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache_module, "_pages_for", lambda *_: kind)
        cache = KeyValueCache(3, 2 * count, 2, 8, torch.bfloat16, "cpu")
    for first_page in (0, count):
        cache.write(layer, qkv[:length], torch.arange(length) + first_page * 64)
    table = torch.arange(2 * count, dtype=torch.int32).view(2, count)
    cache.write(layer, qkv[length:], table[:, length // 64].long() * 64 + length % 64)
    found = cache.attend(layer, qkv[length:, :4], table, torch.tensor([length + 1] * 2), **case.rule)
    wanted = packed_attention(qkv, 2, case.segments, **case.rule)[length:]
    torch.testing.assert_close(found, wanted, rtol=2e-2, atol=2e-2)
    if kind is cache_module._TiledPages:
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head_dim", [8, 64])
def test_page_bytes_are_what_a_page_takes(dtype, head_dim):
    cache = KeyValueCache(3, 5, 2, head_dim, dtype, "cpu")
    data = cache._pages._data
    assert KeyValueCache.page_bytes(3, 2, head_dim, dtype, "cpu") * 5 == data.numel() * data.element_size()
