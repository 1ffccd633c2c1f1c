"""The nodes of ranks, and the bandwidth of their links."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from realrl.layouts.layout import Rank

Node = int | str
"""A node's number or its host name."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Topology:
    """The placement of ranks on nodes, and the bandwidth of their links.

    Units: bytes per second in each direction; seconds.
    """

    nodes: Mapping[Rank, Node] = field(default_factory=dict)
    """The node of each rank. All ranks without an entry share one further node."""
    link_bytes_s: float = 450e9
    """Bandwidth from one rank to the other ranks of its node.

    Default: NVIDIA H100 data sheet, NVLink 900 GB/s for both directions together.
    """
    nic_bytes_s: float = 50e9
    """Bandwidth from one rank to other nodes. Default: one 400 Gb/s NIC per GPU."""
    node_nic_bytes_s: float = math.inf
    """Bandwidth from all ranks of a node together to other nodes."""
    latency_s: float = 10e-6
    """Latency that each hop adds to a message."""
    shared_memory: bool = False
    """Whether all ranks of a node can read what one of them has written once."""

    def node(self, rank: Rank) -> Node:
        """Return the node of `rank`."""
        # No node has an empty host name, so the default is a node of its own.
        return self.nodes.get(rank, "")

    def by_node(self, ranks: Iterable[Rank]) -> dict[Node, tuple[Rank, ...]]:
        """Group `ranks` by node, in the given order."""
        members: dict[Node, list[Rank]] = {}
        for rank in ranks:
            node = self.node(rank)
            members.setdefault(node, []).append(rank)

        by_node = {}
        for node, on_node in members.items():
            by_node[node] = tuple(on_node)
        return by_node

    @staticmethod
    def even(num_ranks: int, ranks_per_node: int) -> Topology:
        """Return nodes of equal size, filled in rank order."""
        nodes: dict[Rank, Node] = {rank: rank // ranks_per_node for rank in range(num_ranks)}
        return Topology(nodes=nodes)


ONE_NODE = Topology()
"""All ranks in one node."""
