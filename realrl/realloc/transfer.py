"""One rank's part of a transfer plan, carried out as often as wanted.

All ranks keep one clock of turns. In each turn a rank first begins what is due: it packs messages, sends
them, and gets ready to receive. Then it ends what was begun in the turn before: it waits for it and unpacks.
So packing, the wire and unpacking overlap; and as whatever a rank waits for was due in an earlier turn of
another rank, no order of ranks can deadlock.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import torch
import torch.distributed as dist
from torch import Tensor

from realrl.layouts.boxes import split
from realrl.layouts.layout import Rank
from realrl.layouts.plan import TransferPlan
from realrl.ops.box_copies import copy
from realrl.realloc.staging import bundle_bytes, places, usual_bytes
from realrl.realloc.staging_buffers import Room, SharedRooms, private_room
from realrl.realloc.stream_endpoint import End, Operation, Tensors, view_of
from realrl.realloc.transfer_failure import TransferFailed

_BLEND_ELEMENTS = 1 << 20
"""How much of what a rank keeps is rounded at a time."""
_FLOATS = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True, kw_only=True)
class TransferSettings:
    """How a rank carries out its part of any plan; the same on every rank."""

    staging_bytes: int = 256 << 20
    """Most room for messages on a rank."""
    timeout_s: float = 600.0
    """Bounds each wait on shared memory; the process group has a deadline of its own."""
    checksum: bool = True
    """Guard every message."""


USUAL = TransferSettings()


class Transfer:
    """What `rank` has to do for a plan.

    Messages travel on the default process group, and through shared memory between ranks whose node has
    it. A rank's room for them is bounded, and only what is shared outlasts a run. Floats travel as
    `wire_dtype`, that of one of the two ends; None where both have the same types.

    Raises:
        ValueError: `staging_bytes` has no room for one element in every message that a rank must hold.
    """

    def __init__(
        self,
        plan: TransferPlan,
        *,
        rank: Rank,
        settings: TransferSettings = USUAL,
        wire_dtype: torch.dtype | None = None,
    ) -> None:
        self._plan, self._rank, self._settings, self._wire_dtype = plan, rank, settings, wire_dtype
        self._places = [places(stream.route, plan.topology) for stream in plan.streams]
        self._room_limit = bundle_bytes(plan, self._places, settings.staging_bytes)
        self._is_broken = False
        self._ends: list[End] | None = None
        self._shared: SharedRooms | None = None
        self._runs = 0

    @property
    def staging_bytes(self) -> int:
        """What this rank's room for messages takes."""
        return sum(end.room_bytes for end in self._ends or ())

    @torch.no_grad()
    def run(self, source: Tensors, target: Tensors, *, version: int = 0, eta: float = 1.0) -> None:
        """Overwrite `target` from `source`, or blend them: `eta * source + (1 - eta) * target`.

        `source` and `target` map local tensor names to local tensors and share no storage; all are on one
        kind of device. `version` is the weights', the same on every rank.

        Collective: every rank that the plan names makes the same `Transfer` and runs it alike; others may
            stay away. On NCCL the default group must have been used before.
        Raises:
            TransferFailed: a message did not come in time, was of another version, or was not what had been
                sent. `target` is then in no state to be used.
        """
        if self._is_broken:
            raise TransferFailed(
                "an earlier run of this transfer failed, so its ranks no longer agree: make another"
            )
        self._is_broken = True
        if self._ends is None:
            self._ends = self._make_ends(source, target)
        self._keep(source, target, eta)
        for end in self._ends:
            tensors = source if end.is_root else target
            end.bind(tensors, version=version, eta=eta, checksum=self._settings.checksum)
            end.begin(self._room(end), runs=self._runs, timeout_s=self._settings.timeout_s)
        self._take_turns(self._ends)
        for end in self._ends:
            end.end()
        self._runs += 1
        self._is_broken = False

    def _take_turns(self, ends: Sequence[End]) -> None:
        begun: list[Posted] = []
        for turn in range(max((end.num_turns for end in ends), default=-1) + 1):
            posted = _post(operation for end in ends for operation in end.post(turn))
            for operation, work in begun:
                _arrive(operation, work)
            for end in ends:
                end.finish(turn - 1)
            begun = posted

    def _keep(self, source: Tensors, target: Tensors, eta: float) -> None:
        """Copy what this rank holds and wants; a blend rounds it as the wire would, whatever the plan."""
        pairs = list(self._kept(source, target))
        if eta == 1.0:
            return copy([held for held, _ in pairs], [wanted for _, wanted in pairs])
        for held, wanted in pairs:
            for offset, shape in split(held.shape, _BLEND_ELEMENTS):
                part = view_of(held, (0,) * held.dim(), offset, shape).to(self._wire(held))
                copy([part], [view_of(wanted, (0,) * wanted.dim(), offset, shape)], eta=eta)

    def _kept(self, source: Tensors, target: Tensors) -> Iterator[tuple[Tensor, Tensor]]:
        for piece in (kept.piece for kept in self._plan.kept if self._rank in kept.ranks):
            for held, wanted in zip(piece.sources(self._rank), piece.targets(self._rank), strict=True):
                for region in wanted:
                    a, b = source[held.local], target[region.local]
                    assert self._wire(a) == self._wire(b), (
                        f"{held.tensor} is {a.dtype} here and {b.dtype} in the target"
                    )
                    zeros = (0,) * len(held.shape)
                    yield (
                        view_of(a, held.offset, zeros, held.shape),
                        view_of(b, region.offset, zeros, held.shape),
                    )

    def _wire(self, local: Tensor) -> torch.dtype:
        return self._wire_dtype if self._wire_dtype and local.dtype in _FLOATS else local.dtype

    def _make_ends(self, source: Tensors, target: Tensors) -> list[End]:
        streams, located = self._plan.streams, self._places
        device = next(iter((*source.values(), *target.values())), torch.empty(0)).device
        limit = min(self._room_limit, usual_bytes(self._plan.topology, device.type))
        ends = []
        for index in self._plan.by_rank.get(self._rank, ()):
            place = located[index][self._rank]
            tensors = target if place.parent is not None else source
            ends.append(End(index, streams[index], place, self._rank, tensors, self._wire, limit))
        if any(end.place.readers or not end.place.is_port for end in ends):
            self._shared = SharedRooms(located, self._rank, limit)
        return ends

    def _room(self, end: End) -> Room:
        if not end.place.is_port:
            return self._shared.room(end.index, end.place.parent, str(end))
        if end.place.readers:
            return self._shared.room(end.index, self._rank, str(end))
        return private_room(end.place.num_slots, end.slot_bytes, end.device, str(end))


Posted = tuple[Operation, dist.Work | None]
"""An operation and what to wait for; None where an earlier one's wait is its own too."""


def _post(operations: Iterator[Operation]) -> list[Posted]:
    """Begin operations: on a CPU each as it comes, on CUDA all at once, as NCCL wants them."""
    posted: list[Posted] = []
    for operation in operations:
        kind, buffer, peer, tag, _ = operation
        posted.append((operation, None if buffer.is_cuda else kind(buffer, peer, tag=tag)))
    if posted and posted[0][0].buffer.is_cuda:
        works = dist.batch_isend_irecv([dist.P2POp(o.kind, o.buffer, o.peer) for o, _ in posted])
        posted = list(zip_longest((o for o, _ in posted), works))
    return posted


def _arrive(operation: Operation, work: dist.Work | None) -> None:
    """Wait for a message, and take it while it is in the cache."""
    try:
        if work is not None:
            work.wait()
    except RuntimeError as error:
        way = "to" if operation.kind is dist.isend else "from"
        what = f"a message of stream {operation.tag} {way} rank {operation.peer}"
        raise TransferFailed(f"{what} did not get through: {error}") from error
    if operation.take is not None:
        operation.take()


def execute(
    plan: TransferPlan,
    source: Tensors,
    target: Tensors,
    *,
    rank: Rank,
    settings: TransferSettings = USUAL,
) -> None:
    """Carry out this rank's part of `plan` once. Collective, and raises, as `Transfer.run` does."""
    Transfer(plan, rank=rank, settings=settings).run(source, target)
