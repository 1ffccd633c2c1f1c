"""Which ranks share a node, and how fast their links are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from realrl.layouts.layout import Rank

Node = int | str


@dataclass(frozen=True, kw_only=True, eq=False)
class Topology:
    """Ranks on nodes. Rates are bytes a second, each way."""

    nodes: Mapping[Rank, Node] = field(default_factory=dict)
    """Each rank's node; ranks that are not named share one."""
    link_bytes_s: float = 450e9
    """Between one rank and others of its node. Default: NVIDIA H100 data sheet, NVLink 900 GB/s both ways."""
    nic_bytes_s: float = 50e9
    """Between one rank and other nodes. Default: a 400 Gb/s NIC to each GPU."""
    node_nic_bytes_s: float = math.inf
    """Between all ranks of one node together and other nodes."""
    latency_s: float = 10e-6
    """What each further hop of a message costs."""
    shared_memory: bool = False
    """Inside a node, what one rank writes once all others read."""

    def node(self, rank: Rank) -> Node:
        return self.nodes.get(rank, "")

    def by_node(self, ranks: Iterable[Rank]) -> dict[Node, tuple[Rank, ...]]:
        """The ranks of each node, in their order."""
        found: dict[Node, list[Rank]] = {}
        for rank in ranks:
            found.setdefault(self.node(rank), []).append(rank)
        return {node: tuple(members) for node, members in found.items()}

    @staticmethod
    def even(num_ranks: int, ranks_per_node: int, **rates: float) -> Topology:
        """Nodes of equal size, filled in order of ranks."""
        return Topology(nodes={rank: rank // ranks_per_node for rank in range(num_ranks)}, **rates)


ONE_NODE = Topology()
"""All ranks beside each other."""
