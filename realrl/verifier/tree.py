"""The values that an answer is read as. A *reading* is all that a text may mean, the usual meaning first."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

from realrl.verifier.nodes import Node


@dataclass(frozen=True)
class Formula:
    """An expression that may have a value."""

    node: Node


@dataclass(frozen=True)
class Family:
    r"""The values of a formula for all values of one of its variables: `2k\pi, k \in \mathbb{Z}`."""

    node: Node
    variable: str
    range: str
    """The set of the variable's values, as it is written."""


@dataclass(frozen=True)
class Unit:
    """A unit that a number measures in, or a thing that it counts."""

    kind: str
    """`length`, `length/time`, `money USD`; of a thing that is counted, its words."""
    factor: Fraction = Fraction(1)
    """Its size in the base unit of its kind."""
    is_known: bool = True
    """Whether it is a unit, rather than a thing that is counted."""


@dataclass(frozen=True)
class Quantity:
    """A number of a unit."""

    node: Node
    unit: Unit


@dataclass(frozen=True)
class Percentage:
    """A number of hundredths."""

    node: Node


@dataclass(frozen=True)
class Words:
    """A text that is no mathematics, word by word."""

    words: tuple[str, ...]


@dataclass(frozen=True)
class Numeral:
    """Digits in a base that is written beside them."""

    digits: str
    base: int


@dataclass(frozen=True)
class Congruence:
    """A residue and its modulus."""

    node: Node
    modulus: Node


@dataclass(frozen=True)
class Moment:
    """A time of the day in minutes, or a date."""

    minutes: int | None = None
    half: str = ""
    """`am`, `pm` or nothing."""
    day: int | None = None
    month: int | None = None
    year: int | None = None


@dataclass(frozen=True)
class Items:
    """Several values together."""

    kind: str
    """`()` a tuple, `{}` a set, `,` a bare list, `or` a list of alternatives, `:` a ratio."""
    items: tuple[Reading, ...]
    decimal: Node | None = None
    """The number that the text is where a comma stands before decimals."""


@dataclass(frozen=True)
class Progression:
    """A list with dots: some first members, and last ones where it ends."""

    kind: str
    first: tuple[Reading, ...]
    last: tuple[Reading, ...]


@dataclass(frozen=True)
class Bound:
    """An end of an interval; `node` is None at infinity."""

    node: Node | None
    is_closed: bool = False


@dataclass(frozen=True)
class Interval:
    """All real numbers between two bounds."""

    low: Bound
    high: Bound


@dataclass(frozen=True)
class RealSet:
    """A union of intervals."""

    parts: tuple[Interval, ...]


@dataclass(frozen=True)
class Named:
    """A value and the name that it is said to be the value of."""

    name: str
    value: Reading
    may_be_dropped: bool = True
    """Whether the value alone says as much: of `x = 3`, but not of `\\log x = 3`."""
    is_one_thing: bool = True
    """Whether the name is that of one thing: `x`, but not `x + y`."""


@dataclass(frozen=True)
class Relation:
    """Sides that are related, as an equation to be fulfilled or an order."""

    operators: tuple[str, ...]
    sides: tuple[Reading, ...]


Value: TypeAlias = (
    Formula
    | Family
    | Quantity
    | Percentage
    | Words
    | Numeral
    | Congruence
    | Moment
    | Items
    | Progression
    | RealSet
    | Named
    | Relation
)
Reading: TypeAlias = tuple[Value, ...]
