"""Finds out which ranks of a run share a host, and so memory or fast links."""

from __future__ import annotations

import hashlib

import torch
import torch.distributed as dist

from realrl.layouts.topology import Topology
from realrl.realloc.shared import host_id

_HOST_RATES = {"link_bytes_s": 5e9, "nic_bytes_s": 3e9, "node_nic_bytes_s": 3e9}
"""Of a host without accelerators: memory that is copied, and one NIC of 25 Gb/s for all ranks."""


def discover_topology(device: str) -> Topology:
    """The run's ranks by host; memory is shared where weights are in it.

    Collective: over the default process group.
    """
    digest = hashlib.blake2b(host_id().encode(), digest_size=8).digest()
    own = torch.tensor([int.from_bytes(digest, "big", signed=True)])
    found = torch.empty(dist.get_world_size(), dtype=torch.int64)
    dist.all_gather_into_tensor(found, own)
    nodes = dict(enumerate(found.tolist()))
    return (
        Topology(nodes=nodes, shared_memory=True, **_HOST_RATES) if device == "cpu" else Topology(nodes=nodes)
    )
