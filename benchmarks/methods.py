"""The ways to bring weights from one layout to another that are measured side by side.

A method is made once for a pair, by every worker, and run as often as wanted. `bytes_moved` is what its runs
send between ranks, all ranks together; `staging_bytes` what it keeps on this rank beside the shared scratch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import torch.distributed as dist
from torch import Tensor
from torch.distributed import P2POp

from benchmarks.checkpoint import Checkpoint
from benchmarks.context import Context
from benchmarks.pieces import buckets, messages, pieces, senders, shares
from realrl.layouts.layout import Box, Rank
from realrl.layouts.plan import TransferPlan, plan
from realrl.layouts.topology import ONE_NODE, Topology
from realrl.realloc.transfer import Transfer, TransferSettings

_MESSAGE_BYTES = 4 << 20
"""Of each rank at once: what gloo's all-gather is fastest with; its sends and receives do not mind."""
_BUCKET_BYTES = 64 << 20
_PADDING = 1.1

_Round = Sequence[Sequence[Box]]
"""What each rank sends to all."""


class Method(Protocol):
    """One way, on one rank."""

    bytes_moved: int
    staging_bytes: int

    def run(self) -> None:
        """Collective over all workers. Timed."""

    def clean(self) -> None:
        """After a run. Not timed."""


class _Base:
    bytes_moved = 0
    staging_bytes = 0

    def __init__(self, context: Context) -> None:
        self.context = context

    def clean(self) -> None:
        pass


class Ours(_Base):
    """The plan, carried out on the default process group."""

    topology = ONE_NODE
    checksum = True

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        found = plan(*context.layouts, self.topology)
        self.bytes_moved = found.moved * context.dtype.itemsize
        settings = TransferSettings(staging_bytes=context.staging_bytes, checksum=self.checksum)
        self._transfer = Transfer(found, rank=context.rank, settings=settings)

    @property
    def staging_bytes(self) -> int:
        return self._transfer.staging_bytes

    def run(self) -> None:
        self._transfer.run(self.context.source.tensors, self.context.target.tensors)


class OursShared(Ours):
    """The same through shared memory."""

    topology = Topology(shared_memory=True)


class OursUnchecked(Ours):
    """What checksums cost: the same without them."""

    checksum = False


class OursSharedUnchecked(OursShared):
    """Through shared memory and without checksums."""

    checksum = False


class RawExchange(_Base):
    """The floor of the transport: the plan's bytes between each two ranks, from one contiguous buffer to
    another, all posted at once, and nothing packed."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._edges = {e: n * context.dtype.itemsize for e, n in _edges(plan(*context.layouts)).items()}
        self.bytes_moved = sum(self._edges.values())

    def run(self) -> None:
        rank = self.context.rank
        mine = {edge: n for edge, n in sorted(self._edges.items()) if rank in edge}
        buffers = self.context.scratch.buffers(*mine.values())
        operations = []
        for (sender, receiver), buffer in zip(mine, buffers):
            call, peer = (dist.isend, receiver) if sender == rank else (dist.irecv, sender)
            operations += [P2POp(call, part, peer) for part in buffer.split(_MESSAGE_BYTES)]
        for work in dist.batch_isend_irecv(operations) if operations else ():
            work.wait()


class Memcpy(_Base):
    """The floor of shared memory: each rank copies as many bytes as it receives, all ranks at once.

    What a rank keeps, which every method must copy from source to target too, is not in it.
    """

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        found = plan(*context.layouts)
        self.bytes_moved = found.moved * context.dtype.itemsize
        self._own_bytes = found.received.get(context.rank, 0) * context.dtype.itemsize

    def run(self) -> None:
        a, b = self.context.scratch.buffers(self._own_bytes, self._own_bytes)
        b.copy_(a)


class AllGatherFlat(_Base):
    """An all-gather of contiguous buffers, of as many bytes as the plan moves, and nothing else."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        num = len(context.ranks)
        moved = plan(*context.layouts).moved * context.dtype.itemsize
        self._part_bytes = -(-moved // (num * max(1, num - 1)))
        self.bytes_moved = self._part_bytes * num * (num - 1)

    def run(self) -> None:
        if not self.context.takes_part or not self._part_bytes:
            return
        num = len(self.context.ranks)
        gathered, own = self.context.scratch.buffers(num * self._part_bytes, self._part_bytes)
        for whole, part in zip(gathered.split(num * _MESSAGE_BYTES), own.split(_MESSAGE_BYTES)):
            dist.all_gather_into_tensor(whole, part, group=self.context.group)


class AllGatherSlice(_Base):
    """Gathers every whole tensor on every rank, and each takes its slices.

    Each element is sent by one of its holders, which share the work evenly. A round takes a message of each
    rank, so that buffers stay small; where they differ in size, as an all-gather's cannot, each is broadcast.
    """

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        limit = _MESSAGE_BYTES // context.dtype.itemsize
        by_rank = shares(context.layouts[0])
        queues = [messages(by_rank.get(rank, ()), limit) for rank in context.ranks]
        depth = max(map(len, queues))
        self._rounds = [[queue[i] if i < len(queue) else [] for queue in queues] for i in range(depth)]
        sent = (len(m) * self._width(m) if self._is_even(m) else self._size(m) for m in self._rounds)
        self.bytes_moved = sum(sent) * (len(context.ranks) - 1)

    def run(self) -> None:
        if not self.context.takes_part:
            return
        for members in self._rounds:
            if self._is_even(members):
                self._all_gather(members)
            else:
                self._broadcast(members)

    def _all_gather(self, members: _Round) -> None:
        width = self._width(members)
        gathered, own = self.context.scratch.buffers(width * len(members), width)
        self.context.pack(members[self.context.ranks.index(self.context.rank)], own)
        dist.all_gather_into_tensor(gathered, own, group=self.context.group)
        for boxes, buffer in zip(members, gathered.split(width)):
            self.context.unpack(boxes, buffer)

    def _broadcast(self, members: _Round) -> None:
        for sender, boxes in zip(self.context.ranks, members):
            if boxes:
                (buffer,) = self.context.scratch.buffers(self.context.num_bytes(boxes))
                if self.context.rank == sender:
                    self.context.pack(boxes, buffer)
                dist.broadcast(buffer, sender, group=self.context.group)
                self.context.unpack(boxes, buffer)

    def _width(self, members: _Round) -> int:
        return max(map(self.context.num_bytes, members))

    def _size(self, members: _Round) -> int:
        return sum(map(self.context.num_bytes, members))

    def _is_even(self, members: _Round) -> bool:
        return len(members) * self._width(members) <= _PADDING * self._size(members)


class GatherBroadcast(_Base):
    """One rank gathers whole tensors, a bucket at a time, and broadcasts them; each takes its slices."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._root = context.ranks[0]
        extents = context.layouts[0].extents()
        whole = [Box(tensor, (0,) * len(shape), shape) for tensor, shape in extents.items()]
        first_holders = _first_holders(context)
        self._buckets = []
        for bucket in buckets(whole, _BUCKET_BYTES // context.dtype.itemsize):
            names = {box.tensor for box in bucket}
            owned = {r: [b for b in boxes if b.tensor in names] for r, boxes in first_holders.items()}
            self._buckets.append((bucket, {rank: boxes for rank, boxes in owned.items() if boxes}))
        self.bytes_moved = sum(self._moved(*bucket) for bucket in self._buckets)

    def run(self) -> None:
        if not self.context.takes_part:
            return
        for bucket, owned in self._buckets:
            own = owned.get(self.context.rank, [])
            whole_bytes = self.context.num_bytes(bucket)
            others = {r: boxes for r, boxes in sorted(owned.items()) if r != self._root}
            if self.context.rank == self._root:
                whole, *parts = self.context.scratch.buffers(
                    whole_bytes, *map(self.context.num_bytes, others.values())
                )
                self._gather(bucket, own, others, whole, parts)
            else:
                whole, part = self.context.scratch.buffers(whole_bytes, self.context.num_bytes(own))
                self.context.pack(own, part)
                if own:
                    dist.send(part, self._root)
            dist.broadcast(whole, self._root, group=self.context.group)
            self.context.unpack(bucket, whole)

    def _gather(
        self,
        bucket: Sequence[Box],
        own: Sequence[Box],
        others: dict[Rank, list[Box]],
        whole: Tensor,
        parts: Sequence[Tensor],
    ) -> None:
        works = [dist.irecv(part, rank) for rank, part in zip(others, parts)]
        place = {box.tensor: block for box, block in self.context.blocks(bucket, whole)}
        for box in own:
            self.context.source.read(box, place[box.tensor][_index(box)])
        for work, part, boxes in zip(works, parts, others.values()):
            work.wait()
            for box, block in self.context.blocks(boxes, part):
                place[box.tensor][_index(box)].copy_(block)

    def _moved(self, bucket: Sequence[Box], owned: dict[Rank, list[Box]]) -> int:
        gathered = sum(self.context.num_bytes(boxes) for rank, boxes in owned.items() if rank != self._root)
        return gathered + self.context.num_bytes(bucket) * (len(self.context.ranks) - 1)


class PairBroadcast(_Base):
    """ReaL's way: what one source shard and one destination shard share is packed into one buffer and
    broadcast by one holder to all replicas of the destination shard, also to those that hold it already.

    Source: Mei et al. 2024, arXiv:2406.14088, and its code (see `senders`), without its limits on degrees.
    """

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        contents: dict[tuple, list[Box]] = {}
        for piece in pieces(*context.layouts):
            contents.setdefault((piece.holders, piece.wanting), []).extend(piece.boxes)
        self._steps = []
        for (holders, wanting), boxes in contents.items():
            for sender, receivers in senders(holders, wanting, lambda rank: 0).items():
                members = {sender, *receivers}
                group = context.group_of(tuple(members)) if len(members) > 1 else None
                self._steps.append((sender, receivers, boxes, group))
                self.bytes_moved += context.num_bytes(boxes) * (len(members) - 1)

    def run(self) -> None:
        rank = self.context.rank
        for sender, receivers, boxes, group in self._steps:
            if rank != sender and rank not in receivers:
                continue
            (buffer,) = self.context.scratch.buffers(self.context.num_bytes(boxes))
            if rank == sender:
                self.context.pack(boxes, buffer)
            if group is not None:
                dist.broadcast(buffer, sender, group=group)
            if rank in receivers:
                self.context.unpack(boxes, buffer)


METHODS: dict[str, type] = {
    "memcpy": Memcpy,
    "ours-shm": OursShared,
    "ours-shm-unchecked": OursSharedUnchecked,
    "raw-exchange": RawExchange,
    "ours-gloo": Ours,
    "ours-gloo-unchecked": OursUnchecked,
    "ours-nccl": Ours,
    "all-gather-flat": AllGatherFlat,
    "all-gather-slice": AllGatherSlice,
    "pair-broadcast": PairBroadcast,
    "gather-broadcast": GatherBroadcast,
    "checkpoint": Checkpoint,
}
"""In the order of the report."""

FLOORS = dict.fromkeys(("memcpy", "ours-shm", "ours-shm-unchecked"), "memcpy")
"""What a method's time is compared with; all others with the raw exchange."""
UNVERIFIED = frozenset(("memcpy", "raw-exchange", "all-gather-flat"))
"""These move bytes that mean nothing."""
CPU_ONLY = frozenset(("memcpy", "ours-shm", "ours-shm-unchecked", "ours-gloo", "ours-gloo-unchecked"))
CUDA_ONLY = frozenset(("ours-nccl",))


def floor_of(method: str) -> str:
    return FLOORS.get(method, "raw-exchange")


def _edges(found: TransferPlan) -> Counter[tuple[Rank, Rank]]:
    """The elements that go from each rank to each other."""
    counts: Counter[tuple[Rank, Rank]] = Counter()
    for stream in found.streams:
        for edge in stream.route.edges:
            counts[edge] += stream.numel
    return counts


def _first_holders(context: Context) -> dict[Rank, list[Box]]:
    """Every element of the source once, with its first holder."""
    found: dict[Rank, list[Box]] = {}
    for piece in pieces(context.layouts[0], context.layouts[0]):
        found.setdefault(min(piece.holders), []).extend(piece.boxes)
    return found


def _index(box: Box) -> tuple[slice, ...]:
    return tuple(slice(a, b) for a, b in zip(box.start, box.stop))
