"""Decides how many elements each rank sends of each content, so that no rank sends much more than it must."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from realrl.layouts.balance import balance
from realrl.layouts.layout import Rank
from realrl.layouts.topology import Node, Topology

ELEMENT_BYTES = 2
"""Element size that the links' model assumes for every dtype.

A plan does not know dtypes, and bf16 is the common one.
"""
_RELAY_GAIN = 1.02
"""Relays are used only where the links' model says that they are faster by this factor."""
_SMALL_SHARE = 1 << 15
"""Elements below which a share is not divided further, so that messages stay large."""
_SHARES_PER_SENDER = 200
"""With little to send in all, shares may be smaller: down to this fraction of an even load."""

Peer = tuple[str, Node] | Rank
"""A rank, or a node as `("node", node)`, which no rank is named."""

Demand = tuple[int, tuple[Rank, ...]]
"""Elements to send, and the ranks that can send them."""

Quotas = dict[Peer, float]
"""Elements that each peer sends."""


@dataclass(frozen=True)
class Delivery:
    """`numel` elements that `holders` send to every peer of `lacking`, which maps peers to their ranks."""

    holders: tuple[Rank, ...]
    lacking: Mapping[Peer, tuple[Rank, ...]]
    numel: int

    def relayed_demands(self) -> list[Demand]:
        """Return what holders must send themselves, and what peers that have received can send as well."""
        first = (self.numel, self.holders)
        num_further = len(self.lacking) - 1
        further = self.numel * num_further
        if not further:
            return [first]

        ranks_by_peer = self.lacking.values()
        relays = tuple(chain.from_iterable(ranks_by_peer))
        second = (further, self.holders + relays)
        return [first, second]

    def by_peer(self, quotas: Mapping[Peer, float]) -> Quotas:
        """Return the quotas of holders, and of each peer the sum over its ranks, which send equal parts."""
        found: Quotas = {}
        for holder in self.holders:
            found[holder] = quotas[holder]
        for peer, ranks in self.lacking.items():
            total = 0.0
            for rank in ranks:
                total += quotas.get(rank, 0.0)
            found[peer] = total
        return found


def sender_quotas(
    deliveries: Sequence[Delivery],
    base: Mapping[Peer, float],
    rate: float,
    topology: Topology,
    floor_s: float,
    *,
    send_once: bool,
) -> list[Quotas]:
    """Return for each delivery how many elements each peer sends.

    Peers that lack the content relay it only where that ends clearly earlier than sending from holders alone.

    Units: `base` is each rank's further load in elements, `rate` is in bytes per second. No plan takes less
        than `floor_s` seconds. With `send_once`, all peers read one copy.
    """
    deliveries = _limit_senders(deliveries)
    direct_demands = _direct_demands(deliveries, send_once=send_once)
    direct, loads = _balance(direct_demands, base)

    # With one copy or one receiver there is nothing to relay.
    most_peers = max((len(delivery.lacking) for delivery in deliveries), default=1)
    if send_once or most_peers == 1:
        return direct

    element_s = ELEMENT_BYTES / rate
    direct_s = max(loads.values()) * element_s
    if direct_s <= _RELAY_GAIN * floor_s:
        return direct

    relieved = _above_floor(deliveries, loads, element_s, floor_s)
    relayed, relayed_loads = _relay(deliveries, relieved, direct, base)
    busiest_s = max(relayed_loads.values()) * element_s
    # A tree has at most as many hops as receivers.
    relayed_s = max(busiest_s, floor_s) + most_peers * topology.latency_s
    if relayed_s * _RELAY_GAIN >= direct_s:
        return direct
    for index, quotas in zip(relieved, relayed, strict=True):
        direct[index] = deliveries[index].by_peer(quotas)
    return direct


def _relay(
    deliveries: Sequence[Delivery],
    relieved: Sequence[int],
    direct: Sequence[Quotas],
    base: Mapping[Peer, float],
) -> tuple[list[Quotas], dict[Peer, float]]:
    """Return the quotas of the deliveries at `relieved` if receivers relay, and the load of every rank.

    All other deliveries keep their quotas of `direct`.
    """
    indices = set(relieved)
    unchanged = []
    for index, quotas in enumerate(direct):
        if index not in indices:
            unchanged.append(quotas)

    demands = []
    for index in relieved:
        delivery = deliveries[index]
        demands.append(delivery.relayed_demands())
    other_loads = _add_loads(base, unchanged)
    return _balance(demands, other_loads)


def _limit_senders(deliveries: Sequence[Delivery]) -> list[Delivery]:
    """Reduce the holders of small deliveries, whose division would give many tiny messages.

    The chosen holders rotate from one delivery to the next, so that the loads stay even.
    """
    senders: set[Rank] = set()
    total = 0
    for delivery in deliveries:
        senders.update(delivery.holders)
        total += delivery.numel * len(delivery.lacking)
    fraction_of_even_load = total // (_SHARES_PER_SENDER * max(1, len(senders)))
    smallest = max(1, min(_SMALL_SHARE, fraction_of_even_load))

    limited = []
    turn = 0
    for delivery in deliveries:
        holders = delivery.holders
        number = max(1, min(len(holders), delivery.numel // smallest))
        ring = holders * 2
        start = turn % len(holders)
        chosen = ring[start : start + number]
        limited.append(replace(delivery, holders=chosen))
        turn += number
    return limited


def _direct_demands(deliveries: Sequence[Delivery], *, send_once: bool) -> list[list[Demand]]:
    """Return the demands of each delivery if holders alone send."""
    demands = []
    for delivery in deliveries:
        copies = 1 if send_once else len(delivery.lacking)
        demand = (delivery.numel * copies, delivery.holders)
        demands.append([demand])
    return demands


def _above_floor(
    deliveries: Sequence[Delivery], loads: Mapping[Peer, float], element_s: float, floor_s: float
) -> list[int]:
    """Return the indices of deliveries with a holder that sends for longer than `floor_s`.

    Relays cannot shorten the others, and would add latency to them.
    """
    found = []
    for index, delivery in enumerate(deliveries):
        busiest = max(loads[holder] for holder in delivery.holders)
        if busiest * element_s > floor_s:
            found.append(index)
    return found


def _balance(
    demands: Sequence[list[Demand]], base: Mapping[Peer, float]
) -> tuple[list[Quotas], dict[Peer, float]]:
    """Return the quotas of each list of demands, and the load of every rank."""
    # Demands with the same candidates are balanced as one: a pass visits each set of candidates once.
    totals: dict[tuple[Rank, ...], float] = defaultdict(float)
    for several in demands:
        for numel, candidates in several:
            totals[candidates] += numel

    combined: list[tuple[float, Sequence[Peer]]] = []
    for candidates, total in totals.items():
        combined.append((total, candidates))
    balanced = balance(combined, base)
    shares = dict(zip(totals, balanced.quotas, strict=True))

    found: list[Quotas] = []
    for several in demands:
        quotas: Quotas = defaultdict(float)
        for numel, candidates in several:
            # Each demand takes its proportion of what was shared for all with its candidates.
            total = totals[candidates]
            share = shares[candidates]
            for rank, quota in share.items():
                quotas[rank] += quota * numel / total
        found.append(dict(quotas))
    return found, _add_loads(base, found)


def _add_loads(base: Mapping[Peer, float], quotas: Iterable[Quotas]) -> dict[Peer, float]:
    """Return the load of every rank: `base` and its quotas."""
    loads = dict(base)
    for several in quotas:
        for rank, quota in several.items():
            loads[rank] = loads.get(rank, 0.0) + quota
    return loads
