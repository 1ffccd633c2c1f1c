"""Attention over packed segments: against a float64 loop, and bit for bit against itself in other company."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from realrl.ops.attention import packed_attention, packed_attention_reference
from realrl.ops.kernels import cpu_module
from realrl.ops.segments import Segments
from tests.ops.attention_cases import Case, attention_loop, bounds_of, cases, sequences

DTYPES = [torch.float32, torch.bfloat16]
IMPLEMENTATIONS = [packed_attention, packed_attention_reference]
SHARED = Case((100, 30, 1, 70, 64, 5), (-1, 0, 0, 0, -1, 4), 2, 3, 64, None, None)


def run(attention, case, qkv, dout=None):
    """The output, and with `dout` the gradient too."""
    leaf = qkv.clone().requires_grad_(dout is not None)
    out = attention(leaf, case.num_kv_heads, case.segments, **case.rule)
    if dout is None:
        return out.detach()
    out.backward(dout)
    return out.detach(), leaf.grad


def expected(case, qkv, dout):
    leaf = qkv.double().requires_grad_()
    out = packed_attention_reference(leaf, case.num_kv_heads, case.segments, **case.rule)
    out.backward(dout.double())
    return out.detach(), leaf.grad


def close(found, wanted, tolerance):
    scale = float(wanted.abs().max()) if wanted.numel() else 1.0
    torch.testing.assert_close(found.double(), wanted, rtol=tolerance, atol=tolerance * max(scale, 1e-3))


@settings(max_examples=10, deadline=None)
@given(case=cases(longest=8))
@example(case=replace(SHARED, lengths=(10, 3, 1, 7, 0, 5), head_dim=4, window=4, softcap=2.0))
def test_the_twin_is_the_definition(case):
    """In float64, output and gradient."""
    qkv = case.qkv(dtype=torch.float64)
    dout = torch.randn_like(qkv[:, : case.num_kv_heads * case.group])
    leaf = qkv.clone().requires_grad_()
    wanted = attention_loop(leaf, case)
    wanted.backward(dout)
    out, grad = expected(case, qkv, dout)
    torch.testing.assert_close(out, wanted.detach(), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(grad, leaf.grad, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("attention", IMPLEMENTATIONS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@settings(max_examples=60, deadline=None)
@given(case=cases())
@example(case=SHARED)
@example(case=replace(SHARED, window=40))
@example(case=replace(SHARED, lengths=(700, 3, 0, 300, 64, 5), head_dim=8))
def test_values_and_gradients(attention, dtype, tolerance, case):
    """Against float64, for ragged segments, prefixes, windows, softcaps, head counts and sizes."""
    qkv = case.qkv(dtype=dtype)
    dout = torch.randn(qkv[:, : case.num_kv_heads * case.group].shape).to(dtype)
    out, grad = run(attention, case, qkv, dout)
    wanted_out, wanted_grad = expected(case, qkv, dout)
    assert out.dtype == grad.dtype == dtype
    close(out, wanted_out, tolerance)
    close(grad, wanted_grad, tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=40, deadline=None)
@given(case=cases())
@example(case=SHARED)
def test_sharing_a_prefix_changes_no_bit(dtype, case):
    """A segment after its shared prefix is the same sequence alone, prefix and all."""
    qkv = case.qkv(dtype=dtype)
    found = run(packed_attention, case, qkv)
    for tokens, num_before in sequences(case):
        alone = replace(case, lengths=(len(tokens),), prefix=(-1,))
        assert torch.equal(found[tokens[num_before:]], run(packed_attention, alone, qkv[tokens])[num_before:])


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=40, deadline=None)
@given(case=cases(), data=st.data())
def test_a_segment_leaks_nowhere(dtype, case, data):
    """Making it NaN changes no bit of any segment that does not see it, nor of the gradients."""
    changed = data.draw(st.integers(0, len(case.lengths) - 1))
    bounds = case.segments.cu_seqlens.tolist()
    qkv, other = case.qkv(1, dtype), case.qkv(1, dtype)
    other[bounds[changed] : bounds[changed + 1]] = float("nan")
    dout = torch.randn(qkv[:, : case.num_kv_heads * case.group].shape).to(dtype)
    before, after = (run(packed_attention, case, x, dout) for x in (qkv, other))
    root = changed if case.prefix[changed] < 0 else case.prefix[changed]
    for index, prefix in enumerate(case.prefix):
        tokens = slice(bounds[index], bounds[index + 1])
        if index != changed and prefix != changed:
            assert torch.equal(before[0][tokens], after[0][tokens])
        if index != root and prefix != root:
            assert torch.equal(before[1][tokens], after[1][tokens])


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_number_of_threads_changes_no_bit(dtype):
    """Neither of the output nor of the gradient, whose sums over a shared prefix's queries take turns."""
    case = replace(SHARED, lengths=(300, 200, 100, 250, 64, 700))
    qkv, threads = case.qkv(dtype=dtype), torch.get_num_threads()
    dout = torch.randn(qkv[:, : case.num_kv_heads * case.group].shape).to(dtype)
    results = []
    try:
        for num_threads in (1, 2, 5, 2):
            torch.set_num_threads(num_threads)
            results.append(run(packed_attention, case, qkv, dout))
    finally:
        torch.set_num_threads(threads)
    for out, grad in results[1:]:
        assert torch.equal(out, results[0][0]) and torch.equal(grad, results[0][1])


def test_a_window_of_one_is_the_token_itself():
    case = replace(SHARED, window=1)
    qkv = case.qkv()
    values = qkv[:, -case.num_kv_heads :].repeat_interleave(case.group, dim=1)
    torch.testing.assert_close(run(packed_attention, case, qkv), values)


def test_positions_go_on_after_the_prefix():
    segments = Segments(bounds_of([3, 2, 0, 1, 2]), torch.tensor([-1, 0, 0, -1, 3], dtype=torch.int32))
    assert segments.positions().tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    assert Segments.of_sequences(bounds_of([2, 3])).positions().tolist() == [0, 1, 0, 1, 2]


@pytest.mark.parametrize("prefix", [[0, -1], [-1, 1], [-1, -2], [-1, 0, 1]])
def test_impossible_prefixes_are_refused(prefix):
    with pytest.raises(AssertionError, match="prefix"):
        Segments(bounds_of([1] * len(prefix)), torch.tensor(prefix, dtype=torch.int32))


def test_the_kernel_is_built():
    """Without it the tests above would compare the twin with itself."""
    assert cpu_module() is not None
