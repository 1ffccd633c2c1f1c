"""Sequence parallelism: tensor parallelism in which each rank has a share of the tokens between the matrices.

Norms and residuals are computed and kept once, not once per rank, and messages are as large as without.
Source: Korthikanti et al. 2022, arXiv:2205.05198, section 4.2.2.

Tokens are divided into pieces, and each rank has a run of each piece. A message transfers one piece, while
the product of another piece is computed. Two ranks, two pieces:

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

from realrl.base.waiting import wait_for_ranks
from realrl.ops.linear import PackedWeight, WeightGradients
from realrl.parallel.tensor import TensorParallel

Later = Callable[[Tensor, Tensor], None]
"""A function of `(x, grad)` that `WeightGradients.of` returns."""


class SequenceParallel(TensorParallel):
    """`TensorParallel` on shares of the tokens; on CUDA, messages overlap with products."""

    def __init__(
        self, group: ProcessGroup, *, num_pieces: int, weight_gradients: WeightGradients | None = None
    ) -> None:
        super().__init__(group, weight_gradients=weight_gradients)
        self._pieces = _Pieces(group, num_pieces)

    def column(
        self, x: Tensor, weight_part: Tensor | PackedWeight, bias_part: Tensor | None = None
    ) -> Tensor:
        """Return this rank's outputs of a linear layer, of all tokens.

        Shapes: x `[T / tp, H]`, weight_part `[out_part, H]`, bias_part `[out_part]`; returns `[T, out_part]`.
        """
        weight, later = self._with_later(weight_part)
        product = _GatheredProduct.apply(x, weight, later, self._pieces)
        if bias_part is None:
            return product
        return product + bias_part

    def row(self, x_part: Tensor, weight_part: Tensor | PackedWeight, bias: Tensor | None = None) -> Tensor:
        """Return this rank's tokens of a linear layer whose inputs are spread over the ranks.

        Shapes: x_part `[T, in_part]`, weight_part `[H, in_part]`, bias `[H]`; returns `[T / tp, H]`.
        """
        weight, later = self._with_later(weight_part)
        total = _SummedProduct.apply(x_part, weight, later, self._pieces)
        if bias is None:
            return total
        return total + bias

    def num_rows(self, num_tokens: int) -> int:
        """Return the number of rows of a share of this many tokens, once they are padded."""
        rows_per_run = -(-num_tokens // self._pieces.num_runs)
        return self._pieces.num * rows_per_run

    def padded(self, tokens: Tensor) -> Tensor:
        """Return `[T, ...]` with rows of zeros appended, so that each rank can have an equal share."""
        num_missing = -len(tokens) % self._pieces.num_runs
        if not num_missing:
            return tokens
        padding = tokens.new_zeros(num_missing, *tokens.shape[1:])
        return torch.cat((tokens, padding))

    def own(self, tokens: Tensor) -> Tensor:
        """Return this rank's rows: `[T, ...]` to `[T / tp, ...]`."""
        return self._pieces.own(tokens)

    def whole(self, x: Tensor) -> Tensor:
        """Return all rows from each rank's own: `[T / tp, H]` to `[T, H]`."""
        return _Whole.apply(x, self._pieces)

    def _sum(self, x: Tensor) -> Tensor:
        """Return this rank's rows of the sum over the ranks: `[T, H]` to `[T / tp, H]`."""
        return _SummedShare.apply(x, self._pieces)

    def _with_later(self, weight: Tensor | PackedWeight) -> tuple[Tensor, Later | None]:
        """Return the weight to multiply by, and the function that takes its gradient instead of autograd."""
        assert not isinstance(weight, PackedWeight), "weights are packed for generation, on whole tokens"
        if self.weight_gradients is None:
            return weight, None
        return weight.detach(), self.weight_gradients.of(weight)


@dataclass(frozen=True)
class _Pieces:
    """The division of tokens into pieces and runs, and the messages between shares and all tokens."""

    group: ProcessGroup
    num: int

    @property
    def num_ranks(self) -> int:
        """The number of ranks, each of which has a run of every piece."""
        return dist.get_world_size(self.group)

    @property
    def num_runs(self) -> int:
        """The number of runs over all pieces."""
        return self.num * self.num_ranks

    def own(self, tokens: Tensor) -> Tensor:
        """Return this rank's run of each piece: `[T, ...]` to `[T / tp, ...]`."""
        runs = tokens.tensor_split(self.num_runs)
        first = dist.get_rank(self.group)
        own_runs = runs[first :: self.num_ranks]
        return torch.cat(own_runs)

    def begin_gather(self, share: Tensor) -> tuple[Tensor, list[Work]]:
        """Return all tokens, and the work to wait for before each piece of them is read.

        Shapes: `[T / tp, ...]` to `[T, ...]`.
        """
        num_tokens = len(share) * self.num_ranks
        whole = share.new_empty(num_tokens, *share.shape[1:])
        pieces = whole.tensor_split(self.num)
        runs = share.contiguous().tensor_split(self.num)

        gathering: list[Work] = []
        for piece, run in zip(pieces, runs, strict=True):
            work = wait_for_ranks(
                dist.all_gather_into_tensor,
                piece,
                run,
                group=self.group,
                async_op=True,
            )
            gathering.append(work)
        return whole, gathering

    def gather(self, share: Tensor) -> Tensor:
        """Return all tokens: `[T / tp, ...]` to `[T, ...]`."""
        whole, gathering = self.begin_gather(share)
        _wait(gathering)
        return whole

    def begin_sum(self, piece: Tensor, run: Tensor) -> Work:
        """Begin to sum one piece over the ranks, into this rank's run of it."""
        return wait_for_ranks(
            dist.reduce_scatter_tensor,
            run,
            piece.contiguous(),
            group=self.group,
            async_op=True,
        )

    def gathered_product(self, share: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """Return all tokens, and their product with a matrix, computed while later pieces arrive.

        Shapes: share `[T / tp, K]`, right `[K, N]`; returns `[T, K]` and `[T, N]`.
        """
        whole, gathering = self.begin_gather(share)
        num_columns = right.shape[1]
        product = whole.new_empty(len(whole), num_columns)
        pieces = whole.tensor_split(self.num)
        outs = product.tensor_split(self.num)

        for piece, out, arriving in zip(pieces, outs, gathering, strict=True):
            wait_for_ranks(arriving.wait)
            torch.mm(piece, right, out=out)
        return whole, product

    def begin_summed_product(self, left: Tensor, right: Tensor) -> tuple[Tensor, list[Work]]:
        """Return this rank's share of the ranks' sum of `left @ right`, and the work to wait for.

        A piece is summed while the next one's product is computed.

        Shapes: left `[T, K]`, right `[K, N]`; returns `[T / tp, N]`.
        """
        num_rows = len(left) // self.num_ranks
        num_columns = right.shape[1]
        share = left.new_empty(num_rows, num_columns)
        pieces = left.tensor_split(self.num)
        runs = share.tensor_split(self.num)

        summing: list[Work] = []
        for piece, run in zip(pieces, runs, strict=True):
            # A name for the product would keep it until the next one is there.
            summing.append(self.begin_sum(piece @ right, run))
        return share, summing


class _GatheredProduct(torch.autograd.Function):
    """`x @ weight.T` with x gathered; the backward pass gathers it again.

    Shapes: x_share `[T / tp, K]`, weight `[N, K]`.
    """

    @staticmethod
    def forward(ctx, x_share: Tensor, weight: Tensor, later: Later | None, pieces: _Pieces) -> Tensor:
        """Return the product, `[T, N]`."""
        ctx.save_for_backward(x_share, weight)
        ctx.later = later
        ctx.pieces = pieces
        _, product = pieces.gathered_product(x_share, weight.t())
        return product

    @staticmethod
    def backward(ctx, grad: Tensor):
        """Return the gradients of this rank's rows and of the weight, from that of the product, `[T, N]`."""
        x_share, weight = ctx.saved_tensors
        pieces = ctx.pieces
        x, gathering = pieces.begin_gather(x_share)
        grad_share, summing = pieces.begin_summed_product(grad, weight)
        _wait(gathering)
        grad_weight = _weight_gradient(x, grad, ctx.later)
        _wait(summing)
        return grad_share, grad_weight, None, None


class _SummedProduct(torch.autograd.Function):
    """`x @ weight.T`, summed over the ranks.

    Shapes: x_part `[T, K]`, weight `[N, K]`.
    """

    @staticmethod
    def forward(ctx, x_part: Tensor, weight: Tensor, later: Later | None, pieces: _Pieces) -> Tensor:
        """Return this rank's rows of the sum, `[T / tp, N]`."""
        ctx.save_for_backward(x_part, weight)
        ctx.later = later
        ctx.pieces = pieces
        share, summing = pieces.begin_summed_product(x_part, weight.t())
        _wait(summing)
        return share

    @staticmethod
    def backward(ctx, grad_share: Tensor):
        """Return the gradients of x_part and of the weight, from that of this rank's rows, `[T / tp, N]`."""
        x_part, weight = ctx.saved_tensors
        grad, grad_x = ctx.pieces.gathered_product(grad_share, weight)
        grad_weight = _weight_gradient(x_part, grad, ctx.later)
        return grad_x, grad_weight, None, None


class _SummedShare(torch.autograd.Function):
    """The sum over the ranks, of which each rank gets its own rows."""

    @staticmethod
    def forward(ctx, x: Tensor, pieces: _Pieces) -> Tensor:
        """Return this rank's rows of the sum: `[T, ...]` to `[T / tp, ...]`."""
        ctx.pieces = pieces
        num_rows = len(x) // pieces.num_ranks
        share = x.new_empty(num_rows, *x.shape[1:])
        parts = x.tensor_split(pieces.num)
        runs = share.tensor_split(pieces.num)

        summing: list[Work] = []
        for part, run in zip(parts, runs):
            work = pieces.begin_sum(part, run)
            summing.append(work)

        _wait(summing)
        return share

    @staticmethod
    def backward(ctx, grad_share: Tensor):
        """Return the gradient of all rows: `[T / tp, ...]` to `[T, ...]`."""
        return ctx.pieces.gather(grad_share), None


class _Whole(torch.autograd.Function):
    """All rows, from which every rank computes the same, so that each has the whole gradient."""

    @staticmethod
    def forward(ctx, x_share: Tensor, pieces: _Pieces) -> Tensor:
        """Return all rows: `[T / tp, ...]` to `[T, ...]`."""
        ctx.pieces = pieces
        return pieces.gather(x_share)

    @staticmethod
    def backward(ctx, grad: Tensor):
        """Return the gradient of this rank's rows: `[T, ...]` to `[T / tp, ...]`."""
        return ctx.pieces.own(grad), None


def _weight_gradient(x: Tensor, grad: Tensor, later: Later | None) -> Tensor | None:
    """Return the weight's gradient of `x @ weight.T`; None if `later` takes it.

    Shapes: x `[T, K]`, grad `[T, N]`; returns `[N, K]`.
    """
    if later is None:
        return grad.t() @ x
    later(x, grad)
    return None


def _wait(works: list[Work]) -> None:
    for work in works:
        wait_for_ranks(work.wait)
