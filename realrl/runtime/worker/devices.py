"""Opens a worker's device and binds the process to the cores near it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from realrl.ops.kernels import NO_CUDA_KERNELS, cuda_kernels

logger = logging.getLogger(__name__)

_PCI_DEVICES = Path("/sys/bus/pci/devices")


def open_device(device: str, local_rank: int, *, is_deterministic: bool) -> str:
    """Make a device the one of this process; return its name.

    Raises:
        ValueError: there is no such device, or no kernels for it.

    Source: PyTorch's notes on reproducibility; NVIDIA's cuBLAS documentation, "Results Reproducibility".
    """
    if device == "cpu":
        return device
    if cuda_kernels() is None:
        raise ValueError(f"device: {NO_CUDA_KERNELS}")
    if is_deterministic:
        # Before cuBLAS is first used: it reads this once.
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
        torch.use_deterministic_algorithms(True)
        # PyTorch's types know neither this setting nor a device's PCI address.
        deterministic: Any = torch.utils.deterministic
        deterministic.fill_uninitialized_memory = False
    if local_rank >= (number := torch.cuda.device_count()):
        raise ValueError(
            f"device: this host shows {number} CUDA devices, and this is its worker {local_rank}; give it as"
            " many as devices_per_node says, or look at CUDA_VISIBLE_DEVICES"
        )
    torch.cuda.set_device(local_rank)
    stay_near(pci_address(local_rank))
    return f"cuda:{local_rank}"


def pci_address(index: int) -> str:
    """Return a device's PCI address, as in `0000:1b:00.0`."""
    properties: Any = torch.cuda.get_device_properties(index)
    domain = properties.pci_domain_id
    bus = properties.pci_bus_id
    device = properties.pci_device_id
    return f"{domain:04x}:{bus:02x}:{device:02x}.0"


def stay_near(address: str, devices: Path = _PCI_DEVICES) -> None:
    """Run only on the allowed cores that a device is attached to.

    Over another socket, copies from host memory take up to half as long again.
    """
    allowed = os.sched_getaffinity(0)
    attached = set(_cores_near(devices / address))
    near = attached & allowed
    if near and near != allowed:
        os.sched_setaffinity(0, near)
        logger.info("runs on the %d of %d cores that are near its device", len(near), len(allowed))


def _cores_near(device: Path) -> Iterator[int]:
    """Yield the cores of a device's NUMA node; none where the system does not say.

    Source: Linux, Documentation/ABI/testing/sysfs-bus-pci, `local_cpulist`.
    """
    try:
        text = (device / "local_cpulist").read_text().strip()
    except OSError:
        return
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        stop = int(last or first) + 1
        yield from range(int(first), stop)
