"""Reads digits as the exact number that they are, with a point, and with digits that repeat."""

from __future__ import annotations

from fractions import Fraction

from realrl.verifier.cursor import Cursor, Unreadable
from realrl.verifier.nodes import Number
from realrl.verifier.tokens import CLOSE, NUMBER

MAX_DIGITS = 1000


def read_digits(cursor: Cursor) -> Number:
    """The number whose digits come next, with those that repeat."""
    text = cursor.peek().text
    cursor.at += 1
    period = _period(cursor, text)
    return decimal_number(text) if period is None else Number(repeating_number(text, period))


def _period(cursor: Cursor, text: str) -> str | None:
    r"""The digits that repeat in `0.1\overline{6}` and `0.(3)`, after the first ones."""
    start = cursor.at
    has_point = "." in text or cursor.take(".")
    is_marked = cursor.take(r"\overline") and cursor.next_is("{")
    is_bracketed = not is_marked and "." not in text and has_point and cursor.next_is("(")
    if has_point and (is_marked or is_bracketed):
        _, digits, end = (cursor.peek(ahead) for ahead in range(3))
        if end is not None and digits.kind == NUMBER and "." not in digits.text and end.kind == CLOSE:
            cursor.at += 3
            return digits.text
    cursor.at = start
    return None


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
