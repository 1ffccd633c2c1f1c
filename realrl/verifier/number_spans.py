"""Spans of numbers in running text, with the formula or the amount that they belong to."""

from __future__ import annotations

import re
from typing import NamedTuple

from realrl.verifier import units
from realrl.verifier.formula_spans import bare, formulas, is_prose, num_words
from realrl.verifier.lexicon import CARDINALS

_DIGITS = r"(?:[1-9]\d{0,2}(?:,\d{3}){1,12}(?!,?\d)|\d+)"
_DECIMAL = rf"(?:\d{{1,15}},\d{{1,2}}(?![\d,.])|{_DIGITS}(?:\.\d+)?|(?<![\d.])\.\d+)"
_SPACED_NUMBER = re.compile(r"-?\d{1,3}(?:[ \u00a0\u2009\u202f]\d{3}){1,12}")
_VULGAR = "[\u00bc-\u00be\u2150-\u215e]"
_FRACTION = r"\\[dt]?frac\{\d+\}\{\d+\}"
# What belongs to a number that it stands in front of. Cut off from it, it would be another number.
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
"""Of two letters, those that are no words of English."""
_SIGN_OF_MONEY = r"(?:\\?\$|€|£|¥|₹)?"
_MONEY_BEFORE = re.compile(r"(?:(?<![\w)\]}.])[-+])?(?:\\?\$|[€£¥₹])\s?\Z")
_TERM = re.compile(r"[\w^{}()*/+.√π²³-]+")
_LETTER = re.compile(r"[A-Za-z]")
_TWO_LETTERS = re.compile(r"[^\W\d_]{2}")
_CLOSING_BRACKET = re.compile(r"\s?(?:\\?[)\]}])")
_OPENING_BRACKETS = re.compile(r"(?<!\w)\\?[(\[{]")
_ALTERNATIVE = re.compile(
    r"\s*(?:[^\W\d_]{1,20}\s*)?,?\s*(?:\b(?:or|oder|ou)\b|或者?|или)\s*"
    rf"(?:(?:maybe|perhaps|possibly|even|else)\s+)?{_SIGN_OF_MONEY}",
    re.IGNORECASE,
)
_COMMA = re.compile(r"\s*,\s*")
_NEXT_AMOUNT = re.compile(rf",?\s+(?:and\s+)?{_SIGN_OF_MONEY}", re.IGNORECASE)
_BRACKET_OR = re.compile(r"[)\]}],?\s(?:or|oder|ou)\s\Z", re.IGNORECASE)
MAX_BRACKET_CHARS = 200
"""A longer list in brackets is not taken whole."""
MAX_GAP_CHARS = 60
"""Values that are further apart are neither alternatives nor one amount."""

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
    spans = [formula for formula in formulas(text) if not is_prose(formula.inside)]
    spans.reverse()
    found: list[NumberSpan] = []
    for match in _NUMBER.finditer(text):
        while spans and spans[-1].end <= match.start():
            spans.pop()
        number = NumberSpan(match.start(), match.end())
        if spans and spans[-1].begin < match.start():
            number = NumberSpan(spans[-1].begin, spans[-1].end)
        if not found or found[-1] != number:
            found.append(number)
    return found


def last_value(text: str) -> str | None:
    """Return the last value: a number in words that ends the text, else the last number, else formula.

    Alternatives ("3 or 4") are one value, and so are the parts of an amount ("5 dollars and 25 cents").
    """
    if _SPACED_NUMBER.fullmatch(text.strip()[:100]):
        return text.strip()
    in_words = _STATED_IN_WORDS.search(text[-200:])
    if in_words:
        return in_words[1]
    found = values(text)
    if found:
        return bare(_with_others(text, found)) or None
    last = next((formula for formula in reversed(formulas(text)) if not is_prose(formula.inside)), None)
    return None if last is None else bare(last.inside) or None


def first_value(text: str) -> str | None:
    """Return the first number or its formula, with its currency or its unit where that is a common one."""
    found = values(text)
    if not found:
        return None
    end = _unit_end(text, found[0].end) or found[0].end
    return bare(text[_money_begin(text, found[0].begin) : end])


def _with_others(text: str, found: list[NumberSpan]) -> str:
    """Return the last value together with those before it that belong to it."""
    first, end, has_alternatives = len(found) - 1, found[-1].end, False
    unit_end = _unit_end(text, end)
    while first > 0:
        gap_begin, gap_end = found[first - 1].end, found[first].begin
        if gap_end - gap_begin > MAX_GAP_CHARS:
            break
        inner_end = _unit_end(text, gap_begin)
        are_units = unit_end is not None and inner_end is not None
        is_amount = are_units and _NEXT_AMOUNT.fullmatch(text, inner_end, gap_end) is not None
        is_alternative = _ALTERNATIVE.fullmatch(text, gap_begin, gap_end) is not None
        is_listed = has_alternatives and _COMMA.fullmatch(text, gap_begin, gap_end) is not None
        if not is_amount and not is_alternative and not is_listed:
            break
        has_alternatives = has_alternatives or is_alternative
        if is_amount:
            end = unit_end
        first -= 1
    if first < len(found) - 1:
        return text[_money_begin(text, found[first].begin) : end]
    return _in_brackets(text, found[-1]) or _signed(text, found[-1]) or _term(text, found[-1])


def _unit_end(text: str, begin: int) -> int | None:
    """Return where a unit ends that begins there, or behind a space; None without one."""
    match = _UNIT.match(text, begin)
    if match is None:
        return None
    word = match[1]
    is_long = len(word) > 2 or word.lower() in _SHORT_UNITS
    return match.end() if is_long and units.unit_of_word(word.lower()) is not None else None


def _in_brackets(text: str, value: NumberSpan) -> str | None:
    """Return the tuple, set or interval whose last member a value is: "(3, 4)" and not 4."""
    closing = _CLOSING_BRACKET.match(text, value.end)
    if not closing:
        return None
    for opening in _OPENING_BRACKETS.finditer(text, max(0, value.begin - MAX_BRACKET_CHARS), value.begin):
        inside = text[opening.end() : value.end]
        if "," in inside and not num_words(inside) and not re.search(r"[)\]}\n]", inside):
            return text[_alternative_begin(text, opening.start()) : closing.end()]
    return None


def _alternative_begin(text: str, begin: int) -> int:
    """Return where the brackets before "or" begin, if brackets there are the alternative to others."""
    window_begin = max(0, begin - MAX_BRACKET_CHARS)
    if not _BRACKET_OR.search(text, window_begin, begin):
        return begin
    openings = list(_OPENING_BRACKETS.finditer(text, window_begin, begin))
    return openings[-1].start() if openings else begin


def _signed(text: str, value: NumberSpan) -> str | None:
    """Return an amount of money with the minus in front of it."""
    begin = _money_begin(text, value.begin)
    return text[begin : value.end] if begin < value.begin and text[begin] in "-+" else None


def _money_begin(text: str, begin: int) -> int:
    """Return where the sign of money before a value begins, or the value itself."""
    sign = _MONEY_BEFORE.search(text, max(0, begin - 5), begin)
    return sign.start() if sign else begin


def _term(text: str, value: NumberSpan) -> str:
    """Return a value with the letters that it is multiplied by or added to: "2x", "3+4i", and not 2 and 4."""
    begin = max(text.rfind(space, 0, value.begin) for space in " \n\t") + 1
    match = _TERM.match(text, begin)
    whole = match is not None and match.end() >= value.end
    if whole and _LETTER.search(match.group()) and not _TWO_LETTERS.search(match.group()):
        return match.group()
    return text[value.begin : value.end]
