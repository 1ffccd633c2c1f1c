"""Readings whose units are compared as they are written: 100 cm are then not 1 m."""

from __future__ import annotations

from dataclasses import replace

from realrl.verifier.tree import Items, Named, Progression, Quantity, Reading, Relation, Unit, Value


def unconverted(reading: Reading) -> Reading:
    """A reading in which every unit is of a kind of its own."""
    return tuple(map(_unconverted, reading))


def _unconverted(value: Value) -> Value:
    match value:
        case Quantity(unit=unit) if unit.is_known:
            return replace(value, unit=Unit(f"{unit.kind} of {unit.factor}"))
        case Items(items=items):
            return replace(value, items=tuple(map(unconverted, items)))
        case Progression(first=first, last=last):
            return replace(value, first=tuple(map(unconverted, first)), last=tuple(map(unconverted, last)))
        case Named(value=inner):
            return replace(value, value=unconverted(inner))
        case Relation(sides=sides):
            return replace(value, sides=tuple(map(unconverted, sides)))
    return value
