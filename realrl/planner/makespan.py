"""How long a transfer takes by the links' model, and how long it must take at least.

The model is fluid: all streams run at once, each link carries its bytes at its rate, and the busiest link
ends last. What a stream adds is the latency of each hop.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable

from realrl.layouts.balance import balance
from realrl.layouts.layout import Layout
from realrl.layouts.plan import TransferPlan, needs
from realrl.layouts.routes import Route
from realrl.layouts.topology import Topology


def makespan_s(plan: TransferPlan, topology: Topology, *, element_bytes: int = 2) -> float:
    """When the last byte arrives, in seconds; `element_bytes` is every element's size."""
    load_s: dict[Hashable, float] = defaultdict(float)
    for stream in plan.streams:
        for sender, receiver in stream.route.edges:
            a, b = topology.node(sender), topology.node(receiver)
            if a == b:
                rates = {
                    ("link", sender, "out"): topology.link_bytes_s,
                    ("link", receiver, "in"): topology.link_bytes_s,
                }
            else:
                rates = {
                    ("nic", sender, "out"): topology.nic_bytes_s,
                    ("nic", receiver, "in"): topology.nic_bytes_s,
                }
                rates |= {
                    ("node", a, "out"): topology.node_nic_bytes_s,
                    ("node", b, "in"): topology.node_nic_bytes_s,
                }
            for link, rate in rates.items():
                load_s[link] += stream.numel * element_bytes / rate
    hops = max((_depth(stream.route) for stream in plan.streams), default=0)
    return max(load_s.values(), default=0.0) + hops * topology.latency_s


def floor_s(source: Layout, destination: Layout, topology: Topology, *, element_bytes: int = 2) -> float:
    """What no plan can beat, in seconds, not even one that relays through ranks with no need of the bytes.

    A rank takes in what it needs and lacks by its links; a node by its NICs, and once; and what only some
    nodes hold leaves them by theirs.
    """
    nic_s, rank_s, node_in_s = _rates(source, destination, topology)
    by_rank: dict[Hashable, float] = defaultdict(float)
    by_node: dict[Hashable, float] = defaultdict(float)
    leaving: dict[tuple, float] = defaultdict(float)
    for holders, lacking, numel in needs(source, destination):
        num_bytes = numel * element_bytes
        held = topology.by_node(holders)
        outside = [node for node in topology.by_node(lacking) if node not in held]
        for rank in lacking:
            by_rank[rank] += num_bytes * rank_s
        for node in outside:
            by_node[node] += num_bytes * node_in_s[node]
        if outside:
            leaving[tuple(held)] += num_bytes
    out_s = balance([(num_bytes, nodes) for nodes, num_bytes in leaving.items()]).lower_bound * nic_s
    return max([out_s, *by_rank.values(), *by_node.values()], default=0.0)


def _rates(source: Layout, destination: Layout, topology: Topology) -> tuple[float, float, dict]:
    """Seconds a byte: out of the node with most NICs, into a rank, and into each node."""
    members = topology.by_node(dict.fromkeys((*source.ranks, *destination.ranks)))
    node_s = {
        n: 1 / min(len(r) * topology.nic_bytes_s, topology.node_nic_bytes_s) for n, r in members.items()
    }
    rank_s = 1 / (topology.link_bytes_s + (topology.nic_bytes_s if len(members) > 1 else 0.0))
    return min(node_s.values(), default=0.0), rank_s, node_s


def _depth(route: Route) -> int:
    depth = {route.root: 0}
    for sender, receiver in route.edges:
        depth[receiver] = depth[sender] + 1
    return max(depth.values())
