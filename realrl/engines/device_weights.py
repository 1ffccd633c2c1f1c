"""One rank's weights, on their device or in host memory.

              allocate                     copy_to_host, drop
nothing  ────────────────▶  on the device ────────────────────▶  in host memory
                                  ▲                                   │ begin_return
                                  └──────────── allocate ──────── on the way back
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from realrl.engines.host_copies import Arrival, HostCopy
from realrl.layouts.layout import Shape
from realrl.parallel.flat import FlatTensors


class DeviceWeights:
    """The local tensors of one rank, in one buffer; the copy in host memory is of one version."""

    def __init__(
        self, shapes: Mapping[str, Shape], dtype: torch.dtype, device: torch.device, *, multiple_of: int
    ) -> None:
        """Describe tensors, none of which is allocated yet; `multiple_of`: see `FlatTensors`."""
        self.shapes = shapes
        self._dtype = dtype
        self._device = device
        self._multiple_of = multiple_of
        self._flat: FlatTensors | None = None
        self._host: HostCopy | None = None
        self._host_version: int | None = None
        self._arrival: Arrival | None = None

    @property
    def is_on_device(self) -> bool:
        """Return whether the tensors are allocated on their device."""
        return self._flat is not None

    @property
    def flat(self) -> FlatTensors:
        """Return the tensors on their device."""
        assert self._flat is not None, "weights are used that are not on their device"
        return self._flat

    @property
    def is_returning(self) -> bool:
        """Return whether the tensors are on their way from host memory."""
        return self._arrival is not None

    def is_in_host_memory(self, version: int) -> bool:
        """Return whether host memory has a copy of this version."""
        return self._host is not None and self._host_version == version

    def allocate(self) -> None:
        """Allocate the tensors on the device: with the values that are on their way back, else as zeros."""
        buffer = None if self._arrival is None else self._arrival.wait()
        self._arrival = None
        self._flat = FlatTensors(
            self.shapes,
            self._dtype,
            self._device,
            self._multiple_of,
            buffer,
        )

    def copy_to_host(self, version: int) -> None:
        """Begin to copy the tensors to host memory."""
        self._host = HostCopy(self.flat.buffer)
        self._host_version = version

    def begin_return(self) -> None:
        """Begin to bring the copy in host memory back, if there is one and the device has no tensors."""
        if self._flat is None and self._host is not None:
            self._arrival = self._host.bring_back()

    def drop(self) -> None:
        """Free the device's memory."""
        self._flat = None
        self._arrival = None

    def drop_host_copy(self) -> None:
        """Free the copy in host memory."""
        self._host = None
        self._host_version = None
