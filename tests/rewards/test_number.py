from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realrl.rewards.latex import clean
from realrl.rewards.number import is_rounded, parse_number, rounds_to


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("033", 33),
        ("142.0", 142),
        ("-1,234.5", Fraction(-2469, 2)),
        ("3/4", Fraction(3, 4)),
        (r"\frac34", Fraction(3, 4)),
        (r"\frac 3 4", Fraction(3, 4)),
        (r"-\dfrac{3}{4}", Fraction(-3, 4)),
        (r"2\tfrac{1}{2}", Fraction(5, 2)),
        (r"1\frac12", Fraction(3, 2)),
        ("-2 1/2", Fraction(-5, 2)),
        (".5", Fraction(1, 2)),
        ("10\\%", 10),
        (r"\$5", 5),
        ("10,000", 10000),
        ("10{,}000", 10000),
        (r"10\,000", 10000),
        (r"10,\!000", 10000),
        ("10 000", 10000),
        (r"\mathbf{2340}", 2340),
        ("3 5", None),
        ("3, 5", None),
        ("1,2", None),
        ("0,111", None),
        ("32, 349", None),
        ("1/0", None),
        ("52_8", None),
        ("1e5", None),
        ("9" * 5000, None),
    ],
)
def test_numbers_are_read_exactly(answer, value):
    number = parse_number(clean(answer))
    assert (number and number.value) == value


@settings(deadline=None)
@given(st.integers(-(10**12), 10**12), st.integers(0, 999))
def test_separated_thousands_are_what_python_writes(whole, decimals):
    for text in (f"{whole:,}.{decimals:03}", f"{whole}.{decimals:03}"):
        assert parse_number(clean(text)).value == Fraction(f"{whole}.{decimals:03}")


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("50%", "0.5", True),
        ("50\\%", "50", True),
        ("50 percent", "1/2", True),
        ("50", "0.5", False),
        ("50%", "50\\%", True),
        ("50%", "0.5%", False),
        ("0.5", "0.005", False),
        ("0%", "0", True),
    ],
)
def test_only_what_is_written_as_a_percentage_is_one(first, second, same):
    a, b = parse_number(clean(first)), parse_number(clean(second))
    assert a.same(b) is b.same(a) is same


@settings(deadline=None)
@given(st.fractions(max_denominator=1000), st.integers(6, 12))
def test_a_long_decimal_stands_for_what_rounds_to_it(value, places):
    """Python's own rounding and cutting of exact fractions are the oracle; a tie may go either way."""
    scaled = value * 10**places
    is_tie = scaled.denominator == 2
    meant = {math.floor(scaled), math.ceil(scaled)} if is_tie else {round(scaled), math.trunc(scaled)}
    if scaled.denominator == 1 or min(map(abs, meant)) < 10**6:
        return
    for near in range(math.floor(scaled) - 2, math.ceil(scaled) + 3):
        assert rounds_to(value, decimal(near, places)) is (near in meant)


def test_a_number_that_ends_is_not_rounded():
    assert not rounds_to(Fraction("326.5"), "326.500001")
    assert not rounds_to(Fraction("326.5"), "326.500000")
    assert is_rounded("326.500001") and is_rounded("-0.00123456")
    assert not is_rounded("0.012345") and not is_rounded("1234567")


@pytest.mark.parametrize(
    ("repeating", "value"),
    [
        (r"0.\overline{3}", Fraction(1, 3)),
        (r"-0.1\overline{6}", Fraction(-1, 6)),
        (r"2.\overline{18}", Fraction(24, 11)),
    ],
)
def test_repeating_decimals_are_exact(repeating, value):
    assert parse_number(clean(repeating)).value == value


def decimal(scaled: int, places: int) -> str:
    digits = str(abs(scaled)).rjust(places + 1, "0")
    return f"{'-' if scaled < 0 else ''}{digits[:-places]}.{digits[-places:]}"
