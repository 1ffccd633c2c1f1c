"""The ways that content takes from the ranks that hold it to those that lack it.

What one set of ranks holds and another lacks is one `Group`: all of it could take the same ways. A group
is shared out over routes in fractions, so that no rank sends much more than it must.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from realrl.layouts.balance import balance
from realrl.layouts.layout import Rank
from realrl.layouts.topology import Node, Topology

_ELEMENT_BYTES = 2
"""Stands for every dtype where sizes are weighed against latencies."""
_CLEARLY = 1.02
"""Relays must promise to be faster by this factor."""
_CRUMB, _CRUMBS = 1 << 15, 200
"""No stretch is cut to fewer elements than these, or than a 200th of an even load, if that is less."""
_DIGITS = 6
"""Fractions of a content that are nearer than this are one."""
_NOTHING = 10.0**-_DIGITS

Peer = tuple[str, Node] | Rank
"""A rank, or a node under a name that is no rank's."""


@dataclass(frozen=True, slots=True)
class Route:
    """A tree that messages run down: `(sender, receiver)` edges; a sender is the root or received before."""

    root: Rank
    edges: tuple[tuple[Rank, Rank], ...]

    @property
    def receivers(self) -> tuple[Rank, ...]:
        return tuple(receiver for _, receiver in self.edges)

    @property
    def ranks(self) -> tuple[Rank, ...]:
        return (self.root, *self.receivers)


@dataclass(frozen=True)
class Group:
    """`numel` elements that all of `holders` hold and all of `lacking` lack.

    They are all of one node, or no holder is in a node of `lacking`.
    """

    holders: tuple[Rank, ...]
    lacking: tuple[Rank, ...]
    numel: int


Ways = list[tuple[float, list[Route]]]
"""Fractions of a content, in order, and the routes that each takes."""


def route(groups: Sequence[Group], topology: Topology) -> list[Ways]:
    """The ways of each group's content.

    Each element enters a node once, and each rank receives it once. Holders send to all who lack, unless the
    links' model says that the whole ends clearly earlier when those who lack pass on what they get.
    """
    inner = {i: g for i, g in enumerate(groups) if topology.node(g.holders[0]) == topology.node(g.lacking[0])}
    outer = {i: _Crossing(i, g, topology) for i, g in enumerate(groups) if i not in inner}
    floor_s = _ingress_s(inner.values(), outer.values(), topology)
    crossing = _cross(outer, topology, floor_s)
    beside = _beside(inner, outer.values(), topology, floor_s)
    return [crossing[i] if i in crossing else beside[i] for i in range(len(groups))]


class _Crossing:
    """A group whose content enters nodes that hold none of it."""

    def __init__(self, index: int, group: Group, topology: Topology) -> None:
        self.index, self.group = index, group
        self.nodes: dict[Peer, tuple[Rank, ...]] = {
            ("node", node): ranks for node, ranks in topology.by_node(group.lacking).items()
        }
        num_bytes = group.numel * _ELEMENT_BYTES
        self.striped = {node: _is_striped(len(w), num_bytes, topology) for node, w in self.nodes.items()}

    def stripes(self, node: Peer) -> int:
        return len(self.nodes[node]) if self.striped[node] else 1

    def entry(self, node: Peer, position: float, turn: int) -> int:
        """Which of a node's ranks takes in the content at `position`, from 0 to 1, of a stretch."""
        num = len(self.nodes[node])
        stripe = int(position * num) if self.striped[node] else self.index
        return (stripe + turn) % num

    def inside(self, node: Peer, entry: int) -> Iterator[tuple[Rank, Rank]]:
        """From the rank that took it in to the others of its node: to each at once, or in a chain."""
        ranks = self.nodes[node][entry:] + self.nodes[node][:entry]
        yield from ((ranks[0] if self.striped[node] else a, b) for a, b in pairwise(ranks))

    def fan_out(self) -> Iterator[tuple[Rank, float]]:
        """What each rank sends inside its node, all entries taken together."""
        for ranks in self.nodes.values():
            yield from ((rank, self.group.numel * (len(ranks) - 1) / len(ranks)) for rank in ranks)


def _is_striped(num_ranks: int, num_bytes: int, topology: Topology) -> bool:
    """Whether each rank of a node takes a part in and gives it to the others, or one takes all and a chain
    follows: whichever the links' model says is shorter."""
    one = min(topology.nic_bytes_s, topology.node_nic_bytes_s)
    together = min(num_ranks * topology.nic_bytes_s, topology.node_nic_bytes_s)
    chain_s = max(num_bytes / one, num_bytes / topology.link_bytes_s) + (num_ranks - 1) * topology.latency_s
    gather_s = num_bytes / topology.link_bytes_s * (num_ranks - 1) / num_ranks
    striped_s = max(num_bytes / together, gather_s) + num_ranks * topology.latency_s
    return num_ranks > 1 and striped_s < chain_s


def _ingress_s(inner: Iterable[Group], outer: Iterable[_Crossing], topology: Topology) -> float:
    """What no plan can beat, as no rank and no node takes in faster than its links do."""
    seconds: dict[tuple[str, Rank | Peer], float] = defaultdict(float)
    for group in inner:
        for rank in group.lacking:
            seconds["link", rank] += group.numel / topology.link_bytes_s
    for crossing in outer:
        for node, ranks in crossing.nodes.items():
            seconds["node", node] += crossing.group.numel / topology.node_nic_bytes_s
            for rank in ranks:
                seconds["nic", rank] += crossing.group.numel / len(ranks) / topology.nic_bytes_s
    return _ELEMENT_BYTES * max(seconds.values(), default=0.0)


def _cross(outer: Mapping[int, _Crossing], topology: Topology, floor_s: float) -> dict[int, Ways]:
    """Routes from node to node, and on to every rank inside."""
    sends = [_Sends(c.group.holders, c.nodes, c.group.numel) for c in outer.values()]
    quotas = _quotas(sends, {}, topology.nic_bytes_s, topology, floor_s, send_once=False)
    found = {}
    for crossing, senders, send in zip(outer.values(), quotas, sends, strict=True):
        stretches = enumerate(_stretches(send, senders))
        found[crossing.index] = [
            part for turn, stretch in stretches for part in _through_nodes(crossing, *stretch, turn)
        ]
    return found


def _beside(
    inner: Mapping[int, Group], outer: Iterable[_Crossing], topology: Topology, floor_s: float
) -> dict[int, Ways]:
    """Routes inside a node that holds the content already."""
    base: dict[Rank, float] = {}
    for rank, numel in (sent for crossing in outer for sent in crossing.fan_out()):
        base[rank] = base.get(rank, 0.0) + numel
    sends = [_Sends(g.holders, {rank: (rank,) for rank in g.lacking}, g.numel) for g in inner.values()]
    rate, send_once = topology.link_bytes_s, topology.shared_memory
    quotas = _quotas(sends, base, rate, topology, floor_s, send_once=send_once)
    return {
        index: [
            (fraction, [Route(root, tuple(edges)) for root, edges in trees.items()])
            for fraction, trees in _stretches(send, senders)
        ]
        for index, senders, send in zip(inner, quotas, sends, strict=True)
    }


@dataclass(frozen=True)
class _Sends:
    """`numel` elements must come from `holders` to each of `lacking`, peers of one or several ranks."""

    holders: tuple[Rank, ...]
    lacking: Mapping[Peer, tuple[Rank, ...]]
    numel: int

    @property
    def in_turn(self) -> list[tuple[int, tuple[Rank, ...]]]:
        """What holders must send, and what those who got it can send too."""
        passing_on = tuple(rank for ranks in self.lacking.values() for rank in ranks)
        further = self.numel * (len(self.lacking) - 1), self.holders + passing_on
        return [(self.numel, self.holders), further] if further[0] else [(self.numel, self.holders)]

    def by_peer(self, quotas: Mapping[Rank, float]) -> dict[Peer, float]:
        """The quotas of a peer's ranks added up: they pass on equal parts."""
        relays = {peer: sum(quotas.get(rank, 0.0) for rank in ranks) for peer, ranks in self.lacking.items()}
        return {**{holder: quotas[holder] for holder in self.holders}, **relays}


def _quotas(
    sends: Sequence[_Sends],
    base: Mapping[Rank, float],
    rate: float,
    topology: Topology,
    floor_s: float,
    *,
    send_once: bool,
) -> list[dict[Peer, float]]:
    """What each peer sends of each group, in elements; `send_once` if all who lack it can read one copy."""
    sends = _few_senders(sends)
    times = [1 if send_once else len(send.lacking) for send in sends]
    direct, loads = _balanced([[(s.numel * n, s.holders)] for s, n in zip(sends, times, strict=True)], base)
    longest = max((len(s.lacking) for s in sends), default=1)
    element_s = _ELEMENT_BYTES / rate
    if send_once or longest == 1 or max(loads.values()) * element_s <= _CLEARLY * floor_s:
        return direct
    relieved = [i for i, s in enumerate(sends) if max(map(loads.get, s.holders)) * element_s > floor_s]
    base = _loads([direct[i] for i in set(range(len(sends))) - set(relieved)], base)
    relayed, loads_after = _balanced([sends[i].in_turn for i in relieved], base)
    relayed_s = max(max(loads_after.values()) * element_s, floor_s) + longest * topology.latency_s
    if relayed_s * _CLEARLY < max(loads.values()) * element_s:
        for i, quotas in zip(relieved, relayed, strict=True):
            direct[i] = sends[i].by_peer(quotas)
    return direct


def _few_senders(sends: Sequence[_Sends]) -> list[_Sends]:
    """Let fewer holders send what would else be cut into crumbs that weigh nothing in the balance."""
    num_senders = len({holder for send in sends for holder in send.holders})
    crumb = min(_CRUMB, sum(s.numel * len(s.lacking) for s in sends) // (_CRUMBS * max(1, num_senders)))
    found, turn = [], 0
    for send in sends:
        num = max(1, min(len(send.holders), send.numel // max(1, crumb)))
        ring = send.holders * 2
        start = turn % len(send.holders)
        found.append(replace(send, holders=ring[start : start + num]))
        turn += num
    return found


def _loads(quotas: Iterable[Mapping[Rank, float]], base: Mapping[Rank, float]) -> dict[Rank, float]:
    loads = dict(base)
    for rank, quota in (item for several in quotas for item in several.items()):
        loads[rank] = loads.get(rank, 0.0) + quota
    return loads


def _balanced(
    demands: Sequence[list[tuple[int, tuple[Rank, ...]]]], base: Mapping[Rank, float]
) -> tuple[list[dict[Rank, float]], dict[Rank, float]]:
    """Quotas of each list of demands together, and every rank's load."""
    totals: dict[tuple, float] = defaultdict(float)
    for numel, candidates in (demand for several in demands for demand in several):
        totals[candidates] += numel
    shared = dict(zip(totals, balance([(n, who) for who, n in totals.items()], base).quotas, strict=True))
    found: list[dict[Rank, float]] = []
    for several in demands:
        quotas: dict[Rank, float] = defaultdict(float)
        for numel, candidates in several:
            for rank, quota in shared[candidates].items():
                quotas[rank] += quota * numel / totals[candidates]
        found.append(dict(quotas))
    return found, _loads(found, base)


Stretch = tuple[float, dict[Rank, list[tuple]]]
"""A fraction of the content, and by root the edges that it takes."""


def _stretches(send: _Sends, quotas: Mapping[Peer, float]) -> Iterator[Stretch]:
    return _forests(send, quotas) if quotas.keys() - set(send.holders) else _stars(send, quotas)


def _stars(send: _Sends, quotas: Mapping) -> Iterator[Stretch]:
    """Each holder sends a stretch of the content to all who lack it."""
    total = sum(quotas.values())
    for holder, quota in quotas.items():
        if quota > _NOTHING * total:
            yield quota / total, {holder: [(holder, lacking) for lacking in send.lacking]}


def _forests(send: _Sends, quotas: Mapping) -> Iterator[Stretch]:
    """Trees in which each sender sends its quota exactly.

    Quotas are laid end to end, holders first, and cut into one row of the content's length for each that
    lacks it: the senders in a column are those of one stretch (McNaughton's wrap-around rule, 1959). The
    first of them is a holder, and one who must receive before it sends does so from a sender before it.
    """
    total = sum(quotas.values())
    num_rows = len(send.lacking)
    relays = sorted((q for q in quotas if q not in send.holders), key=lambda q: -quotas[q])
    ends, position = [], 0.0
    for sender in [*(h for h in send.holders if h in quotas), *relays]:
        position += quotas[sender] / total * num_rows
        ends.append((position, sender))
    cuts = sorted({0.0, 1.0, *(round(end % 1.0, _DIGITS) for end, _ in ends)})
    for low, high in pairwise(cuts):
        senders = [_owner(ends, row + (low + high) / 2) for row in range(num_rows)]
        yield high - low, _trees(send, senders)


def _owner(ends: Sequence[tuple[float, Rank]], position: float) -> Rank:
    return next((sender for end, sender in ends if position < end), ends[-1][1])


def _trees(send: _Sends, senders: Sequence) -> dict[Rank, list[tuple]]:
    """Edges by root, with as many edges from each sender as it has places in `senders`."""
    left = {sender: senders.count(sender) for sender in dict.fromkeys(senders)}
    root_of = {sender: sender for sender in left if sender in send.holders}
    informed = deque(root_of)
    trees: dict[Rank, list[tuple]] = {root: [] for root in root_of}
    for receiver in sorted(send.lacking, key=lambda who: -left.get(who, 0)):
        sender = informed[0]
        trees[root_of[sender]].append((sender, receiver))
        root_of[receiver] = root_of[sender]
        left[sender] -= 1
        if not left[sender]:
            informed.popleft()
        if left.get(receiver):
            informed.append(receiver)
    return trees


def _through_nodes(
    crossing: _Crossing, fraction: float, trees: Mapping[Rank, Sequence[tuple]], turn: int
) -> Iterator[tuple[float, list[Route]]]:
    """A stretch's edges between nodes, as edges between ranks."""
    reached = [node for edges in trees.values() for _, node in edges]
    cuts = sorted({i / s for node in reached for s in (crossing.stripes(node),) for i in range(s + 1)})
    for low, high in pairwise(cuts):
        entries = {node: crossing.entry(node, (low + high) / 2, turn) for node in reached}
        routes = []
        for root, edges in trees.items():
            steps: list[tuple[Rank, Rank]] = []
            for sender, node in edges:
                came_from = root if sender == root else crossing.nodes[sender][entries[sender]]
                steps.append((came_from, crossing.nodes[node][entries[node]]))
                steps += crossing.inside(node, entries[node])
            routes.append(Route(root, tuple(steps)))
        yield fraction * (high - low), routes
