"""Tensor-parallel parts of layers, on Megatron-Core's functions with the group passed in.

Shapes: T tokens, H hidden size, V vocabulary; a name with `_part` has this rank's share of a dim.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.distributed import ProcessGroup

from realrl.base.waiting import wait_for_ranks
from realrl.ops.linear import PackedWeight, WeightGradients, linear


class TensorParallel:
    """A rank's part of layers that are spread over a group, or whole layers without a group.

    With `deterministic`, a token's results depend on that token alone, bit for bit, at any place in any
    batch. With `weight_gradients`, gradients of matrices go there instead of to autograd.
    """

    def __init__(
        self,
        group: ProcessGroup | None,
        *,
        deterministic: bool = False,
        weight_gradients: WeightGradients | None = None,
    ) -> None:
        self.group = group
        self.deterministic = deterministic
        self.weight_gradients = weight_gradients
        if group is not None:
            # Imported late: it takes seconds.
            from realrl.parallel import megatron

            self._megatron = megatron

    def column(
        self, x: Tensor, weight_part: Tensor | PackedWeight, bias_part: Tensor | None = None
    ) -> Tensor:
        """Return this rank's outputs of a linear layer, of the whole input.

        Shapes: x `[T, H]`, weight_part `[out_part, H]`, bias_part `[out_part]`; returns `[T, out_part]`.
        """
        if self.group is None or isinstance(weight_part, PackedWeight):
            return self._linear(x, weight_part, bias_part)
        if self.deterministic or self.weight_gradients is not None:
            x = self._megatron.copy_to_tensor_model_parallel_region(x, group=self.group)
            return self._linear(x, weight_part, bias_part)
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
        """Return the outputs of a linear layer that has its inputs spread over the ranks.

        Results are summed over the group, then biased.

        Shapes: x_part `[T, in_part]`, weight_part `[H, in_part]`, bias `[H]`; returns `[T, H]`.
        """
        if self.group is None:
            return self._linear(x_part, weight_part, bias)
        total = self._sum(self._linear(x_part, weight_part))
        if bias is None:
            return total
        return total + bias

    def _linear(self, x: Tensor, weight: Tensor | PackedWeight, bias: Tensor | None = None) -> Tensor:
        return linear(
            x,
            weight,
            bias,
            tiled=self.deterministic,
            weight_gradients=self.weight_gradients,
        )

    def embedding(self, ids: Tensor, weight_part: Tensor) -> Tensor:
        """Return the rows of an embedding, of which each rank has some.

        Shapes: ids int64 `[T]`, weight_part `[V_part, H]`; returns `[T, H]`.
        """
        if self.group is None:
            return F.embedding(ids, weight_part)
        num_rows = len(weight_part)
        first_id = dist.get_rank(self.group) * num_rows
        row = ids - first_id
        elsewhere = (row < 0) | (row >= num_rows)
        # Ids elsewhere look up some row, whose place is zero in the sum.
        own_row = row.masked_fill(elsewhere, 0)
        found = F.embedding(own_row, weight_part)
        return self._sum(found.masked_fill(elsewhere[:, None], 0))

    def gather(self, x_part: Tensor) -> Tensor:
        """Return the parts of all ranks side by side; not differentiable.

        Shapes: `[T, V_part]` to `[T, V_padded]`.
        Collective: over the group.
        """
        if self.group is None:
            return x_part
        return torch.cat(_everyones(x_part, self.group), dim=-1)

    def padded(self, tokens: Tensor) -> Tensor:
        """Return `[T, ...]` with rows of zeros appended, so that each rank can have an equal share of rows.

        Here no rows are needed: each rank has all.
        """
        return tokens

    def own(self, tokens: Tensor) -> Tensor:
        """Return the rows of `[T, ...]` for which this rank computes what is between the matrices: all."""
        return tokens

    def whole(self, x: Tensor) -> Tensor:
        """Return all rows, `[T, H]`, from each rank's own rows."""
        return x

    def _sum(self, x: Tensor) -> Tensor:
        """Return the sum of `[T, H]` over the ranks."""
        if self.deterministic:
            return _OrderedSum.apply(x, self.group)
        return self._megatron.reduce_from_tensor_model_parallel_region(x, group=self.group)


class _OrderedSum(torch.autograd.Function):
    """Sums in the ranks' order: an all-reduce may add in different orders at different places."""

    @staticmethod
    def forward(ctx, x: Tensor, group: ProcessGroup) -> Tensor:
        """Return the sum of `[T, H]` over the ranks."""
        first, *others = _everyones(x, group)
        for other in others:
            first += other
        return first

    @staticmethod
    def backward(ctx, grad: Tensor):
        """Return the gradient unchanged: each rank has the whole one."""
        return grad, None


def _everyones(x: Tensor, group: ProcessGroup) -> list[Tensor]:
    """Return the tensors of all ranks, which have equal shapes."""
    parts = [torch.empty_like(x) for _ in range(dist.get_world_size(group))]
    wait_for_ranks(dist.all_gather, parts, x.contiguous(), group=group)
    return parts
