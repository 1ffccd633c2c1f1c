"""Reads digits, with a decimal point and with repeating digits, as an exact number."""

from __future__ import annotations

from fractions import Fraction

from realrl.verifier.cursor import Cursor, Unreadable
from realrl.verifier.nodes import Number
from realrl.verifier.tokens import CLOSE, NUMBER

MAX_DIGITS = 1000
"""The largest number of characters of a number."""


def read_digits(cursor: Cursor) -> Number:
    """Return the number whose digits come next, with those that repeat."""
    text = cursor.read().text
    period = _period(cursor, text)
    if period is None:
        return decimal_number(text)
    return Number(repeating_number(text, period))


def _period(cursor: Cursor, text: str) -> str | None:
    r"""Return the digits that repeat in `0.1\overline{6}` and `0.(3)`; None, and nothing read, if none do."""
    start = cursor.at
    is_decimal = "." in text
    has_point = is_decimal or cursor.take(".")
    is_marked = cursor.take(r"\overline") and cursor.next_is("{")
    # Brackets after a number that has its point already are a factor.
    may_be_bracketed = has_point and not is_decimal and not is_marked
    is_bracketed = may_be_bracketed and cursor.next_is("(")
    if has_point and (is_marked or is_bracketed):
        digits = _whole_in_brackets(cursor)
        if digits is not None:
            cursor.at += 3
            return digits
    cursor.at = start
    return None


def _whole_in_brackets(cursor: Cursor) -> str | None:
    """Return the digits between the next token, a bracket, and a closing one; None if others are there."""
    digits = cursor.peek(1)
    end = cursor.peek(2)
    if digits is None or end is None:
        return None
    is_whole = digits.kind == NUMBER and "." not in digits.text
    if is_whole and end.kind == CLOSE:
        return digits.text
    return None


def decimal_number(text: str) -> Number:
    """Return the number of digits with at most one point, and how many decimals it has.

    Raises:
        Unreadable: The text is longer than `MAX_DIGITS`.
    """
    if len(text) > MAX_DIGITS:
        raise Unreadable("a long number")
    whole_part, _, decimals = text.partition(".")
    digits = int(whole_part + decimals or "0")
    value = Fraction(digits, 10 ** len(decimals))
    return Number(value, len(decimals))


def repeating_number(start: str, period: str) -> Fraction:
    """Return the rational number whose digits repeat: its tail is the period over as many nines."""
    _, _, decimals = start.partition(".")
    nines = 10 ** len(period) - 1
    tail = Fraction(int(period), nines * 10 ** len(decimals))
    return decimal_number(start).value + tail
