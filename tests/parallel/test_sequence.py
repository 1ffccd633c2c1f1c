"""Sequence parallelism against one process, and what is under way beside its products."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from realrl.ops.linear import WeightGradients
from realrl.parallel.sequence import SequenceParallel
from tests.world import run_world

VOCABULARY, HIDDEN, WIDTH = 12, 8, 16
NUM_TOKENS = (1, 16, 29)


def weights() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "embed": (VOCABULARY, HIDDEN),
        "up": (WIDTH, HIDDEN),
        "up_bias": (WIDTH,),
        "down": (HIDDEN, WIDTH),
        "down_bias": (HIDDEN,),
    }
    return {
        name: torch.randn(shape, dtype=torch.float64, generator=generator) for name, shape in shapes.items()
    }


def part(name: str, weight: Tensor, rank: int, size: int) -> Tensor:
    """A rank's rows, or columns of the matrix behind the activation; a sum's bias is whole."""
    if name == "down_bias":
        return weight
    return weight.chunk(size, dim=1 if name == "down" else 0)[rank]


def leaves(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone().requires_grad_() for name, tensor in tensors.items()}


def one_process(ids: Tensor, at: dict[str, Tensor]) -> Tensor:
    hidden = F.embedding(ids, at["embed"])
    wide = torch.tanh(hidden @ at["up"].t() + at["up_bias"])
    return hidden + wide @ at["down"].t() + at["down_bias"]


def spread_out(sp: SequenceParallel, ids: Tensor, at: dict[str, Tensor]) -> Tensor:
    hidden = sp.embedding(sp.padded(ids), at["embed"])
    wide = torch.tanh(sp.column(hidden, at["up"], at["up_bias"]))
    hidden = hidden + sp.row(wide, at["down"], at["down_bias"])
    assert len(hidden) == sp.num_rows(len(ids))
    return sp.whole(hidden)[: len(ids)]


def test_results_and_gradients_are_those_of_one_process():
    """Of an embedding, a column and a row product: two and four ranks, any number of tokens and pieces."""
    run_world(_check_all, 4)


def _check_all(rank: int) -> None:
    pairs = [dist.new_group(ranks) for ranks in ([0, 1], [2, 3])]
    for group in (pairs[rank // 2], dist.group.WORLD):
        for num_pieces, num_tokens, puts_off in product((1, 2), NUM_TOKENS, (None, False, True)):
            check_gradients(group, num_pieces, num_tokens, puts_off)
            check_shares(SequenceParallel(group, num_pieces=num_pieces), num_tokens)


def check_gradients(group: Any, num_pieces: int, num_tokens: int, puts_off: bool | None) -> None:
    """Of a matrix, from autograd, or added by its product at once or later."""
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    ids = torch.arange(num_tokens) * 5 % VOCABULARY
    factors = torch.linspace(-1, 1, num_tokens * HIDDEN, dtype=torch.float64).view(-1, HIDDEN)
    expected = leaves(weights())
    result = one_process(ids, expected)
    (result * factors).sum().backward()

    own = leaves({name: part(name, weight, rank, size) for name, weight in weights().items()})
    sums = {id(own[name]): torch.zeros_like(own[name]) for name in ("up", "down")}
    adding = None
    if puts_off is not None:
        adding = WeightGradients(lambda weight: sums[id(weight)], lambda weight: None, puts_off=puts_off)
    sp = SequenceParallel(group, num_pieces=num_pieces, weight_gradients=adding)
    found = spread_out(sp, ids, own)
    (found * factors).sum().backward()
    if adding is not None:
        put_off = adding.take()
        assert len(put_off) == (2 if puts_off else 0)
        for add in put_off:
            add()
        for name in ("up", "down"):
            assert own[name].grad is None
            own[name].grad = sums[id(own[name])]
    dist.all_reduce(own["down_bias"].grad, group=group)
    torch.testing.assert_close(found, result)
    for name, weight in expected.items():
        torch.testing.assert_close(own[name].grad, part(name, weight.grad, rank, size))


def check_shares(sp: SequenceParallel, num_tokens: int) -> None:
    """All shares together are all tokens, in their order."""
    tokens = torch.arange(3.0 * num_tokens).view(num_tokens, 3)
    share = sp.own(sp.padded(tokens))
    assert len(share) == sp.num_rows(num_tokens)
    assert torch.equal(sp.whole(share)[:num_tokens], tokens)


class _Work:
    def __init__(self, log: list[str]) -> None:
        self._log = log

    def wait(self) -> None:
        self._log.append("wait")


class _Products(TorchDispatchMode):
    def __init__(self, log: list[str]) -> None:
        super().__init__()
        self._log = log

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket is torch.ops.aten.mm:
            self._log.append("product")
        return func(*args, **(kwargs or {}))


@pytest.fixture
def log(monkeypatch) -> list[str]:
    """What one of two ranks launches, in order."""
    entries: list[str] = []

    def stand_in(name: str) -> Callable:
        def begin(output: Tensor, tensor: Tensor, group: Any, async_op: bool) -> _Work:
            assert async_op and output.is_contiguous() and tensor.is_contiguous()
            output.zero_()
            entries.append(name)
            return _Work(entries)

        return begin

    monkeypatch.setattr(dist, "all_gather_into_tensor", stand_in("gather"))
    monkeypatch.setattr(dist, "reduce_scatter_tensor", stand_in("sum"))
    monkeypatch.setattr(dist, "get_world_size", lambda group: 2)
    monkeypatch.setattr(dist, "get_rank", lambda group: 0)
    return entries


def test_a_message_is_under_way_beside_each_product_but_one(log):
    """Forward: the first piece's gather and the last one's sum alone have none beside them."""
    sp = SequenceParallel(object(), num_pieces=2)
    x, weight = torch.ones(8, 3, requires_grad=True), torch.ones(5, 3, requires_grad=True)
    with _Products(log):
        column = sp.column(x, weight)
        assert taken(log) == ["gather", "gather", "wait", "product", "wait", "product"]
        column.sum().backward()
        begun = ["gather", "gather", "product", "sum", "product", "sum"]
        assert taken(log) == [*begun, "wait", "wait", "product", "wait", "wait"]

        row = sp.row(x, weight)
        assert taken(log) == ["product", "sum", "product", "sum", "wait", "wait"]
        row.sum().backward()
        assert taken(log) == ["gather", "gather", "wait", "product", "wait", "product", "product"]


def taken(log: list[str]) -> list[str]:
    entries = log.copy()
    log.clear()
    return entries
