"""One rank's part of a transfer plan, which can run any number of times.

    turn t      post: pack and send what is due in t, prepare to receive
                arrive: wait for what was posted in t - 1, and unpack it
                finish: publish it to the readers
    turn t + 1  …

All ranks count the same turns. Packing, sending and unpacking overlap, because a rank waits for one turn's
messages after it has posted the next turn's. Everything that a rank waits for was due in an earlier turn of
another rank, so no order of ranks can deadlock.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from realrl.api.transport import Pending, Transport
from realrl.layouts.boxes import split
from realrl.layouts.pieces import Piece
from realrl.layouts.plan import TransferPlan
from realrl.ops.box_copies import copy
from realrl.realloc.staging import Rings, bundle_bytes, places
from realrl.realloc.stream_endpoint import Run, StreamEndpoint
from realrl.realloc.stream_messages import StreamMessages
from realrl.realloc.transfer_failure import TransferFailed
from realrl.realloc.transports.by_name import transport_for
from realrl.realloc.views import Tensors, view_of

_BLEND_ELEMENTS = 1 << 20
"""Elements that a rank blends at a time of what it keeps; bounds the memory of their rounded copy."""
_FLOATS = (torch.float32, torch.bfloat16, torch.float16)
"""Types that travel as the wire's dtype; other types travel as they are."""


@dataclass(frozen=True, kw_only=True)
class TransferSettings:
    """Settings of a transfer, equal on every rank."""

    staging_bytes: int = 256 << 20
    """Largest size of a rank's staging buffers."""
    timeout_s: float = 600.0
    """Deadline of each wait on shared memory; the process group has its own deadline."""
    checksum: bool = True
    """Whether to guard every message by a checksum."""
    transport: Transport | None = None
    """What carries the messages; None: the built-in one that the plan's topology needs."""


USUAL = TransferSettings()
"""Default settings."""


class Transfer:
    """The work of `rank` in a plan.

    Messages travel by the transport of the settings. The size of a rank's staging buffers is bounded; only
    shared buffers outlive a run. Floats travel as `wire_dtype`, the dtype of the source or of the target;
    None where both have the same dtypes.
    """

    def __init__(
        self,
        plan: TransferPlan,
        *,
        rank: int,
        settings: TransferSettings = USUAL,
        wire_dtype: torch.dtype | None = None,
    ) -> None:
        self._plan = plan
        self._rank = rank
        self._settings = settings
        self._transport = settings.transport or transport_for(plan.topology)
        self._wire_dtype = wire_dtype
        self._streams: list[StreamMessages] | None = None
        """Laid out in the first run, which knows the tensors' dtypes and device."""
        self._is_broken = False
        self._runs = 0
        self.staging_bytes = 0
        """Size of this rank's staging buffers in the last run."""

    @torch.no_grad()
    def run(self, source: Tensors, target: Tensors, *, version: int = 0, eta: float = 1.0) -> None:
        """Overwrite `target` from `source`, or blend them: `eta * source + (1 - eta) * target`.

        `source` and `target` map local tensor names to local tensors and share no storage; all are on one
        kind of device. `version` is the weights' version, equal on every rank.

        Collective: every rank that the plan names makes the same `Transfer` and runs it with the same
            arguments; other ranks need not take part.
        Raises:
            ValueError: `staging_bytes` cannot hold one element in every bundle that a rank buffers.
            TransferFailed: a message did not come in time, was of another version, or was not what had been
                sent. The content of `target` is then undefined.
        """
        if self._is_broken:
            raise TransferFailed(
                "an earlier run of this transfer failed, so its ranks no longer agree: make another"
            )

        # Any error leaves the transfer broken; only a complete run clears the flag.
        self._is_broken = True
        if self._streams is None:
            self._streams = self._lay_out(source, target)
        self._copy_kept(source, target, eta)
        run = Run(self._runs, version, eta, self._settings.checksum, self._settings.timeout_s)
        self._take_turns(self._streams, source, target, run)
        for stream in self._streams:
            if not stream.is_root:
                stream.manifest.verify(stream.names_in)
        self._runs += 1
        self._is_broken = False

    def _take_turns(
        self, streams: Sequence[StreamMessages], source: Tensors, target: Tensors, run: Run
    ) -> None:
        """Send and receive every bundle."""
        endpoints: list[StreamEndpoint] = []
        for stream in streams:
            tensors = source if stream.is_root else target
            endpoints.append(StreamEndpoint(stream, tensors, self._rings, run))
        self.staging_bytes = sum(endpoint.staging_bytes for endpoint in endpoints)

        last_turn = max((stream.num_turns for stream in streams), default=-1)
        arrivals: Iterator[Pending] = iter(())
        for turn in range(last_turn + 1):
            due = chain.from_iterable(endpoint.post(turn) for endpoint in endpoints)
            posted = self._transport.post(due)
            # Waiting only after posting lets this turn's packing overlap with the earlier turn's messages.
            for endpoint in endpoints:
                endpoint.arrive(turn - 1, arrivals)
            surplus = list(arrivals)
            assert not surplus, "the transport returned more than one Pending per message"
            for endpoint in endpoints:
                endpoint.finish(turn - 1)
            arrivals = iter(posted)

    def _copy_kept(self, source: Tensors, target: Tensors, eta: float) -> None:
        """Copy or blend what this rank both holds and wants.

        A blend rounds what is kept as the wire would, so that the result does not depend on the plan.
        """
        pairs = list(self._kept_pairs(source, target))
        if eta == 1.0:
            held_views = [held for held, _ in pairs]
            wanted_views = [wanted for _, wanted in pairs]
            copy(held_views, wanted_views)
            return

        for held, wanted in pairs:
            zeros = (0,) * held.dim()
            wire_dtype = self._wire(held)
            for offset, shape in split(held.shape, _BLEND_ELEMENTS):
                rounded = view_of(held, zeros, offset, shape).to(wire_dtype)
                blended = view_of(wanted, zeros, offset, shape)
                copy([rounded], [blended], eta=eta)

    def _kept_pairs(self, source: Tensors, target: Tensors) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield views of each region that this rank keeps: in the source, and in the target."""
        for kept in self._plan.kept:
            if self._rank in kept.ranks:
                yield from self._piece_pairs(kept.piece, source, target)

    def _piece_pairs(self, piece: Piece, source: Tensors, target: Tensors) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield views of a kept piece's regions: in the source, and in each copy in the target."""
        sources = piece.sources(self._rank)
        targets = piece.targets(self._rank)

        for held, copies in zip(sources, targets, strict=True):
            zeros = (0,) * len(held.shape)
            for wanted in copies:
                held_tensor = source[held.local]
                wanted_tensor = target[wanted.local]
                assert self._wire(held_tensor) == self._wire(wanted_tensor), (
                    f"{held.tensor} is {held_tensor.dtype} here and {wanted_tensor.dtype} in the target"
                )
                held_view = view_of(
                    held_tensor,
                    held.offset,
                    zeros,
                    held.shape,
                )
                wanted_view = view_of(
                    wanted_tensor,
                    wanted.offset,
                    zeros,
                    held.shape,
                )
                yield held_view, wanted_view

    def _wire(self, local: Tensor) -> torch.dtype:
        """Return the dtype in which a local tensor travels."""
        if self._wire_dtype and local.dtype in _FLOATS:
            return self._wire_dtype
        return local.dtype

    def _lay_out(self, source: Tensors, target: Tensors) -> list[StreamMessages]:
        """Return the messages of this rank's streams, and map the rings that it shares with other ranks."""
        all_places = [places(stream.route, self._plan.topology) for stream in self._plan.streams]
        device = _device_of(source, target)
        limit = min(
            bundle_bytes(self._plan, all_places, self._settings.staging_bytes),
            self._transport.bundle_bytes(device),
        )
        self._rings = Rings(
            all_places,
            self._rank,
            limit,
            shares_memory=self._transport.shares_memory,
        )

        streams: list[StreamMessages] = []
        for index in self._plan.by_rank.get(self._rank, ()):
            place = all_places[index][self._rank]
            tensors = source if place.parent is None else target
            stream = StreamMessages(
                index,
                self._plan.streams[index],
                place,
                self._rank,
                tensors,
                self._wire,
                limit,
            )
            streams.append(stream)
        return streams


def _device_of(source: Tensors, target: Tensors) -> torch.device:
    """Return the device of the tensors; the CPU if there are none."""
    for tensor in (*source.values(), *target.values()):
        return tensor.device
    return torch.empty(0).device
