"""What an answer is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Leaf:
    """One expression in `latex.clean`'s spelling, and the unit after it, if that is a known one."""

    latex: str
    unit: str = ""


@dataclass(frozen=True)
class Words:
    """Text that is no mathematics: `east`, `no solution`."""

    text: str


@dataclass(frozen=True)
class Items:
    """Several values together."""

    kind: str
    """The delimiters, as in `()`, `[)` or `{}`; `,` for a bare list; `∪` for a union; `:` for a ratio."""
    items: tuple[Value, ...]
    text: str = ""


@dataclass(frozen=True)
class Matrix:
    """Its rows, whatever delimiters it stands in."""

    rows: tuple[tuple[Value, ...], ...]
    text: str


@dataclass(frozen=True)
class Named:
    """What is said to be a name's value: of `x = 3` the 3, of `x < 3` the interval."""

    name: str
    value: Value


@dataclass(frozen=True)
class Relation:
    """Sides that are related, none of them a name: an equation to be fulfilled, an order, an identity."""

    operators: tuple[str, ...]
    sides: tuple[str, ...]


Value: TypeAlias = "Leaf | Words | Items | Matrix | Named | Relation"
