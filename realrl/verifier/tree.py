"""The values that an answer is read as. A *reading* has all meanings of a text, the usual one first."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

from realrl.verifier.nodes import Node, Number


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
    """A unit of measurement, or a thing that is counted."""

    kind: str
    """`length`, `length * time^-1`, `money USD`; the words for a thing that is counted."""
    factor: Fraction = Fraction(1)
    """The size of the unit in the base unit of its kind."""
    is_known: bool = True
    """False for a thing that is counted."""


@dataclass(frozen=True)
class Quantity:
    """A number with a unit, or of things that are counted."""

    node: Node
    unit: Unit


@dataclass(frozen=True)
class Percentage:
    """A number of hundredths."""

    node: Node


@dataclass(frozen=True)
class Words:
    """A text that is not mathematics, word by word."""

    words: tuple[str, ...]


@dataclass(frozen=True)
class Numeral:
    """Digits, and the base that is written with them."""

    digits: str
    base: int


@dataclass(frozen=True)
class Congruence:
    """A residue and its modulus."""

    node: Node
    modulus: Node


@dataclass(frozen=True)
class Moment:
    """A time of the day, or a date."""

    minutes: int | None = None
    """The minutes since midnight; with a `half`, an hour of 12 is not 0 there."""
    half: str = ""
    """`am`, `pm` or an empty text."""
    day: int | None = None
    month: int | None = None
    year: int | None = None


@dataclass(frozen=True)
class Items:
    """Several values together."""

    kind: str
    """`()` a tuple, `[]` a tuple in square brackets, `{}` a set, `,` a bare list, `or` a list of
    alternatives, `:` a ratio."""
    items: tuple[Reading, ...]
    decimal: Number | None = None
    """The number that the same text is where a comma stands before decimals."""


@dataclass(frozen=True)
class Progression:
    """A list with dots: its first members, and its last ones if it ends."""

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
    """A name with its value."""

    name: str
    value: Reading
    may_be_dropped: bool = True
    """Whether the value alone says as much: for `x = 3`, but not for `\\log x = 3`."""
    is_one_thing: bool = True
    """Whether the name has neither a sum nor a power in it: `x`, but not `x + y`."""


@dataclass(frozen=True)
class Relation:
    """Sides with relations between them, as in an equation or an order."""

    operators: tuple[str, ...]
    sides: tuple[Reading, ...]


FormulaValue: TypeAlias = Formula | Family | Quantity | Percentage
"""A value that is one formula, and what the formula counts."""
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
