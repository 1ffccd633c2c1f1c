"""Changes readings so that units are compared as they are written: 100 cm are then not 1 m."""

from __future__ import annotations

from dataclasses import replace

from realrl.verifier.tree import Items, Named, Progression, Quantity, Reading, Relation, Unit, Value


def unconverted(reading: Reading) -> Reading:
    """Return a reading in which every unit is of a kind of its own."""
    return tuple(map(_unconverted, reading))


def _unconverted(value: Value) -> Value:
    match value:
        case Quantity(unit=unit) if unit.is_known:
            only_kind = Unit(f"{unit.kind} of {unit.factor}")
            return replace(value, unit=only_kind)
        case Items(items=items):
            return replace(value, items=_each(items))
        case Progression(first=first, last=last):
            return replace(value, first=_each(first), last=_each(last))
        case Named(value=inner):
            return replace(value, value=unconverted(inner))
        case Relation(sides=sides):
            return replace(value, sides=_each(sides))
    return value


def _each(readings: tuple[Reading, ...]) -> tuple[Reading, ...]:
    return tuple(map(unconverted, readings))
