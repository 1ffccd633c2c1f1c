"""Numbers out of digits, exactly."""

from __future__ import annotations

from fractions import Fraction

from realrl.verifier.cursor import Unreadable
from realrl.verifier.nodes import Number

MAX_DIGITS = 1000


def decimal_number(text: str) -> Number:
    if len(text) > MAX_DIGITS:
        raise Unreadable("a long number")
    whole_part, _, decimals = text.partition(".")
    value = Fraction(int(whole_part + decimals or "0"), 10 ** len(decimals))
    return Number(value, len(decimals))


def repeating_number(start: str, period: str) -> Fraction:
    """The rational number whose digits repeat: the tail is its period over as many nines."""
    _, _, decimals = start.partition(".")
    tail = Fraction(int(period), (10 ** len(period) - 1) * 10 ** len(decimals))
    return decimal_number(start).value + tail
