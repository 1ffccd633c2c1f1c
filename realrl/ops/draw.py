"""Drawing one token a row from a softmax, by a number in [0, 1).

Shapes: B rows, V columns.
"""

from __future__ import annotations

import torch
from torch import Tensor

from realrl.ops.kernels import cpu_module

_TYPES = (torch.float32, torch.bfloat16)


@torch.no_grad()
def draw_tokens(logits: Tensor, uniforms: Tensor, temperature: float) -> Tensor:
    """The token at which the cumulative weights `exp(logit / temperature)` pass the row's share `uniform`.

    A logit of -inf is never drawn. A row's token depends on its own logits and number alone.

    Shapes: logits float32 or bfloat16 `[B, V]`, uniforms float64 `[B]` in [0, 1); returns int64 `[B]`.
    """
    if not logits.is_cpu or cpu_module() is None:
        return draw_tokens_reference(logits, uniforms, temperature)
    logits, uniforms = logits.contiguous(), uniforms.contiguous()
    if logits.dtype not in _TYPES or uniforms.dtype != torch.float64:
        raise ValueError(
            f"draw_tokens: expected float32 or bfloat16, and float64, got {logits.dtype} and {uniforms.dtype}"
        )
    tokens = torch.empty(len(logits), dtype=torch.int64)
    is_bf16 = logits.dtype == torch.bfloat16
    job = logits.data_ptr(), is_bf16, *logits.shape, 1 / temperature, uniforms.data_ptr(), tokens.data_ptr()
    cpu_module().draw(*job, torch.get_num_threads())
    return tokens


def draw_tokens_reference(logits: Tensor, uniforms: Tensor, temperature: float) -> Tensor:
    """The kernel's twin, in PyTorch."""
    cumulative = torch.softmax(logits.double() / temperature, dim=-1).cumsum(dim=-1)
    threshold = uniforms.double()[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, threshold, right=True)[:, 0].clamp(max=logits.shape[-1] - 1)
