"""Finds numbers in running text, with the formula or the amount that they belong to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from realrl.verifier import units
from realrl.verifier.formula_spans import bare, formulas, is_prose, num_words
from realrl.verifier.lexicon import CARDINALS

_GROUPS = (
    r"(?:(?:,\d{3}){1,12}|(?:,\d\d){1,12},\d{3})(?!,?\d)"
    r"|(?:(?:\{,\}|\\,)\d{3}){1,12}(?!\d)"
    r"|(?:['\u00a0\u2009\u202f]\d{3}){1,12}(?!\d)"
    r"|(?:\.\d{3}){2,12}(?!\.?\d)"
)
"""The further groups of a number: of `1,234`, `12,34,567`, `1{,}234`, `1'234`, `1.234.567`.

A single point precedes decimals.
"""
# A single space may separate two numbers, and so may each space of a row of numbers.
_SPACED_DIGITS = r"(?<!\d )[1-9]\d{0,2}(?: \d{3}){2,12}(?! ?\d)"
_DIGITS = rf"(?:[1-9]\d{{0,2}}(?:{_GROUPS})|{_SPACED_DIGITS}|\d+)"
_DECIMAL = rf"(?:\d{{1,15}},\d{{1,2}}(?![\d,.])|{_DIGITS}(?:\.\d+)?|(?<![\d.])\.\d+)"
_SPACED_NUMBER = re.compile(r"-?\d{1,3}(?:[ \u00a0\u2009\u202f]\d{3}){1,12}")
_VULGAR = "[\u00bc-\u00be\u2150-\u215e]"
_FRACTION = r"\\[dt]?frac\{\d+\}\{\d+\}"
# The part that belongs to the number before it. Without it, that would be another number.
_REST = (
    rf"(?:[eE][-+]?\d{{1,4}}(?!\w)|/{_DIGITS}(?:\.\d+)?|\s?{_VULGAR}|\s\d{{1,4}}/\d{{1,4}}(?![\d/])"
    r"|:\d{1,6}(?::\d{1,6})?(?:\s?[ap]\.?m\b\.?)?)?"
    r"(?:\s?(?:×|\*|\\times|\\cdot)\s?10\^\{?[-+]?\d{1,4}\}?|\^\{?[-+]?\d{1,4}\}?|[²³])?"
    r"(?:\s?√\d+)?(?:\s?(?:π|pi\b))?(?:\s(?:hundred|thousand|million|billion|trillion|dozen)\b)?(?:\s?°(?:\s?[CF]\b)?)?"
)
_NUMBER = re.compile(
    r"(?:(?<![\w)\]}.])[-+])?(?<![A-Za-z\d√])"
    rf"(?:\d{{0,30}}{_FRACTION}|√?{_DECIMAL}{_REST}|{_VULGAR})(?:\s?\\?%)?"
)
_UNIT = re.compile(r"\s?([^\W\d_]{2,30})\b")
_SHORT_UNITS = ("ft", "km", "cm", "mm", "kg", "oz")
"""Units of two letters that are no words of English."""
_SIGN_OF_MONEY = r"(?:\\?\$|€|£|¥|₹)?"
_MONEY_BEFORE = re.compile(r"(?:(?<![\w)\]}.])[-+])?(?:\\?\$|[€£¥₹])\s?\Z")
_TERM = re.compile(r"[\w^{}()*/+.√π²³-]+")
_LETTER = re.compile(r"[A-Za-z]")
_TWO_LETTERS = re.compile(r"[^\W\d_]{2}")
_CLOSING_BRACKET = re.compile(r"\s?(?:\\?[)\]}])")
_OPENING_BRACKETS = re.compile(r"(?<!\w)\\?[(\[{]")
_NAME = r"(?:[A-Za-z](?:_\{?\w\}?)?(?:\([a-z]\))?\s?=\s?)?"
"""The name of a value that is an alternative: `x = 3 or x = 4`."""
_ALTERNATIVE = re.compile(
    r"\s*(?:[^\W\d_]{1,20}\s*)?,?\s*(?:(?<![^\W\d_])(?:or|oder|ou)(?:\b|(?=[A-Za-z]\W))|或者?|или)\s*"
    rf"(?:(?:maybe|perhaps|possibly|even|else)\s+)?{_NAME}{_SIGN_OF_MONEY}",
    re.IGNORECASE,
)
_COMMA = re.compile(r"\s*,\s*")
_NEXT_AMOUNT = re.compile(rf",?\s+(?:and\s+)?{_SIGN_OF_MONEY}", re.IGNORECASE)
_ENDS_LIST = re.compile(r"[)\]}\n]")
_BRACKET_OR = re.compile(r"[)\]}],?\s(?:or|oder|ou)\s\Z", re.IGNORECASE)
MAX_BRACKET_CHARS = 200
"""The largest number of characters of a list in brackets that is one answer."""
MAX_GAP_CHARS = 60
"""The largest distance of two values that are alternatives or one amount."""
_MAX_MONEY_CHARS = 5
"""The largest number of characters of a sign of money with a sign before it and a space after it."""

_WORD = "|".join(CARDINALS)
NUMBER_WORDS = re.compile(rf"\b(?:{_WORD})(?:(?:-|\s+(?:and\s+)?)(?:{_WORD})){{0,12}}\b", re.IGNORECASE)
_STATED_IN_WORDS = re.compile(
    rf"\b(?:is|are|was|were|equals?|be|makes?)\s+({NUMBER_WORDS.pattern})[\s.!*。]{{0,8}}\Z", re.IGNORECASE
)


class NumberSpan(NamedTuple):
    """The span of a number in a text, `text[begin:end]`, or of the whole formula that it is in."""

    begin: int
    end: int


def values(text: str) -> list[NumberSpan]:
    """Return the numbers of a text in their order; one in a formula that is no prose is that formula."""
    # The next formula is the last of the list, from which it is removed once it is passed.
    rest = [formula for formula in formulas(text) if not is_prose(formula.inside)]
    rest.reverse()
    found: list[NumberSpan] = []
    for match in _NUMBER.finditer(text):
        begin, end = match.span()
        while rest and rest[-1].end <= begin:
            rest.pop()
        if rest and rest[-1].begin < begin:
            begin = rest[-1].begin
            end = rest[-1].end
        number = NumberSpan(begin, end)
        if not found or found[-1] != number:
            found.append(number)
    return found


def last_value(text: str) -> str | None:
    """Return the last value: a number in words that ends the text, else the last number, else formula.

    Alternatives ("3 or 4") are one value, and so are the parts of an amount ("5 dollars and 25 cents").
    """
    stripped = text.strip()
    if _SPACED_NUMBER.fullmatch(stripped[:100]):
        return stripped
    in_words = _STATED_IN_WORDS.search(text[-200:])
    if in_words:
        return in_words[1]
    found = values(text)
    if found:
        return bare(_with_others(text, found)) or None
    for formula in reversed(formulas(text)):
        if not is_prose(formula.inside):
            return bare(formula.inside) or None
    return None


def first_value(text: str) -> str | None:
    """Return the first number or its formula, with its currency or its unit where that is a common one."""
    found = values(text)
    if not found:
        return None
    first = found[0]
    begin = _money_begin(text, first.begin)
    end = _unit_end(text, first.end) or first.end
    return bare(text[begin:end])


def _with_others(text: str, found: list[NumberSpan]) -> str:
    """Return the last value together with those before it that belong to it."""
    last = found[-1]
    first, end = _first_that_belongs(text, found)
    if first is not last:
        begin = _money_begin(text, first.begin)
        return text[begin:end]
    whole = _in_brackets(text, last) or _signed(text, last)
    return whole or _term(text, last)


def _first_that_belongs(text: str, found: list[NumberSpan]) -> tuple[NumberSpan, int]:
    """Return the first number that belongs to the last one, and where both together end.

    Numbers belong together as alternatives, and as the parts of an amount, whose last unit ends it.
    """
    first = found[-1]
    end = first.end
    unit_end = _unit_end(text, end)
    has_alternatives = False
    for before in reversed(found[:-1]):
        gap_begin = before.end
        gap_end = first.begin
        if gap_end - gap_begin > MAX_GAP_CHARS:
            break
        if unit_end is not None and _is_part_of_amount(text, gap_begin, gap_end):
            end = unit_end
        elif _ALTERNATIVE.fullmatch(text, gap_begin, gap_end):
            has_alternatives = True
        elif not has_alternatives or not _COMMA.fullmatch(text, gap_begin, gap_end):
            break
        first = before
    return first, end


def _is_part_of_amount(text: str, gap_begin: int, gap_end: int) -> bool:
    """Return whether a gap between two numbers has a unit and what joins two parts of an amount, no more."""
    unit_end = _unit_end(text, gap_begin)
    if unit_end is None:
        return False
    return _NEXT_AMOUNT.fullmatch(text, unit_end, gap_end) is not None


def _unit_end(text: str, begin: int) -> int | None:
    """Return where a unit ends that begins there, or after one space; None without a unit."""
    match = _UNIT.match(text, begin)
    if match is None:
        return None
    word = match[1]
    lower = word.lower()
    is_long = len(word) > 2 or lower in _SHORT_UNITS
    if not is_long or units.unit_of_word(lower) is None:
        return None
    return match.end()


def _in_brackets(text: str, value: NumberSpan) -> str | None:
    """Return the tuple, set or interval whose last member is a value: "(3, 4)" and not 4."""
    closing = _CLOSING_BRACKET.match(text, value.end)
    if not closing:
        return None
    for opening in _openings_before(text, value.begin):
        inside = text[opening.end() : value.end]
        if _are_members(inside):
            begin = _alternative_begin(text, opening.start())
            return text[begin : closing.end()]
    return None


def _openings_before(text: str, end: int) -> Iterator[re.Match[str]]:
    """Return the opening brackets that are near enough before a place."""
    window_begin = max(0, end - MAX_BRACKET_CHARS)
    return _OPENING_BRACKETS.finditer(text, window_begin, end)


def _are_members(inside: str) -> bool:
    """Return whether the text in brackets is a list, without words and further brackets."""
    if "," not in inside or num_words(inside):
        return False
    return not _ENDS_LIST.search(inside)


def _alternative_begin(text: str, begin: int) -> int:
    """Return where the brackets before "or" begin, if brackets there are the alternative to others."""
    window_begin = max(0, begin - MAX_BRACKET_CHARS)
    if not _BRACKET_OR.search(text, window_begin, begin):
        return begin
    openings = list(_openings_before(text, begin))
    if openings:
        return openings[-1].start()
    return begin


def _signed(text: str, value: NumberSpan) -> str | None:
    """Return an amount of money with the minus in front of it; None if it has no sign."""
    begin = _money_begin(text, value.begin)
    if begin == value.begin or text[begin] not in "-+":
        return None
    return text[begin : value.end]


def _money_begin(text: str, begin: int) -> int:
    """Return where the sign of money before a value begins, or the value itself."""
    window_begin = max(0, begin - _MAX_MONEY_CHARS)
    sign = _MONEY_BEFORE.search(text, window_begin, begin)
    return sign.start() if sign else begin


def _term(text: str, value: NumberSpan) -> str:
    """Return a value with the letters that it is multiplied by or added to: "2x", "3+4i", and not 2 and 4."""
    last_spaces = [text.rfind(space, 0, value.begin) for space in " \n\t"]
    begin = max(last_spaces) + 1
    match = _TERM.match(text, begin)
    if match is not None and match.end() >= value.end:
        term = match.group()
        if _LETTER.search(term) and not _TWO_LETTERS.search(term):
            return term
    return text[value.begin : value.end]
