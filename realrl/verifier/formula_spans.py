r"""Finds formulas in running text: `$…$`, `$$…$$`, `\(…\)` and `\[…\]`, but no prices in dollars."""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_FORMULA_CHARS = 1000
"""The length of the longest formula; delimiters that are further apart enclose none."""

_TOKEN = re.compile(r"\$\$?|\\.", re.DOTALL)
_CLOSING = {"$": "$", "$$": "$$", r"\(": r"\)", r"\[": r"\]"}
_COMMAND = re.compile(r"\\[A-Za-z]+(?:\{[^{}]*\})?")
_WORD = re.compile(r"[^\W\d_]{3,}")
# Not the powers of "2**3", "2 ** 3" and "x**-1".
_BOLD = re.compile(r"(?<![\w)}\]])(?:\*\*|__)(?!\s)|(?<!\s)(?:\*\*|__)(?![\w({\\+√-])|`")
_EMOJI = "".join(map(chr, (*range(0x2600, 0x27C0), *range(0x2B00, 0x2C00), *range(0x1F000, 0x1FB00))))
_INVISIBLE = "\u200b\u200c\u200d\u200e\u200f\u2060\ufe0e\ufe0f\ufeff"
_SPACES = " \t\r\n\v\f\u00a0\u2002\u2003\u2007\u2008\u2009\u200a\u202f\u3000"
_AT_BEGIN = _EMOJI + _INVISIBLE + _SPACES + ",;:，；：、"
_AT_END = _AT_BEGIN + ".。–—"
# A sign that is neither a space nor a letter.
_FORMULA_SIGN = "\ufffc"
_QUOTES = ("**", "__", '""', "''", "“”", "‘’", "「」", "«»")


class _Opening(NamedTuple):
    """The delimiter that begins a formula: `text[begin:end]`."""

    delimiter: str
    begin: int
    end: int


class FormulaSpan(NamedTuple):
    """The span of a formula in a text: `text[begin:end]` with its delimiters, `inside` without them."""

    begin: int
    end: int
    inside: str


def formulas(text: str) -> list[FormulaSpan]:
    """Return the formulas of a text in their order, in one pass.

    An opening delimiter replaces an earlier one that never closed.
    """
    found: list[FormulaSpan] = []
    opened: _Opening | None = None
    for match in _TOKEN.finditer(text):
        token = match.group()
        if opened is not None and token == _CLOSING[opened.delimiter]:
            formula = _closed(text, opened, match.start(), match.end())
            opened = None
            if formula is not None:
                found.append(formula)
                continue
        if token not in _CLOSING:
            continue
        # A dollar inside a displayed formula belongs to a text in it, and begins nothing.
        if token == "$" and opened is not None and _is_open_display(opened, match.start()):
            continue
        opened = _Opening(token, match.start(), match.end())
    return found


def _closed(text: str, opened: _Opening, close: int, end: int) -> FormulaSpan | None:
    """Return the formula whose closing delimiter is `text[close:end]`; None if the two enclose none."""
    # One character more than a formula may have shows that it is too long; copying all of it could be slow.
    inside_end = min(close, opened.end + MAX_FORMULA_CHARS + 1)
    inside = text[opened.end : inside_end]
    following = text[end : end + 1]
    if not _is_formula(inside, opened.delimiter, following):
        return None
    return FormulaSpan(opened.begin, end, inside)


def _is_open_display(opened: _Opening, at: int) -> bool:
    """Return whether the position `at` can be inside the displayed formula that `opened` begins."""
    if opened.delimiter == "$":
        return False
    return at - opened.end < MAX_FORMULA_CHARS


def _is_formula(inside: str, opening: str, following: str) -> bool:
    """Return whether two delimiters enclose a formula; those of "$3 for one and $4" are prices.

    `following` is the character after the closing delimiter, or an empty text.
    """
    if not inside.strip():
        return False
    if len(inside) > MAX_FORMULA_CHARS or "\n\n" in inside:
        return False
    if opening != "$":
        return True
    has_inner_break = "\n" in inside and inside[0] != "\n"
    if has_inner_break or following.isdigit():
        return False
    is_price = inside[0].isdigit() and inside[-1].isspace()
    return not is_price


def is_prose(text: str) -> bool:
    """Return whether a text has three words or more, apart from those in LaTeX commands."""
    return num_words(text) > 2


def num_words(text: str) -> int:
    """Return how many words of three letters or more a text has, apart from those in LaTeX commands."""
    without_commands = _COMMAND.sub("", text)
    return len(_WORD.findall(without_commands))


def outside(text: str) -> str:
    """Return a text of the same length in which a placeholder replaces each character of a formula."""
    pieces: list[str] = []
    at = 0
    for formula in formulas(text):
        length = formula.end - formula.begin
        pieces.append(text[at : formula.begin])
        pieces.append(_FORMULA_SIGN * length)
        at = formula.end
    pieces.append(text[at:])
    return "".join(pieces)


def bare(text: str) -> str:
    """Return a text without delimiters of formulas, bold type, quotes, and punctuation at its ends."""
    pieces: list[str] = []
    at = 0
    for formula in formulas(text):
        before = text[at : formula.begin]
        pieces.append(_BOLD.sub("", before))
        pieces.append(formula.inside)
        at = formula.end
    pieces.append(_BOLD.sub("", text[at:]))
    return _trimmed("".join(pieces))


def _trimmed(text: str) -> str:
    """Return a text without emoji and punctuation at its ends, and without the quotes around it."""
    text = _stripped(text).removesuffix(" -")
    if not text.strip("$ "):
        return ""
    if len(text) > 2:
        quotes = text[0] + text[-1]
        if quotes in _QUOTES:
            text = _stripped(text[1:-1])
    # The last point of "p.m." is no full stop.
    if text[-3:].lower() in ("a.m", "p.m"):
        return f"{text}."
    return text


def _stripped(text: str) -> str:
    return text.lstrip(_AT_BEGIN).rstrip(_AT_END)
