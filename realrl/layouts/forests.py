"""Trees over peers in which every sender sends the part of a content that its quota says.

A content is divided into stretches. All of a stretch takes the same trees. Example: A holds a content of
length 1, B and C lack it, and the quotas are A 1.2 and B 0.8. Quotas are laid end to end and wrapped into
one row for each peer that lacks the content:

        0        0.2               1
        +---------+----------------+
        |    A    |       A        |    row 0
        +---------+----------------+
        |    A    |       B        |    row 1
        +---------+----------------+
          A -> B       A -> B
          A -> C       B -> C

Source: McNaughton 1959, the wrap-around rule.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from realrl.layouts.layout import Rank
from realrl.layouts.senders import Delivery, Peer

_DIGITS = 6
"""Fractions of a content that agree to this many decimal digits are taken as equal."""
_SMALLEST_FRACTION = 10.0**-_DIGITS

Edge = tuple[Peer, Peer]
"""Sender and receiver."""

Trees = dict[Rank, list[Edge]]
"""For each root, a holder, the edges of its tree in sending order."""

Stretch = tuple[float, Trees]
"""A fraction of the content, and the trees that it takes."""


def stretches(delivery: Delivery, quotas: Mapping[Peer, float]) -> Iterator[Stretch]:
    """Yield the stretches of a content, in order, such that each peer sends its quota.

    Units: quotas are in elements and sum to `delivery.numel` times the number of peers that lack it.
    """
    relays = quotas.keys() - set(delivery.holders)
    if relays:
        return _forests(delivery, quotas)
    return _stars(delivery, quotas)


def _stars(delivery: Delivery, quotas: Mapping[Peer, float]) -> Iterator[Stretch]:
    """Yield one stretch per holder, which sends it to every peer that lacks it."""
    total = sum(quotas.values())
    smallest = _SMALLEST_FRACTION * total
    roots = _roots(delivery)
    for holder, quota in quotas.items():
        if quota <= smallest:
            continue
        edges: list[Edge] = []
        for peer in delivery.lacking:
            edges.append((holder, peer))

        fraction = quota / total
        root = roots[holder]
        yield fraction, {root: edges}


def _roots(delivery: Delivery) -> dict[Peer, Rank]:
    """Return the holders among all peers: each is a rank, and may be the root of a tree."""
    return {holder: holder for holder in delivery.holders}


def _forests(delivery: Delivery, quotas: Mapping[Peer, float]) -> Iterator[Stretch]:
    """Yield stretches whose trees pass through relays.

    Holders come first, so that the first sender of each column is a holder. A relay's own receipt then comes
    from a sender above it in its column.
    """
    senders: list[Peer] = []
    for holder in delivery.holders:
        if holder in quotas:
            senders.append(holder)
    relays = [peer for peer in quotas if peer not in delivery.holders]
    relays.sort(key=lambda peer: -quotas[peer])
    senders += relays

    # One row for each peer that lacks the content.
    num_rows = len(delivery.lacking)
    ends = _ends(senders, quotas, num_rows)
    for low, high in _columns(ends):
        middle = (low + high) / 2
        column = []
        for row in range(num_rows):
            sender = _sender_at(ends, row + middle)
            column.append(sender)
        trees = _trees(delivery, column)
        yield high - low, trees


def _ends(senders: Sequence[Peer], quotas: Mapping[Peer, float], num_rows: int) -> list[tuple[float, Peer]]:
    """Return where each quota ends if they are laid end to end over `num_rows` rows of length 1."""
    total = sum(quotas.values())
    ends = []
    position = 0.0
    for sender in senders:
        fraction = quotas[sender] / total
        position += fraction * num_rows
        ends.append((position, sender))
    return ends


def _columns(ends: Sequence[tuple[float, Peer]]) -> Iterator[tuple[float, float]]:
    """Yield the ranges of `[0, 1)` in which no row changes its sender."""
    # Rounding removes columns that exist only by floating-point error.
    cuts = {0.0, 1.0}
    for end, _ in ends:
        cuts.add(round(end % 1.0, _DIGITS))
    return pairwise(sorted(cuts))


def _sender_at(ends: Sequence[tuple[float, Peer]], position: float) -> Peer:
    """Return the sender whose quota covers `position`."""
    for end, sender in ends:
        if position < end:
            return sender
    # By floating-point error the last end may lie just before the last row's.
    _, last = ends[-1]
    return last


def _trees(delivery: Delivery, senders: Sequence[Peer]) -> Trees:
    """Return trees in which each sender has as many edges as it has places in `senders`."""
    places = Counter(senders)
    root_of: dict[Peer, Rank] = {}
    trees: Trees = {}
    roots = _roots(delivery)
    for sender in places:
        if sender in roots:
            root = roots[sender]
            root_of[sender] = root
            trees[root] = []

    informed = deque(root_of)
    # Peers that send most receive first, so that a sender is always at hand.
    receivers = sorted(delivery.lacking, key=lambda peer: -places[peer])
    for receiver in receivers:
        sender = informed[0]
        root = root_of[sender]
        trees[root].append((sender, receiver))
        root_of[receiver] = root
        places[sender] -= 1
        if not places[sender]:
            informed.popleft()
        if places[receiver]:
            informed.append(receiver)
    return trees
