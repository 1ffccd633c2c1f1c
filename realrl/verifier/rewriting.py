r"""Rewrites notations that would otherwise be cut into the wrong tokens.

12\,345 and 12{,}345 ─▶ 12345     1.234.567,5 ─▶ 1234567.5     1.5e3 ─▶ {1.5\cdot 10^{3}}
x=1orx=2 ─▶ x=1 or x=2
^{2}/_{3} ─▶ \frac{2}{3}          {}_5C_2, C_5^2, 5C2 and nCr(5, 2) ─▶ \binom{5}{2}
"""

from __future__ import annotations

import re

_NO_DIGITS_BEFORE = r"(?<![\d.])(?<!(?<!\\),)"
_FINE_SPACE = r"(?:\\,|\\ |\s*\{,\s*\}\s*|\{\\,\}|,\s*\\!\s*|\\;| |'|~)"
_FINE_GROUPS = re.compile(rf"{_NO_DIGITS_BEFORE}([1-9]\d{{0,2}})((?:{_FINE_SPACE}\d{{3}})+)(?!\d|,\d)")
_GROUP_SIGNS = re.compile(r"\\[,; !]|[{}]|[\s,'~]")
_DOTTED_GROUPS = re.compile(
    rf"{_NO_DIGITS_BEFORE}(\d{{1,3}}(?:\.\d{{3}})+),(\d+)(?![\d.,])"
    rf"|{_NO_DIGITS_BEFORE}(\d{{1,3}}(?:\.\d{{3}}){{2,}})(?![\d.,])"
)
_SLANTED_FRACTION = re.compile(r"(?:\{\})?\^\{?(\d+)\}?/_\{?(\d+)\}?")
_COMBINATIONS = re.compile(r"(?:\{\})?[_^](?:\{(\w{1,3})\}|(\w))\{?C\}?_(?:\{(\w{1,3})\}|(\w))")
_COMBINATIONS_BELOW = re.compile(r"(?<![A-Za-z\\])C_\{?(\d+|n)\}?\^\{?(\d+|[a-z])\}?")
_CALLED = r"\s*\(\s*(\d+)\s*,\s*(\d+)\s*\)"
_NO_NAME_BEFORE, _NO_DIGIT_BEHIND = r"(?<![\w.\\])", r"(?![\d.]|[A-Fa-f_])"
_COMBINATIONS_BESIDE = re.compile(
    rf"{_NO_NAME_BEFORE}(?:nCr{_CALLED}|(\d{{1,3}})C(\d{{1,3}}){_NO_DIGIT_BEHIND})"
)
_PERMUTATIONS = re.compile(
    rf"{_NO_NAME_BEFORE}(?:nPr{_CALLED}|(\d{{1,3}})P(\d{{1,3}}){_NO_DIGIT_BEHIND})"
    r"|(?:\{\})?[_^]\{?(\d{1,3})\}?P_\{?(\d{1,3})\}?|(?<![A-Za-z\\])P_\{?(\d+)\}?\^\{?(\d+)\}?"
)
_EXPONENT_NUMBER = re.compile(r"(\d+(?:\.\d+)?|\.\d+)[eE]([+-]?\d+)(?![\w.])")
_MAX_EXPONENT_CHARS = 7
"""The largest number of characters of an exponent, with its sign."""
_GLUED_CONJUNCTION = re.compile(
    r"(?<=[\d)}\]])(or|and)(?=[A-Za-z](?:'|_|\(|\s*[=<>]|\s*\\[lgn]e(?![A-Za-z])))"
)
"""A conjunction between a value and an equation or an order, in a list that has lost its spaces."""
_GLUED_SPACE = re.compile(r"(\\q?quad)(?=[A-Za-z])")
_BRACED_SIGN = re.compile(r"\{\s*([,:=;.])\s*\}")
_ESCAPED_BREAK = re.compile(r"\\\\(?=[A-Za-z{}(),;!])")


def rewritten(text: str, *, groups: bool) -> str:
    """Return a text with one notation for numbers and combinations, and with `groups` for grouped digits."""
    # Outside of environments there are no rows: two backslashes are one that was escaped twice.
    if r"\begin" not in text:
        text = _ESCAPED_BREAK.sub(r"\\", text)
    text = _GLUED_SPACE.sub(r"\1 ", text)
    text = _GLUED_CONJUNCTION.sub(r" \1 ", text)
    if groups:
        text = _FINE_GROUPS.sub(_without_group_signs, text)
        text = _DOTTED_GROUPS.sub(_without_points, text)
    text = _SLANTED_FRACTION.sub(r"\\frac{\1}{\2}", text)
    text = _COMBINATIONS.sub(r"\\binom{\1\2}{\3\4}", text)
    text = _COMBINATIONS_BELOW.sub(r"\\binom{\1}{\2}", text)
    text = _COMBINATIONS_BESIDE.sub(r"\\binom{\1\3}{\2\4}", text)
    text = _PERMUTATIONS.sub(r"(\\binom{\1\3\5\7}{\2\4\6\8}(\2\4\6\8)!)", text)
    # This comes after the groups of digits, which a comma in braces may separate.
    text = _BRACED_SIGN.sub(r"\1", text)
    return _EXPONENT_NUMBER.sub(_scientific, text)


def _without_group_signs(match: re.Match[str]) -> str:
    rest = _GROUP_SIGNS.sub("", match[2])
    return match[1] + rest


def _without_points(match: re.Match[str]) -> str:
    """Return `1.234,5` as `1234.5`, and `1.234.567` as `1234567`."""
    before_comma, decimals, alone = match.groups()
    if before_comma:
        digits = before_comma.replace(".", "")
        return f"{digits}.{decimals}"
    return alone.replace(".", "")


def _scientific(match: re.Match[str]) -> str:
    r"""Return `1.5e3` as `{1.5\cdot10^{3}}`."""
    number, exponent = match.groups()
    if len(exponent) > _MAX_EXPONENT_CHARS:
        return match[0]
    return rf"{{{number}\cdot 10^{{{int(exponent)}}}}}"
