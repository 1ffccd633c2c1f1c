"""Drawing one token a row from a softmax, by a number in [0, 1).

Shapes: B rows, V columns.
"""

from __future__ import annotations

import torch
from torch import Tensor

from realrl.ops import kernels

_TYPES = (torch.float32, torch.bfloat16)
_NUCLEUS_TOKENS = 512
"""How many of the likeliest tokens top-p looks at first on the CPU."""


@torch.no_grad()
def draw_tokens(logits: Tensor, uniforms: Tensor, temperature: float, top_p: float = 1.0) -> Tensor:
    """The token at which the cumulative weights `exp(logit / temperature)` pass the row's share `uniform`.

    A logit of -inf is never drawn. With `top_p` below 1, only the likeliest tokens weigh anything: as many as
    have that share of the sum, the token that crosses the bound included. A row's token depends on its own
    logits and number alone. On CUDA nothing waits for the device, so that a graph can hold it.

    Shapes: logits float32 or bfloat16 `[B, V]`, uniforms float64 `[B]` in [0, 1); returns int64 `[B]`.
    """
    kernel = kernels.for_device(logits.device)
    if kernel is None:
        return draw_tokens_reference(logits, uniforms, temperature, top_p)
    if logits.dtype not in _TYPES or uniforms.dtype != torch.float64:
        raise ValueError(
            f"draw_tokens: expected float32 or bfloat16, and float64, got {logits.dtype} and {uniforms.dtype}"
        )
    if top_p < 1 and not kernel.draws_nucleus:
        logits = _nucleus(logits, temperature, top_p)
    logits, uniforms = logits.contiguous(), uniforms.contiguous()
    tokens = torch.empty(len(logits), dtype=torch.int64, device=logits.device)
    kernel.draw(logits, uniforms, 1 / temperature, top_p, tokens)
    return tokens


def draw_tokens_reference(logits: Tensor, uniforms: Tensor, temperature: float, top_p: float = 1.0) -> Tensor:
    """The kernels' twin, in PyTorch."""
    if top_p < 1:
        logits = _nucleus(logits, temperature, top_p)
    cumulative = torch.softmax(logits.double() / temperature, dim=-1).cumsum(dim=-1)
    threshold = uniforms.double()[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, threshold, right=True)[:, 0].clamp(max=logits.shape[-1] - 1)


def _nucleus(logits: Tensor, temperature: float, top_p: float) -> Tensor:
    """The logits, -inf for what top-p leaves out."""
    total = (logits.float() / temperature).logsumexp(dim=-1, keepdim=True)
    width = logits.shape[-1]
    # Few tokens nearly always do, and to sort those alone takes a fraction of the time. A GPU sorts them all:
    # to look whether they do would be to wait for it.
    count = min(_NUCLEUS_TOKENS, width) if logits.is_cpu else width
    while True:
        ordered, tokens = logits.topk(count, dim=-1)
        weights = (ordered.double() / temperature - total).exp()
        cumulative = weights.cumsum(dim=-1)
        if count == width or bool((cumulative[:, -1] >= top_p).all()):
            break
        count = min(count * 16, width)
    kept = ordered.masked_fill(cumulative - weights >= top_p, float("-inf"))
    return torch.full_like(logits, float("-inf")).scatter(-1, tokens, kept)
