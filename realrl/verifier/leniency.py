"""Settings of what counts as equal, where that is a matter of taste or of the data."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from realrl.verifier.limits import ANSWER_DIGITS, SOLUTION_DIGITS


@dataclass(frozen=True, kw_only=True)
class Leniency:
    """What an answer may do without being wrong."""

    convert_units: bool = True
    """Whether quantities of different units can be equal: 100 cm for 1 m."""
    answer_digits: int = ANSWER_DIGITS
    """Significant digits from which a decimal answer stands for a number with more: with 2, 0.33 for 1/3."""
    solution_digits: int = SOLUTION_DIGITS
    """The same for a decimal solution: with 3, an answer of 8/3 is right for 2.67."""
    orders_as_sets: bool = True
    """Whether an order is the set that it describes: `x > 2` for a solution `(2, \\infty)`."""
    rename: bool = False
    """Whether one variable may have another letter than in the solution: `2t + 1` for `2x + 1`."""

    def __post_init__(self) -> None:
        for name, most in (("answer_digits", ANSWER_DIGITS), ("solution_digits", SOLUTION_DIGITS)):
            digits = getattr(self, name)
            if not 1 <= digits <= most:
                raise ValueError(f"{name} must be from 1 to {most}, got {digits}")

    @property
    def rounds(self) -> bool:
        """Whether fewer digits than usual stand for a number."""
        return self.answer_digits < ANSWER_DIGITS or self.solution_digits < SOLUTION_DIGITS

    def changes(self) -> dict[str, Any]:
        """Return the settings that are not the usual ones, by name."""
        changed: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                changed[field.name] = value
        return changed


USUAL = Leniency()
"""The settings without a choice."""
