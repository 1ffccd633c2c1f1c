"""Discovery of the ranks that share a host, and with it memory or fast links."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
import torch.distributed as dist

from realrl.layouts.layout import Rank
from realrl.layouts.topology import Node, Topology
from realrl.realloc.shared import host_id, machine_id

_HOST_RATES = {
    "link_bytes_s": 5e9,
    "nic_bytes_s": 3e9,
    "node_nic_bytes_s": 3e9,
}
"""Rates of a host without accelerators: memory copies, and one NIC of 25 Gb/s for all ranks."""


def topology_of(nodes: Mapping[Rank, Node], device: str) -> Topology:
    """Return the topology of ranks on devices of type `cpu` or `cuda`, given the node of each rank.

    Ranks share memory only on the CPU, where the weights are in host memory.
    """
    if device == "cpu":
        return Topology(nodes=nodes, shared_memory=True, **_HOST_RATES)
    return Topology(nodes=nodes)


def discover_topology(device: str) -> Topology:
    """Return the topology of this run.

    Devices of one machine are linked even across containers; host memory is shared only within a container.

    Collective: over the default process group.
    """
    host = host_id() if device == "cpu" else machine_id()
    digest = hashlib.blake2b(host.encode(), digest_size=8).digest()
    number = int.from_bytes(digest, "big", signed=True)
    own = torch.tensor([number])
    world_size = dist.get_world_size()
    found = torch.empty(world_size, dtype=torch.int64)
    dist.all_gather_into_tensor(found, own)
    nodes = dict(enumerate(found.tolist()))
    return topology_of(nodes, device)
