"""What ranks ask of NCCL, recorded one rank at a time, and whether it can come to an end.

A rank's calls are recorded by a process group that does nothing: order, groups and peers do not depend on
numbers. Then all ranks' calls are played together by NCCL's rules, as PyTorch uses it:

* a communicator's operations run in the order in which each of its ranks calls them, and one runs once all
  ranks that it joins have come to it, with the same operation, type and size;
* single sends and receives of two ranks go over a communicator of these two alone, in both directions one
  behind the other; a send ends with its receive, nothing is buffered;
* what is waited for holds up all that the rank calls thereafter, and nothing that it called before;
* each communicator has a stream, and each stream a queue of the device, or all share a single one
  (`share_a_queue`): then what cannot begin holds up all that is behind it.

Source: NCCL user guide, "Thread safety" and "Point-to-point communication"; torch/csrc/distributed/c10d/
ProcessGroupNCCL.cpp of PyTorch 2.13.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.testing._internal.distributed.fake_pg import FakeStore

Communicator = tuple
"""Its name: a group's number and ranks, for a pair's own also the two."""


@dataclass
class Call:
    """One operation of one rank."""

    communicator: Communicator
    what: tuple
    """Equal at all ranks that it joins."""
    joins: tuple[int, ...]
    waits_for: list[Call] = field(default_factory=list)
    """What holds it up besides the communicator: calls of this rank that were waited for before it."""
    is_done: bool = False

    def __str__(self) -> str:
        return f"{self.what} over {self.communicator}"


class _Pending:
    """As `dist.Work`: to wait for it holds up what is called thereafter."""

    def __init__(self, rank: _Recorder, call: Call) -> None:
        self._rank, self._call = rank, call

    def wait(self) -> None:
        self._rank.waited.append(self._call)


class _Recorder:
    """Notes one rank's calls."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.calls: list[Call] = []
        self.waited: list[Call] = []

    def collective(self, name: str, tensor: Tensor, group: Any, waits: bool, *more: Any) -> _Pending | None:
        ranks = tuple(dist.get_process_group_ranks(group or dist.group.WORLD))
        what = (name, str(tensor.dtype), tensor.numel(), *more)
        return self._note((_number(group), ranks), what, ranks, waits)

    def single(self, source: int, target: int, tensor: Tensor, group: Any, waits: bool) -> _Pending | None:
        pair = tuple(sorted((source, target)))
        what = (f"{source} to {target}", str(tensor.dtype), tensor.numel())
        return self._note((_number(group), "pair", *pair), what, pair, waits)

    def _note(self, communicator: Communicator, what: tuple, joins: tuple, waits: bool) -> _Pending | None:
        call = Call(communicator, what, joins, list(self.waited))
        self.calls.append(call)
        if waits:
            self.waited.append(call)
            return None
        return _Pending(self, call)


def _number(group: Any) -> str:
    return "world" if group is None else group.group_name


@contextmanager
def recorded(monkeypatch, rank: int, world_size: int) -> Iterator[list[Call]]:
    """What this process calls meanwhile, as one rank of a world; what is received is zeros."""
    dist.init_process_group("fake", rank=rank, world_size=world_size, store=FakeStore())
    recorder = _Recorder(rank)
    with monkeypatch.context() as patch:
        for name, stand_in in _stand_ins(recorder).items():
            patch.setattr(dist, name, stand_in)
        try:
            yield recorder.calls
        finally:
            dist.destroy_process_group()


def _stand_ins(rank: _Recorder) -> dict[str, Callable]:
    def all_reduce(tensor, op=None, group=None, async_op=False):
        return rank.collective("all_reduce", tensor, group, not async_op)

    def reduce(tensor, dst=None, op=None, group=None, async_op=False):
        return rank.collective("reduce", tensor.zero_(), group, not async_op, dst)

    def broadcast(tensor, src=None, group=None, async_op=False):
        return rank.collective("broadcast", tensor.zero_(), group, not async_op, src)

    def all_gather(tensors, tensor, group=None, async_op=False):
        for each in tensors:
            each.copy_(tensor)
        return rank.collective("all_gather", tensor, group, not async_op)

    def all_gather_into_tensor(output, tensor, group=None, async_op=False):
        return rank.collective("all_gather_into_tensor", output, group, not async_op)

    def reduce_scatter_tensor(output, tensor, op=None, group=None, async_op=False):
        output.zero_()
        return rank.collective("reduce_scatter_tensor", tensor, group, not async_op)

    def isend(tensor, dst=None, group=None):
        return rank.single(rank.rank, dst, tensor, group, False)

    def irecv(tensor, src=None, group=None):
        return rank.single(src, rank.rank, tensor.zero_(), group, False)

    def send(tensor, dst=None, group=None):
        rank.single(rank.rank, dst, tensor, group, True)

    def recv(tensor, src=None, group=None):
        rank.single(src, rank.rank, tensor.zero_(), group, True)

    return {name: made for name, made in locals().items() if name != "rank"}


def share_a_queue(calls: Sequence[Sequence[Call]]) -> None:
    """Give each rank's device one queue, as `CUDA_DEVICE_MAX_CONNECTIONS=1` does.

    An operation then begins after all that its rank called before it have begun, and so waits for what these
    wait for in their communicators.
    """
    for own in calls:
        latest: dict[Communicator, Call] = {}
        holding: list[Call] = []
        for call in own:
            call.waits_for = call.waits_for + holding
            if call.communicator in latest:
                holding.append(latest[call.communicator])
            latest[call.communicator] = call


def stuck(calls: Sequence[Sequence[Call]]) -> list[str]:
    """What each rank is held up by once nothing goes on any more; nothing where all came to an end.

    Raises:
        AssertionError: ranks meet with different operations.
    """
    queues: list[dict[Communicator, deque[Call]]] = []
    for own in calls:
        queue = defaultdict(deque)
        for call in own:
            queue[call.communicator].append(call)
        queues.append(queue)
    while any(_run_what_can(queues, rank) for rank in range(len(queues))):
        pass
    left = ((rank, queue[name][0]) for rank, queue in enumerate(queues) for name in queue if queue[name])
    return [f"rank {rank}: {call}" for rank, call in left]


def _run_what_can(queues: Sequence[dict[Communicator, deque[Call]]], rank: int) -> bool:
    """Run the operations that a rank and all others have come to; whether there was one."""
    found = False
    for name, queue in queues[rank].items():
        while queue and (heads := _heads(queues, name, queue[0])):
            assert len({head.what for head in heads}) == 1, f"{[str(head) for head in heads]}"
            for member in queue[0].joins:
                queues[member][name].popleft().is_done = True
            found = True
    return found


def _heads(queues, name: Communicator, call: Call) -> list[Call] | None:
    """The members' calls that are next on a communicator, if nothing holds any of them up."""
    heads = [queues[member][name][0] if queues[member].get(name) else None for member in call.joins]
    is_ready = all(head is not None and all(c.is_done for c in head.waits_for) for head in heads)
    if not is_ready or _both_send(heads):
        return None
    return heads


def _both_send(heads: Sequence[Call]) -> bool:
    """Whether two ranks have each come to a send to the other, or to a receive."""
    return "pair" in heads[0].communicator and len({head.what[0] for head in heads}) > 1
