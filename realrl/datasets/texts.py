"""Texts and numbers of rows as the texts that are compared and trained on."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

_MOST_DIGITS = 1000
"""A longer number is no answer that a verifier reads."""


def text_of(value: Any) -> Any:
    """A number as its text; what is neither a number nor null is left as it is."""
    if isinstance(value, (float, Decimal)):
        return _number(Decimal(repr(value)) if isinstance(value, float) else value)
    return str(value) if isinstance(value, int) else value


def answers_of(solutions: Any) -> Any:
    """Gold answers as a list of texts; what is no answer is left as it is."""
    if isinstance(solutions, list):
        return [_answer(solution) for solution in solutions]
    answer = _answer(solutions)
    return [answer] if isinstance(answer, str) else answer


def _answer(value: Any) -> Any:
    """The text of a gold answer; empty for null and NaN, which no response can match."""
    if value is None or (isinstance(value, (float, Decimal)) and value != value):
        return ""
    return text_of(value)


def plain_number(value: Any) -> Any:
    """A number of our kinds; whatever else is left as it is."""
    return float(value) if isinstance(value, Decimal) else value


def without_surrogates(value: Any) -> Any:
    """Texts, also those in lists and messages, with U+FFFD for each half of a character."""
    if isinstance(value, str):
        return _mended(value)
    if isinstance(value, list):
        return [without_surrogates(part) for part in value]
    if isinstance(value, dict):
        return {without_surrogates(key): without_surrogates(part) for key, part in value.items()}
    return value


def _mended(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _number(value: Decimal) -> str:
    """Without an exponent, which a verifier of mathematics reads as a product with e."""
    if not value.is_finite():
        return str(value)
    if abs(value.adjusted()) > _MOST_DIGITS:
        raise msgspec.ValidationError(
            f"{value} is a number of more than {_MOST_DIGITS} digits; give it as text"
        )
    # Zero has no sign to whoever answers.
    return format(value if value else abs(value), "f")
