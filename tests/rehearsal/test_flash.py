"""Attention as on CUDA, with flash attention's two operators as loops in float64: what is made of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import example, given, settings

from realrl.ops import flash
from realrl.ops.attention import packed_attention_reference
from tests.ops.attention_cases import Case, cases
from tests.rehearsal import loops

SHARED = Case((10, 3, 1, 7, 0, 5, 4), (-1, 0, 0, -1, 3, 3, 0), 2, 3, 8, None, None)


@pytest.fixture(scope="module", autouse=True)
def _operators():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flash, "_forward", loops.forward)
        patch.setattr(flash, "_backward", loops.backward)
        yield


@settings(max_examples=60, deadline=None)
@given(case=cases(longest=8))
@example(case=SHARED)
@example(case=replace(SHARED, prefix=(-1,) * 7, window=3))
def test_own_keys_and_a_prefix_are_one_softmax(case):
    """Output and gradient against the reference, wherever flash attention would be taken."""
    if case.softcap is not None or (case.window is not None and case.segments.has_prefix):
        return
    qkv = case.qkv(dtype=torch.float64)
    if not len(qkv):
        return
    rule = {"scale": case.rule["scale"], "window": case.window}
    dout = torch.randn_like(qkv[:, : case.num_kv_heads * case.group])
    found, wanted = qkv.clone().requires_grad_(), qkv.clone().requires_grad_()
    out = flash.attention(found, case.num_kv_heads, case.segments, **rule)
    expected = packed_attention_reference(wanted, case.num_kv_heads, case.segments, **rule)
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-9)
    for x in (out, expected):
        x.backward(dout)
    torch.testing.assert_close(found.grad, wanted.grad, rtol=1e-9, atol=1e-9)
