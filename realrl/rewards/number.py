"""Numbers as people write them, exactly."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

MAX_DIGITS = 400
"""A longer number is compared as a string."""
MIN_ROUNDED_DIGITS = 6
"""So many significant digits stand for a number that has no end of them."""

_DIGITS = r"(?:[1-9]\d{0,2}(?:,\d{3}){1,12}|\d+)"
_DECIMAL = rf"(?:{_DIGITS}(?:\.\d*)?|\.\d+)"
_NUMBER = re.compile(
    rf"(?P<sign>[-+]?)(?:(?P<top>{_DECIMAL})(?:/(?P<bottom>{_DECIMAL}))?"
    rf"|(?P<whole>{_DIGITS})?\\frac\{{(?P<num>[-+]?{_DECIMAL})\}}\{{(?P<den>{_DECIMAL})\}})"
)
_REPEATING = re.compile(r"([-+]?)(\d*\.\d*)\\overline\{(\d+)\}")
_PERCENT = re.compile(r"(?:\\?%|\s*(?:\\text\{)?\s*(?:percent|percentage|pct)\}?)$", re.IGNORECASE)
_PLAIN_DECIMAL = re.compile(r"-?\d*\.(\d+)")
_DECIMAL_COMMA = re.compile(r"(-?\d+),(\d+)")


@dataclass(frozen=True)
class Number:
    """A value, and whether it was written as a percentage (then `value` is what stands before the sign)."""

    value: Fraction
    percent: bool = False

    def same(self, other: Number) -> bool:
        """A percentage is the number before its sign, or a hundredth of that; no other number is one."""
        if self.value == other.value:
            return True
        scales = (Fraction(1, 100) if number.percent else 1 for number in (self, other))
        return self.value * next(scales) == other.value * next(scales)


def parse_number(expression: str) -> Number | None:
    """An integer, decimal, fraction, mixed number or percentage, spelled as `latex.clean` does; else None."""
    bare = without_percent(expression)
    if len(bare) > MAX_DIGITS:
        return None
    if repeating := _REPEATING.fullmatch(bare):
        return Number(_repeated(*repeating.groups()), percent=bare != expression)
    match = _NUMBER.fullmatch(bare)
    if not match:
        return None
    part = {
        name: Fraction(text.replace(",", ""))
        for name, text in match.groupdict().items()
        if text and name != "sign"
    }
    top, bottom = (
        part.get(a, part.get(b, Fraction(c))) for a, b, c in (("top", "num", 0), ("bottom", "den", 1))
    )
    if not bottom:
        return None
    value = part.get("whole", 0) + top / bottom
    return Number(-value if match["sign"] == "-" else value, percent=bare != expression)


def _repeated(sign: str, start: str, period: str) -> Fraction:
    r"""`0.1\overline{6}`: the tail is its period over as many nines."""
    places = len(start.partition(".")[2])
    tail = Fraction(int(period), (10 ** len(period) - 1) * 10**places)
    return (-1 if sign == "-" else 1) * (Fraction(start + "0") + tail)


def without_percent(expression: str) -> str:
    return _PERCENT.sub("", expression)


def is_rounded(expression: str) -> bool:
    """Whether it is a decimal with so many digits that it may stand for a number with more."""
    digits = expression.replace(".", "").lstrip("-0")
    is_short = MIN_ROUNDED_DIGITS <= len(digits) <= MAX_DIGITS
    return is_short and _PLAIN_DECIMAL.fullmatch(expression) is not None


def rounds_to(value: Fraction, decimal: str) -> bool:
    """Whether `value` has more decimals than `decimal`, which is that rounded or cut off."""
    unit = Fraction(1, 10 ** len(decimal.partition(".")[2]))
    shown = Fraction(decimal)
    missing = abs(value) - abs(shown)
    return shown * value > 0 and (value / unit).denominator > 1 and -unit / 2 <= missing < unit


def decimal_comma(expression: str) -> Fraction | None:
    """`2,74` as it is meant where a comma stands before decimals."""
    match = _DECIMAL_COMMA.fullmatch(expression)
    return Fraction(f"{match[1]}.{match[2]}") if match and len(expression) <= MAX_DIGITS else None
