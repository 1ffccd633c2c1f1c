"""Finds out which ranks of a run share a host, and so memory or fast links."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
import torch.distributed as dist

from realrl.layouts.layout import Rank
from realrl.layouts.topology import Node, Topology
from realrl.realloc.shared import host_id, machine_id

_HOST_RATES = {"link_bytes_s": 5e9, "nic_bytes_s": 3e9, "node_nic_bytes_s": 3e9}
"""Of a host without accelerators: memory that is copied, and one NIC of 25 Gb/s for all ranks."""


def topology_of(nodes: Mapping[Rank, Node], device: str) -> Topology:
    """Ranks by host, on devices of type `cpu` or `cuda`; memory is shared where weights are in it."""
    if device == "cpu":
        return Topology(nodes=nodes, shared_memory=True, **_HOST_RATES)
    return Topology(nodes=nodes)


def discover_topology(device: str) -> Topology:
    """The topology of this run. Collective: over the default process group.

    Devices of one machine are linked, also from one container to another; host memory is shared in one alone.
    """
    host = host_id() if device == "cpu" else machine_id()
    digest = hashlib.blake2b(host.encode(), digest_size=8).digest()
    own = torch.tensor([int.from_bytes(digest, "big", signed=True)])
    found = torch.empty(dist.get_world_size(), dtype=torch.int64)
    dist.all_gather_into_tensor(found, own)
    return topology_of(dict(enumerate(found.tolist())), device)
