"""Discovery of the nodes of a run's ranks, by what carries their messages."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
import torch.distributed as dist

from realrl.api.transport import Transport
from realrl.base.waiting import wait_for_ranks
from realrl.layouts.layout import Rank
from realrl.layouts.topology import Node, Topology

_DIGEST_BYTES = 8
"""Names of nodes are exchanged as int64 digests."""


def topology_of(nodes: Mapping[Rank, Node], transport: Transport) -> Topology:
    """Return the topology that a transport makes of ranks, given the node of each rank."""
    rates = transport.rates
    if rates is None:
        return Topology(nodes=nodes, shared_memory=transport.shares_memory)
    return Topology(
        nodes=nodes,
        shared_memory=transport.shares_memory,
        link_bytes_s=rates.link_bytes_s,
        nic_bytes_s=rates.nic_bytes_s,
        node_nic_bytes_s=rates.node_nic_bytes_s,
    )


def discover_topology(transport: Transport) -> Topology:
    """Return the topology of this run.

    Collective: over the default process group.
    """
    name = transport.node_name().encode()
    digest = hashlib.blake2b(name, digest_size=_DIGEST_BYTES).digest()
    number = int.from_bytes(digest, "big", signed=True)
    own = torch.tensor([number])

    world_size = dist.get_world_size()
    found = torch.empty(world_size, dtype=torch.int64)
    wait_for_ranks(dist.all_gather_into_tensor, found, own)
    nodes: dict[Rank, Node] = {}
    for rank, node in enumerate(found.tolist()):
        nodes[rank] = node
    return topology_of(nodes, transport)
