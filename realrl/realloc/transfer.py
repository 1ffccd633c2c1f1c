"""One rank's part of a transfer plan, which can run any number of times.

first run    lay out each stream of this rank as messages; map the rings that ranks share
every run    copy what the rank keeps, locate the messages in the tensors, take turns, verify
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from realrl.api.transport import Transport
from realrl.layouts.plan import TransferPlan
from realrl.realloc.kept import copy_kept
from realrl.realloc.staging import Rings, bundle_bytes, places
from realrl.realloc.stream_endpoint import Run, StreamEndpoint, take_turns
from realrl.realloc.stream_messages import StreamMessages
from realrl.realloc.transfer_failure import TransferFailed
from realrl.realloc.transports.by_name import transport_for
from realrl.realloc.views import Tensors

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
        copy_kept(self._plan, self._rank, source, target, eta, self._wire)
        run = Run(self._runs, version, eta, self._settings.checksum, self._settings.timeout_s)
        endpoints: list[StreamEndpoint] = []
        for stream in self._streams:
            tensors = source if stream.is_root else target
            endpoints.append(StreamEndpoint(stream, tensors, self._rings, run))

        take_turns(endpoints, self._transport)
        for stream in self._streams:
            if not stream.is_root:
                stream.manifest.verify(stream.names_in)
        self.staging_bytes = sum(endpoint.staging_bytes for endpoint in endpoints)
        self._runs += 1
        self._is_broken = False

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
