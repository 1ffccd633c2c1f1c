r"""Combines the members of a list with the range of a variable among them: `2k\pi, k \in \mathbb{Z}`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from realrl.verifier.nodes import free_symbols
from realrl.verifier.tree import Family, Formula, Named, Reading, RealSet, Relation, Value, Words


def without_ranges(members: list[Reading]) -> list[Reading]:
    r"""Return members without ranges of their variables, as `k \in \mathbb{Z}`.

    With exactly one range, the other members become families over it.
    """
    used = _used_variables(members)
    ranges: list[Named] = []
    kept: list[Reading] = []
    for member in members:
        found = _range_of(member, used)
        if found is None:
            kept.append(member)
        else:
            ranges.append(found)
    if not ranges or not kept:
        return members
    if len(ranges) > 1:
        return kept
    (only_range,) = ranges
    return [_over_range(member, only_range) for member in kept]


def _used_variables(members: Sequence[Reading]) -> set[str]:
    """Return the variables in the formulas of members."""
    used: set[str] = set()
    for member in members:
        value = member[0]
        if isinstance(value, Named):
            value = value.value[0]
        if isinstance(value, Formula):
            used |= free_symbols(value.node)
    return used


def _range_of(member: Reading, used: set[str]) -> Named | None:
    """Return the range of a variable that a member is; None for any other member."""
    value = member[0]
    if not isinstance(value, Named) or value.name not in used:
        return None
    is_range = isinstance(value.value[0], (Words, RealSet))
    return value if is_range else None


def _over_range(member: Reading, range_: Named) -> Reading:
    """Return a member as a family over a set in words; over a set of real numbers it stays as it is."""
    inside = range_.value[0]
    if not isinstance(inside, Words):
        return member
    return _in_family(member, range_.name, inside)


def _in_family(member: Reading, variable: str, inside: Words) -> Reading:
    """Return the values of a member that can be a family, or the member as it is if none can."""
    families = tuple(_families(member, variable, inside))
    return families or member


def _families(member: Reading, variable: str, inside: Words) -> Iterator[Value]:
    for value in member:
        if isinstance(value, Formula):
            yield Family(value.node, variable, " ".join(inside.words))
        elif isinstance(value, Named):
            inner = _in_family(value.value, variable, inside)
            yield replace(value, value=inner)
        elif not isinstance(value, Relation):
            yield value
