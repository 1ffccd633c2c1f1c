"""The routes by which content reaches the ranks that lack it from the ranks that hold it.

Everything that one set of ranks holds and another set lacks is one `Group`, because all of it can take the
same routes. A group is divided over routes in fractions, so that no rank sends much more than it must.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from realrl.layouts.forests import Edge, Stretch, stretches
from realrl.layouts.layout import Rank
from realrl.layouts.senders import ELEMENT_BYTES, Delivery, Peer, sender_quotas
from realrl.layouts.topology import Topology


@dataclass(frozen=True, slots=True)
class Route:
    """A tree that messages follow: `(sender, receiver)` edges from `root`.

    Every sender is the root or the receiver of an earlier edge.
    """

    root: Rank
    edges: tuple[tuple[Rank, Rank], ...]

    @property
    def receivers(self) -> tuple[Rank, ...]:
        """Return all ranks but the root, in the order of the edges."""
        found = []
        for _, receiver in self.edges:
            found.append(receiver)
        return tuple(found)

    @property
    def ranks(self) -> tuple[Rank, ...]:
        """Return the root and all receivers."""
        return (self.root, *self.receivers)


@dataclass(frozen=True)
class Group:
    """`numel` elements that all of `holders` hold and all of `lacking` lack.

    Either all of these ranks are in one node, or no node has ranks of both kinds.
    """

    holders: tuple[Rank, ...]
    lacking: tuple[Rank, ...]
    numel: int


Ways = list[tuple[float, list[Route]]]
"""Fractions of a content, in order, each with its routes."""


def route(groups: Sequence[Group], topology: Topology) -> list[Ways]:
    """Return the routes of each group's content.

    Each element enters a node once, and each rank receives it once. Holders send to all ranks that lack it,
    unless the links' model says that everything ends clearly earlier when receivers relay.
    """
    inner: dict[int, Group] = {}
    crossings: dict[int, _Crossing] = {}
    for index, group in enumerate(groups):
        # A group's first ranks tell, because it is all of one node or has no node of both kinds.
        holding_node = topology.node(group.holders[0])
        lacking_node = topology.node(group.lacking[0])
        if holding_node == lacking_node:
            inner[index] = group
        else:
            crossings[index] = _Crossing(index, group, topology)

    outer = crossings.values()
    floor_s = _ingress_s(inner.values(), outer, topology)
    ways = _ways_between_nodes(crossings, topology, floor_s)
    inside = _ways_inside_nodes(inner, outer, topology, floor_s)
    ways.update(inside)
    return [ways[index] for index in range(len(groups))]


class _Crossing:
    """A group whose content enters nodes that hold none of it.

    Inside a node, content is distributed in one of two ways. Example: ranks 0, 1 and 2 of one node:

        striped: each rank takes in a third             chained: one rank takes in everything
        and sends it to the two others

        NIC -> 0 -> 1, 2                                NIC -> 0 -> 1 -> 2
        NIC -> 1 -> 2, 0
        NIC -> 2 -> 0, 1
    """

    def __init__(self, index: int, group: Group, topology: Topology) -> None:
        self.group = group
        self.nodes: dict[Peer, tuple[Rank, ...]] = {}
        self._striped: dict[Peer, bool] = {}
        self._index = index

        num_bytes = group.numel * ELEMENT_BYTES
        by_node = topology.by_node(group.lacking)
        for node, ranks in by_node.items():
            peer = ("node", node)
            num_ranks = len(ranks)
            self.nodes[peer] = ranks
            self._striped[peer] = _is_striped(num_ranks, num_bytes, topology)

    def num_stripes(self, node: Peer) -> int:
        """Return the number of parts of the content that enter `node` by different ranks."""
        if self._striped[node]:
            return len(self.nodes[node])
        return 1

    def entry(self, node: Peer, position: float, turn: int) -> int:
        """Return the index in `node` of the rank that takes in the content at `position` of a stretch.

        Units: `position` is from 0 to 1. `turn` numbers the stretches, so that entries rotate over the ranks.
        """
        num_ranks = len(self.nodes[node])
        if self._striped[node]:
            stripe = int(position * num_ranks)
        else:
            # Without stripes, groups rotate over the ranks.
            stripe = self._index
        return (stripe + turn) % num_ranks

    def edges_inside(self, node: Peer, entry: int) -> Iterator[tuple[Rank, Rank]]:
        """Yield the edges from the entry to the other ranks of `node`: a star if striped, else a chain."""
        ranks = self.nodes[node]
        rotated = ranks[entry:] + ranks[:entry]
        first = rotated[0]
        striped = self._striped[node]
        for previous, receiver in pairwise(rotated):
            sender = first if striped else previous
            yield sender, receiver

    def loads_inside(self) -> Iterator[tuple[Rank, float]]:
        """Yield how many elements each rank sends inside its node, on average over all entries."""
        for ranks in self.nodes.values():
            load = self.group.numel * (len(ranks) - 1) / len(ranks)
            for rank in ranks:
                yield rank, load


def _is_striped(num_ranks: int, num_bytes: int, topology: Topology) -> bool:
    """Return whether the links' model says that a striped node is faster than a chained one."""
    one_nic = min(topology.nic_bytes_s, topology.node_nic_bytes_s)
    all_nics = min(num_ranks * topology.nic_bytes_s, topology.node_nic_bytes_s)
    link_s = num_bytes / topology.link_bytes_s

    # A chain overlaps with the entry, so the slower of the two counts.
    enter_one_s = num_bytes / one_nic
    chain_latency_s = (num_ranks - 1) * topology.latency_s
    chain_s = max(enter_one_s, link_s) + chain_latency_s

    # A rank already has its own stripe and gathers the others.
    enter_all_s = num_bytes / all_nics
    gather_s = link_s * (num_ranks - 1) / num_ranks
    striped_latency_s = num_ranks * topology.latency_s
    striped_s = max(enter_all_s, gather_s) + striped_latency_s
    return num_ranks > 1 and striped_s < chain_s


def _ingress_s(inner: Iterable[Group], crossings: Iterable[_Crossing], topology: Topology) -> float:
    """Return a lower bound on the seconds of any plan: no rank or node receives faster than its links."""
    seconds: dict[tuple[str, Rank | Peer], float] = defaultdict(float)
    for group in inner:
        link_s = group.numel / topology.link_bytes_s
        for rank in group.lacking:
            seconds["link", rank] += link_s

    for crossing in crossings:
        numel = crossing.group.numel
        node_s = numel / topology.node_nic_bytes_s
        for node, ranks in crossing.nodes.items():
            seconds["node", node] += node_s
            # The ranks of a node take in equal parts.
            part = numel / len(ranks)
            nic_s = part / topology.nic_bytes_s
            for rank in ranks:
                seconds["nic", rank] += nic_s

    busiest = max(seconds.values(), default=0.0)
    return ELEMENT_BYTES * busiest


def _ways_between_nodes(
    crossings: Mapping[int, _Crossing], topology: Topology, floor_s: float
) -> dict[int, Ways]:
    """Return the routes from holders to other nodes, and from there to every rank inside them."""
    deliveries = []
    for crossing in crossings.values():
        group = crossing.group
        deliveries.append(Delivery(group.holders, crossing.nodes, group.numel))
    quotas = sender_quotas(
        deliveries,
        {},
        topology.nic_bytes_s,
        topology,
        floor_s,
        send_once=False,
    )

    found = {}
    for index, delivery, senders in zip(crossings, deliveries, quotas, strict=True):
        ways: Ways = []
        for turn, stretch in enumerate(stretches(delivery, senders)):
            ways += _through_nodes(crossings[index], stretch, turn)
        found[index] = ways
    return found


def _ways_inside_nodes(
    inner: Mapping[int, Group], crossings: Iterable[_Crossing], topology: Topology, floor_s: float
) -> dict[int, Ways]:
    """Return the routes inside nodes that hold the content already."""
    # The same links carry what enters from other nodes.
    base: dict[Peer, float] = {}
    for crossing in crossings:
        for rank, load in crossing.loads_inside():
            base[rank] = base.get(rank, 0.0) + load

    deliveries = []
    for group in inner.values():
        peers: dict[Peer, tuple[Rank, ...]] = {rank: (rank,) for rank in group.lacking}
        deliveries.append(Delivery(group.holders, peers, group.numel))
    quotas = sender_quotas(
        deliveries,
        base,
        topology.link_bytes_s,
        topology,
        floor_s,
        send_once=topology.shared_memory,
    )

    found = {}
    for index, delivery, senders in zip(inner, deliveries, quotas, strict=True):
        ways: Ways = []
        for fraction, trees in stretches(delivery, senders):
            routes = [_route_inside(root, edges) for root, edges in trees.items()]
            ways.append((fraction, routes))
        found[index] = ways
    return found


def _route_inside(root: Rank, edges: Iterable[Edge]) -> Route:
    """Return the route of a tree inside a node, where every peer is a rank."""
    steps: list[tuple[Rank, Rank]] = []
    for sender, receiver in edges:
        assert not isinstance(sender, tuple), "inside a node, ranks send"
        assert not isinstance(receiver, tuple), "inside a node, ranks receive"
        steps.append((sender, receiver))
    return Route(root, tuple(steps))


def _through_nodes(crossing: _Crossing, stretch: Stretch, turn: int) -> Iterator[tuple[float, list[Route]]]:
    """Yield the fractions of a stretch, with its edges between nodes replaced by edges between ranks."""
    fraction, trees = stretch
    reached = []
    for edges in trees.values():
        for _, node in edges:
            reached.append(node)

    for low, high in pairwise(_stripe_bounds(crossing, reached)):
        middle = (low + high) / 2
        entries = {node: crossing.entry(node, middle, turn) for node in reached}
        routes = []
        for root, edges in trees.items():
            expanded = _expanded(crossing, root, edges, entries)
            routes.append(expanded)

        part = fraction * (high - low)
        yield part, routes


def _stripe_bounds(crossing: _Crossing, nodes: Iterable[Peer]) -> list[float]:
    """Return the positions from 0 to 1 at which some node's entry changes."""
    counts = {crossing.num_stripes(node) for node in nodes}
    bounds = set()
    for count in counts:
        for stripe in range(count + 1):
            bounds.add(stripe / count)
    return sorted(bounds)


def _expanded(crossing: _Crossing, root: Rank, edges: Iterable[Edge], entries: Mapping[Peer, int]) -> Route:
    """Return the route between ranks of a tree between nodes; `entries` are indices of the nodes' entries."""
    steps: list[tuple[Rank, Rank]] = []
    for sender, node in edges:
        if sender == root:
            source = root
        else:
            # A node sends on from the rank that took the content in.
            ranks = crossing.nodes[sender]
            source = ranks[entries[sender]]

        entry = entries[node]
        receiver = crossing.nodes[node][entry]
        steps.append((source, receiver))
        steps += crossing.edges_inside(node, entry)
    return Route(root, tuple(steps))
