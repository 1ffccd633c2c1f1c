"""Tensor-parallel parts, on Megatron-Core's functions with the group passed in.

Shapes: T tokens, H hidden size, V vocabulary; a name with `_part` has this rank's share of a dim.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.distributed import ProcessGroup

from realrl.ops.linear import PackedWeight, WeightGradients, linear


class TensorParallel:
    """A rank's part of layers that are spread over a group, or all of them without one.

    `deterministic`: a token's results depend on that token alone, bit for bit, at any place in any batch.
    `weight_gradients`: where gradients of matrices go, if not to autograd.
    """

    def __init__(
        self,
        group: ProcessGroup | None,
        *,
        deterministic: bool = False,
        weight_gradients: WeightGradients | None = None,
    ) -> None:
        self.group, self.deterministic, self.weight_gradients = group, deterministic, weight_gradients
        self._how = {"tiled": deterministic, "weight_gradients": weight_gradients}
        if group is not None:
            from realrl.parallel import megatron

            self._megatron = megatron

    def column(
        self, x: Tensor, weight_part: Tensor | PackedWeight, bias_part: Tensor | None = None
    ) -> Tensor:
        """`[T, H] -> [T, out_part]`: each rank makes some of the outputs of a whole input."""
        if self.group is None or isinstance(weight_part, PackedWeight):
            return linear(x, weight_part, bias_part, **self._how)
        if any(self._how.values()):
            x = self._megatron.copy_to_tensor_model_parallel_region(x, group=self.group)
            return linear(x, weight_part, bias_part, **self._how)
        return self._megatron.linear_with_grad_accumulation_and_async_allreduce(
            x,
            weight_part,
            bias=bias_part,
            gradient_accumulation_fusion=False,
            allreduce_dgrad=True,
            sequence_parallel=False,
            tp_group=self.group,
        )

    def row(self, x_part: Tensor, weight_part: Tensor | PackedWeight, bias: Tensor | None = None) -> Tensor:
        """`[T, in_part] -> [T, H]`: each rank has some of the inputs; results are summed, then biased."""
        if self.group is None:
            return linear(x_part, weight_part, bias, **self._how)
        total = self._sum(linear(x_part, weight_part, **self._how))
        return total if bias is None else total + bias

    def embedding(self, ids: Tensor, weight_part: Tensor) -> Tensor:
        """`[T] -> [T, H]`: each rank looks up the ids among its rows."""
        if self.group is None:
            return F.embedding(ids, weight_part)
        local = ids - dist.get_rank(self.group) * len(weight_part)
        elsewhere = (local < 0) | (local >= len(weight_part))
        found = F.embedding(local.masked_fill(elsewhere, 0), weight_part)
        return self._sum(found.masked_fill(elsewhere[:, None], 0))

    def gather(self, x_part: Tensor) -> Tensor:
        """`[T, V_part] -> [T, V_padded]` on every rank; not differentiable."""
        if self.group is None:
            return x_part
        return torch.cat(_everyones(x_part, self.group), dim=-1)

    def padded(self, tokens: Tensor) -> Tensor:
        """With rows of zeros behind it, so many that each rank can have an equal share of the rows."""
        return tokens

    def own(self, tokens: Tensor) -> Tensor:
        """The rows of `[T, ...]` that this rank computes what is between the matrices for: here, all."""
        return tokens

    def whole(self, x: Tensor) -> Tensor:
        """`[T, H]` from the rows that each rank has, for what every rank does alike."""
        return x

    def _sum(self, x: Tensor) -> Tensor:
        """What the ranks each have a part of, for what comes next."""
        if self.deterministic:
            return _OrderedSum.apply(x, self.group)
        return self._megatron.reduce_from_tensor_model_parallel_region(x, group=self.group)


class _OrderedSum(torch.autograd.Function):
    """In the ranks' order: an all-reduce adds in another order elsewhere in a tensor."""

    @staticmethod
    def forward(ctx, x: Tensor, group: ProcessGroup) -> Tensor:
        first, *others = _everyones(x, group)
        for other in others:
            first += other
        return first

    @staticmethod
    def backward(ctx, grad: Tensor):
        return grad, None


def _everyones(x: Tensor, group: ProcessGroup) -> list[Tensor]:
    parts = [torch.empty_like(x) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, x.contiguous(), group=group)
    return parts
