"""Tensor parallelism in which each rank has some of the tokens between the matrices: sequence parallelism.

Norms and residuals are computed and kept once, not once a rank, and messages are as large as without.
Source: Korthikanti et al. 2022, arXiv:2205.05198, section 4.2.2.
Shapes: T tokens, a multiple of the group's size; a name with `_share` has this rank's run of `T / tp`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup, Work

from realrl.ops.linear import WeightGradients
from realrl.parallel.tensor import TensorParallel


class SequenceParallel(TensorParallel):
    """As `TensorParallel`, on shares of the tokens; on CUDA, messages overlap with products."""

    def __init__(self, group: ProcessGroup, *, weight_gradients: WeightGradients | None = None) -> None:
        super().__init__(group, weight_gradients=weight_gradients)

    def column(self, x: Tensor, weight_part: Tensor, bias_part: Tensor | None = None) -> Tensor:
        """`[T / tp, H] -> [T, out_part]`."""
        later = self.weight_gradients and self.weight_gradients.of(weight_part)
        weight = weight_part if later is None else weight_part.detach()
        product = _GatheredProduct.apply(x, weight, self.group, later)
        return product if bias_part is None else product + bias_part

    def padded(self, tokens: Tensor) -> Tensor:
        missing = -len(tokens) % dist.get_world_size(self.group)
        return torch.cat((tokens, tokens.new_zeros(missing, *tokens.shape[1:]))) if missing else tokens

    def own(self, tokens: Tensor) -> Tensor:
        return _own(tokens, self.group)

    def whole(self, x: Tensor) -> Tensor:
        return _Whole.apply(x, self.group)

    def _sum(self, x: Tensor) -> Tensor:
        """`[T, H] -> [T / tp, H]`."""
        return _SummedShare.apply(x, self.group)


class _GatheredProduct(torch.autograd.Function):
    """`x @ weight.T` with x gathered; the backward pass gathers it again."""

    @staticmethod
    def forward(
        ctx,
        x_share: Tensor,
        weight: Tensor,
        group: ProcessGroup,
        later: Callable[[Tensor, Tensor], None] | None,
    ) -> Tensor:
        ctx.save_for_backward(x_share, weight)
        ctx.group, ctx.later = group, later
        return _gathered(x_share, group) @ weight.t()

    @staticmethod
    def backward(ctx, grad: Tensor):
        x_share, weight = ctx.saved_tensors
        x, gathering = _begin_gather(x_share, ctx.group)
        grad_share, summing = _begin_sum(grad @ weight, ctx.group)
        gathering.wait()
        if ctx.later is not None:
            ctx.later(x, grad)
        grad_weight = grad.t() @ x if ctx.later is None else None
        summing.wait()
        return grad_share, grad_weight, None, None


class _SummedShare(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group = group
        share, summing = _begin_sum(x, group)
        summing.wait()
        return share

    @staticmethod
    def backward(ctx, grad_share: Tensor):
        return _gathered(grad_share, ctx.group), None


class _Whole(torch.autograd.Function):
    """Every rank goes on alike from the whole, so that each has the whole gradient."""

    @staticmethod
    def forward(ctx, x_share: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group = group
        return _gathered(x_share, group)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return _own(grad, ctx.group), None


def _own(tokens: Tensor, group: ProcessGroup) -> Tensor:
    return tokens.tensor_split(dist.get_world_size(group))[dist.get_rank(group)]


def _gathered(share: Tensor, group: ProcessGroup) -> Tensor:
    whole, gathering = _begin_gather(share, group)
    gathering.wait()
    return whole


def _begin_gather(share: Tensor, group: ProcessGroup) -> tuple[Tensor, Work]:
    whole = share.new_empty(len(share) * dist.get_world_size(group), *share.shape[1:])
    return whole, dist.all_gather_into_tensor(whole, share.contiguous(), group=group, async_op=True)


def _begin_sum(x: Tensor, group: ProcessGroup) -> tuple[Tensor, Work]:
    share = x.new_empty(len(x) // dist.get_world_size(group), *x.shape[1:])
    return share, dist.reduce_scatter_tensor(share, x.contiguous(), group=group, async_op=True)
