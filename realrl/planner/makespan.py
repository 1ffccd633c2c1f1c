"""Predicts how long a transfer takes, and how long any transfer would take at least.

The model is fluid: all streams run at once, each link carries its bytes at its rate, and the busiest link
ends last. Each hop of a stream adds its latency.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

from realrl.layouts.balance import balance
from realrl.layouts.layout import Layout, Rank
from realrl.layouts.plan import TransferPlan, needs
from realrl.layouts.routes import Route
from realrl.layouts.topology import Node, Topology


class _Link(NamedTuple):
    """One direction of a link of a rank, or of all NICs of a node."""

    kind: str
    owner: Rank | Node
    direction: str


def makespan_s(plan: TransferPlan, topology: Topology, *, element_bytes: int = 2) -> float:
    """Return the seconds until the last byte arrives; every element has `element_bytes`."""
    load_s: dict[_Link, float] = defaultdict(float)
    num_hops = 0
    for stream in plan.streams:
        route = stream.route
        num_hops = max(num_hops, _depth(route))
        num_bytes = stream.numel * element_bytes
        for sender, receiver in route.edges:
            rates = _link_rates(sender, receiver, topology)
            for link, rate in rates.items():
                load_s[link] += num_bytes / rate

    busiest_s = max(load_s.values(), default=0.0)
    latency_s = num_hops * topology.latency_s
    return busiest_s + latency_s


def _link_rates(sender: Rank, receiver: Rank, topology: Topology) -> dict[_Link, float]:
    """Return the links that a message between two ranks uses, with their rates in bytes per second."""
    source = topology.node(sender)
    destination = topology.node(receiver)
    if source == destination:
        return {
            _Link("link", sender, "out"): topology.link_bytes_s,
            _Link("link", receiver, "in"): topology.link_bytes_s,
        }
    return {
        _Link("nic", sender, "out"): topology.nic_bytes_s,
        _Link("nic", receiver, "in"): topology.nic_bytes_s,
        _Link("node", source, "out"): topology.node_nic_bytes_s,
        _Link("node", destination, "in"): topology.node_nic_bytes_s,
    }


def _depth(route: Route) -> int:
    """Return the hops from the root of a route to its farthest rank."""
    depth = {route.root: 0}
    for sender, receiver in route.edges:
        depth[receiver] = depth[sender] + 1
    return max(depth.values())


def floor_s(source: Layout, destination: Layout, topology: Topology, *, element_bytes: int = 2) -> float:
    """Return the seconds that no plan can beat, even one that relays through ranks that need no bytes.

    A rank receives what it needs and lacks through its own links. A node receives it once, through its
    NICs. What only some nodes hold leaves them through theirs.
    """
    byte_s = _byte_seconds(source, destination, topology)
    by_rank: dict[Rank, float] = defaultdict(float)
    by_node: dict[Node, float] = defaultdict(float)
    leaving: dict[tuple[Node, ...], float] = defaultdict(float)
    for holders, lacking, numel in needs(source, destination):
        num_bytes = numel * element_bytes
        rank_s = num_bytes * byte_s.into_rank
        for rank in lacking:
            by_rank[rank] += rank_s

        holding_nodes = tuple(topology.by_node(holders))
        lacking_nodes = topology.by_node(lacking)
        outside = [node for node in lacking_nodes if node not in holding_nodes]
        for node in outside:
            node_byte_s = byte_s.into_node[node]
            by_node[node] += num_bytes * node_byte_s
        if outside:
            leaving[holding_nodes] += num_bytes

    # Any node that holds some bytes may send them, so the best division of the work counts.
    demands = []
    for nodes, leaving_bytes in leaving.items():
        demands.append((leaving_bytes, nodes))
    busiest_bytes = balance(demands).lower_bound
    return max(
        [
            busiest_bytes * byte_s.out_of_node,
            *by_rank.values(),
            *by_node.values(),
        ]
    )


class _ByteSeconds(NamedTuple):
    """Seconds that one byte takes on the fastest way."""

    out_of_node: float
    """Out of the node with the most NICs."""
    into_rank: float
    into_node: Mapping[Node, float]


def _byte_seconds(source: Layout, destination: Layout, topology: Topology) -> _ByteSeconds:
    """Return the seconds per byte between the ranks of two layouts."""
    ranks = dict.fromkeys((*source.ranks, *destination.ranks))
    members = topology.by_node(ranks)
    node_s = {}
    for node, on_node in members.items():
        nics_bytes_s = len(on_node) * topology.nic_bytes_s
        bytes_s = min(nics_bytes_s, topology.node_nic_bytes_s)
        node_s[node] = 1 / bytes_s

    rank_bytes_s = topology.link_bytes_s
    # A rank may receive through its NIC, too, if there is another node to receive from.
    if len(members) > 1:
        rank_bytes_s += topology.nic_bytes_s
    return _ByteSeconds(
        out_of_node=min(node_s.values(), default=0.0),
        into_rank=1 / rank_bytes_s,
        into_node=node_s,
    )
