"""Sampling of one token per row from a softmax, by inverting its cumulative distribution.

Shapes: B rows, V columns.
"""

from __future__ import annotations

import torch
from torch import Tensor

from realrl.ops import kernels

_TYPES = (torch.float32, torch.bfloat16)
_NUCLEUS_TOKENS = 512
"""The number of most likely tokens that top-p sorts first on the CPU."""


@torch.no_grad()
def draw_tokens(logits: Tensor, uniforms: Tensor, temperature: float, top_p: float = 1.0) -> Tensor:
    """Return the token of each row at which the cumulative probability exceeds the row's uniform number.

    Probabilities are proportional to `exp(logit / temperature)`. A logit of -inf is never drawn. With `top_p`
    below 1, only the most likely tokens are drawn: the fewest whose probabilities sum to at least `top_p`. A
    row's token depends only on its own logits and number. On CUDA nothing waits for the device, so that a
    graph can capture the call.

    Shapes: logits float32 or bfloat16 `[B, V]`, uniforms float64 `[B]` in [0, 1); returns int64 `[B]`.
    Raises:
        ValueError: a type that the kernel does not take.
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
    logits = logits.contiguous()
    uniforms = uniforms.contiguous()
    tokens = torch.empty(
        len(logits),
        dtype=torch.int64,
        device=logits.device,
    )
    kernel.draw(logits, uniforms, 1 / temperature, top_p, tokens)
    return tokens


def draw_tokens_reference(logits: Tensor, uniforms: Tensor, temperature: float, top_p: float = 1.0) -> Tensor:
    """Compute `draw_tokens` in PyTorch.

    Shapes: as for `draw_tokens`.
    """
    if top_p < 1:
        logits = _nucleus(logits, temperature, top_p)
    cumulative = _probabilities(logits, temperature).cumsum(dim=-1)
    # Rounding may leave the sum of all probabilities below or above 1.
    total = cumulative[:, -1:]
    threshold = uniforms.double()[:, None] * total
    tokens = torch.searchsorted(cumulative, threshold, right=True)
    last = logits.shape[-1] - 1
    return tokens[:, 0].clamp(max=last)


def _probabilities(logits: Tensor, temperature: float) -> Tensor:
    """Return the softmax of each row: float64 `[B, V]`."""
    scaled = logits.double() / temperature
    return torch.softmax(scaled, dim=-1)


def _nucleus(logits: Tensor, temperature: float, top_p: float) -> Tensor:
    """Return the logits, with -inf for tokens that top-p excludes."""
    total = (logits.float() / temperature).logsumexp(dim=-1, keepdim=True)
    width = logits.shape[-1]
    # A few tokens are nearly always enough, and sorting only these takes a fraction of the time. A GPU sorts
    # all tokens, because a check whether a few are enough would wait for it.
    count = min(_NUCLEUS_TOKENS, width) if logits.is_cpu else width
    while True:
        ordered, tokens = logits.topk(count, dim=-1)
        weights = (ordered.double() / temperature - total).exp()
        cumulative = weights.cumsum(dim=-1)
        if count == width:
            break
        is_enough = cumulative[:, -1] >= top_p
        if bool(is_enough.all()):
            break
        count = min(count * 16, width)

    # The token that crosses the bound is kept, so the sum before each token decides.
    before = cumulative - weights
    kept = ordered.masked_fill(before >= top_p, float("-inf"))
    excluded = torch.full_like(logits, float("-inf"))
    return excluded.scatter(-1, tokens, kept)
