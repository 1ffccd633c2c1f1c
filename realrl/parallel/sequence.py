"""Tensor parallelism in which each rank has some of the tokens between the matrices: sequence parallelism.

Norms and residuals are computed and kept once, not once a rank, and messages are as large as without.
Source: Korthikanti et al. 2022, arXiv:2205.05198, section 4.2.2.

Tokens lie in pieces, and each rank has a run of each piece. A message then brings or takes a piece, and the
next piece's message is under way while the product of this one is computed. Two ranks, two pieces:

    tokens       0 1 2 3 | 4 5 6 7
    rank         0 0 1 1 | 0 0 1 1

    into a matrix (column)                    out of a matrix (row)
    messages   gather 0 | gather 1            messages             | sum 0     | sum 1
    products            | product 0 | product 1    product 0 | product 1 |

Shapes: T tokens, a multiple of the group's size times the pieces; a name with `_share` has this rank's
`T / tp` rows, piece by piece.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup, Work

from realrl.ops.linear import WeightGradients
from realrl.parallel.tensor import TensorParallel

Later = Callable[[Tensor, Tensor], None]
"""As `WeightGradients.of` gives it."""


class SequenceParallel(TensorParallel):
    """As `TensorParallel`, on shares of the tokens; on CUDA, messages overlap with products."""

    def __init__(
        self, group: ProcessGroup, *, num_pieces: int, weight_gradients: WeightGradients | None = None
    ) -> None:
        super().__init__(group, weight_gradients=weight_gradients)
        self._pieces = _Pieces(group, num_pieces)

    def column(self, x: Tensor, weight_part: Tensor, bias_part: Tensor | None = None) -> Tensor:
        """`[T / tp, H] -> [T, out_part]`."""
        product = _GatheredProduct.apply(x, *self._with_later(weight_part), self._pieces)
        return product if bias_part is None else product + bias_part

    def row(self, x_part: Tensor, weight_part: Tensor, bias: Tensor | None = None) -> Tensor:
        """`[T, in_part] -> [T / tp, H]`."""
        total = _SummedProduct.apply(x_part, *self._with_later(weight_part), self._pieces)
        return total if bias is None else total + bias

    def num_rows(self, num_tokens: int) -> int:
        """Rows of a share of so many tokens, once they are padded."""
        return self._pieces.num * -(-num_tokens // self._pieces.num_runs)

    def padded(self, tokens: Tensor) -> Tensor:
        missing = -len(tokens) % self._pieces.num_runs
        return torch.cat((tokens, tokens.new_zeros(missing, *tokens.shape[1:]))) if missing else tokens

    def own(self, tokens: Tensor) -> Tensor:
        return self._pieces.own(tokens)

    def whole(self, x: Tensor) -> Tensor:
        return _Whole.apply(x, self._pieces)

    def _sum(self, x: Tensor) -> Tensor:
        """`[T, H] -> [T / tp, H]`."""
        return _SummedShare.apply(x, self._pieces)

    def _with_later(self, weight: Tensor) -> tuple[Tensor, Later | None]:
        """The weight to multiply by, and the function that puts its gradient off, if there is one."""
        if self.weight_gradients is None:
            return weight, None
        return weight.detach(), self.weight_gradients.of(weight)


@dataclass(frozen=True)
class _Pieces:
    """The division of tokens into pieces and runs, and the messages between shares and all tokens."""

    group: ProcessGroup
    num: int

    @property
    def num_runs(self) -> int:
        return self.num * dist.get_world_size(self.group)

    def own(self, tokens: Tensor) -> Tensor:
        first = dist.get_rank(self.group)
        runs = tokens.tensor_split(self.num_runs)
        return torch.cat(runs[first :: dist.get_world_size(self.group)])

    def begin_gather(self, share: Tensor) -> tuple[Tensor, list[Work]]:
        """All tokens, and what to wait for before each piece of them is read."""
        whole = share.new_empty(len(share) * dist.get_world_size(self.group), *share.shape[1:])
        runs = share.contiguous().tensor_split(self.num)
        gathering = []
        for piece, run in zip(whole.tensor_split(self.num), runs, strict=True):
            gathering.append(dist.all_gather_into_tensor(piece, run, group=self.group, async_op=True))
        return whole, gathering

    def gather(self, share: Tensor) -> Tensor:
        whole, gathering = self.begin_gather(share)
        _wait(gathering)
        return whole

    def begin_sum(self, piece: Tensor, run: Tensor) -> Work:
        """Sum one piece over the ranks, into this rank's run of it."""
        return dist.reduce_scatter_tensor(run, piece.contiguous(), group=self.group, async_op=True)

    def gathered_product(self, share: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """All tokens, and their product with a matrix; a piece's is computed while later ones arrive."""
        whole, gathering = self.begin_gather(share)
        product = whole.new_empty(len(whole), right.shape[1])
        pieces = zip(whole.tensor_split(self.num), product.tensor_split(self.num), gathering, strict=True)
        for piece, out, arriving in pieces:
            arriving.wait()
            torch.mm(piece, right, out=out)
        return whole, product

    def begin_summed_product(self, left: Tensor, right: Tensor) -> tuple[Tensor, list[Work]]:
        """This rank's share of the ranks' sum of `left @ right`, and what to wait for; a piece is summed
        while the next one's product is computed."""
        share = left.new_empty(len(left) // dist.get_world_size(self.group), right.shape[1])
        summing = []
        for piece, run in zip(left.tensor_split(self.num), share.tensor_split(self.num), strict=True):
            summing.append(self.begin_sum(piece @ right, run))
        return share, summing


class _GatheredProduct(torch.autograd.Function):
    """`x @ weight.T` with x gathered; the backward pass gathers it again."""

    @staticmethod
    def forward(ctx, x_share: Tensor, weight: Tensor, later: Later | None, pieces: _Pieces) -> Tensor:
        ctx.save_for_backward(x_share, weight)
        ctx.later, ctx.pieces = later, pieces
        _, product = pieces.gathered_product(x_share, weight.t())
        return product

    @staticmethod
    def backward(ctx, grad: Tensor):
        x_share, weight = ctx.saved_tensors
        x, gathering = ctx.pieces.begin_gather(x_share)
        grad_share, summing = ctx.pieces.begin_summed_product(grad, weight)
        _wait(gathering)
        grad_weight = _weight_gradient(x, grad, ctx.later)
        _wait(summing)
        return grad_share, grad_weight, None, None


class _SummedProduct(torch.autograd.Function):
    """`x @ weight.T`, summed over the ranks."""

    @staticmethod
    def forward(ctx, x_part: Tensor, weight: Tensor, later: Later | None, pieces: _Pieces) -> Tensor:
        ctx.save_for_backward(x_part, weight)
        ctx.later, ctx.pieces = later, pieces
        share, summing = pieces.begin_summed_product(x_part, weight.t())
        _wait(summing)
        return share

    @staticmethod
    def backward(ctx, grad_share: Tensor):
        x_part, weight = ctx.saved_tensors
        grad, grad_x = ctx.pieces.gathered_product(grad_share, weight)
        return grad_x, _weight_gradient(x_part, grad, ctx.later), None, None


class _SummedShare(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, pieces: _Pieces) -> Tensor:
        ctx.pieces = pieces
        share = x.new_empty(len(x) // dist.get_world_size(pieces.group), *x.shape[1:])
        runs = share.tensor_split(pieces.num)
        _wait([pieces.begin_sum(piece, run) for piece, run in zip(x.tensor_split(pieces.num), runs)])
        return share

    @staticmethod
    def backward(ctx, grad_share: Tensor):
        return ctx.pieces.gather(grad_share), None


class _Whole(torch.autograd.Function):
    """Every rank goes on alike from the whole, so that each has the whole gradient."""

    @staticmethod
    def forward(ctx, x_share: Tensor, pieces: _Pieces) -> Tensor:
        ctx.pieces = pieces
        return pieces.gather(x_share)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return ctx.pieces.own(grad), None


def _weight_gradient(x: Tensor, grad: Tensor, later: Later | None) -> Tensor | None:
    """The weight's gradient of `x @ weight.T`; None where it is put off."""
    if later is None:
        return grad.t() @ x
    later(x, grad)
    return None


def _wait(works: list[Work]) -> None:
    for work in works:
        work.wait()
