"""Tensor-parallel parts, on Megatron-Core's functions with the group passed in.

Shapes: T tokens, H hidden size, V vocabulary; a name with `_part` has this rank's share of a dim.
"""

from __future__ import annotations

import warnings

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.distributed import ProcessGroup

from realrl.parallel.groups import all_reduce

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "Transformer Engine and Apex are not installed")
    from megatron.core.tensor_parallel.layers import linear_with_grad_accumulation_and_async_allreduce
    from megatron.core.tensor_parallel.mappings import reduce_from_tensor_model_parallel_region


def column_linear(x: Tensor, weight_part: Tensor, group: ProcessGroup | None) -> Tensor:
    """`[T, H] -> [T, out_part]`: each rank makes some of the outputs of a whole input."""
    if group is None:
        return F.linear(x, weight_part)
    return linear_with_grad_accumulation_and_async_allreduce(
        x,
        weight_part,
        bias=None,
        gradient_accumulation_fusion=False,
        allreduce_dgrad=True,
        sequence_parallel=False,
        tp_group=group,
    )


def row_linear(x_part: Tensor, weight_part: Tensor, group: ProcessGroup | None) -> Tensor:
    """`[T, in_part] -> [T, H]`: each rank has some of the inputs; the results are summed."""
    return _sum_over(F.linear(x_part, weight_part), group)


def vocab_embedding(ids: Tensor, weight_part: Tensor, group: ProcessGroup | None) -> Tensor:
    """`[T] -> [T, H]`: each rank looks up the ids among its rows."""
    if group is None:
        return F.embedding(ids, weight_part)
    local = ids - dist.get_rank(group) * len(weight_part)
    elsewhere = (local < 0) | (local >= len(weight_part))
    found = F.embedding(local.masked_fill(elsewhere, 0), weight_part)
    return _sum_over(found.masked_fill(elsewhere[:, None], 0), group)


def gather_vocab(logits_part: Tensor, group: ProcessGroup | None) -> Tensor:
    """`[T, V_part] -> [T, V_padded]` on every rank; not differentiable."""
    if group is None:
        return logits_part
    parts = [torch.empty_like(logits_part) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, logits_part.contiguous(), group=group)
    return torch.cat(parts, dim=-1)


def vocab_logprobs(logits_part: Tensor, labels: Tensor, group: ProcessGroup | None) -> Tensor:
    """Log-probability of each label under the softmax of logits spread over the vocabulary.

    Shapes: logits `[T, V_part]` float32, every rank the same `V_part`, padding at -inf;
        labels `[T]`; returns `[T]`.
    """
    return _VocabLogprobs.apply(logits_part, labels, group)


def _sum_over(x: Tensor, group: ProcessGroup | None) -> Tensor:
    return x if group is None else reduce_from_tensor_model_parallel_region(x, group=group)


class _VocabLogprobs(torch.autograd.Function):
    """Keeps the softmax of the forward pass for the backward pass: d logp / d logits = onehot - softmax."""

    @staticmethod
    def forward(ctx, logits: Tensor, labels: Tensor, group: ProcessGroup | None) -> Tensor:
        first = 0 if group is None else dist.get_rank(group) * logits.shape[-1]
        local = labels - first
        elsewhere = (local < 0) | (local >= logits.shape[-1])
        local = local.masked_fill(elsewhere, 0)

        largest = logits.amax(dim=-1)
        if group is not None:
            dist.all_reduce(largest, op=dist.ReduceOp.MAX, group=group)
        shifted = logits - largest[:, None]
        target = shifted.gather(-1, local[:, None])[:, 0].masked_fill(elsewhere, 0)
        softmax = shifted.exp_()
        denominator = softmax.sum(dim=-1)
        all_reduce(target, group)
        all_reduce(denominator, group)
        softmax.div_(denominator[:, None])
        ctx.save_for_backward(softmax, local, elsewhere)
        return target - denominator.log()

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        softmax, local, elsewhere = ctx.saved_tensors
        grad_logits = softmax * -grad[:, None]
        grad_logits.scatter_add_(-1, local[:, None], grad.masked_fill(elsewhere, 0)[:, None])
        return grad_logits, None, None
