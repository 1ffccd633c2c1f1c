r"""Formulas in running text, `$…$`, `$$…$$`, `\(…\)` and `\[…\]`, as opposed to signs of dollars."""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_FORMULA_CHARS = 1000

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
_FORMULA_SIGN = "\ufffc"
_QUOTES = ("**", "__", '""', "''", "“”", "‘’", "「」", "«»")


class FormulaSpan(NamedTuple):
    """The span of a formula in a text: `text[begin:end]` with its delimiters, `inside` without them."""

    begin: int
    end: int
    inside: str


def formulas(text: str) -> list[FormulaSpan]:
    """Return the formulas of a text in their order, in one pass.

    A delimiter that opens anew voids the one before it, which never closed.
    """
    found: list[FormulaSpan] = []
    opened: tuple[str, int, int] | None = None
    for match in _TOKEN.finditer(text):
        token = match.group()
        if opened is not None and token == _CLOSING[opened[0]]:
            formula = FormulaSpan(
                opened[1],
                match.end(),
                text[opened[2] : min(match.start(), opened[2] + MAX_FORMULA_CHARS + 1)],
            )
            if _is_formula(formula.inside, opened[0], text[match.end() : match.end() + 1]):
                found.append(formula)
                opened = None
                continue
            opened = None
        inside_display = (
            opened is not None and opened[0] != "$" and match.start() - opened[2] < MAX_FORMULA_CHARS
        )
        if token in _CLOSING and not (token == "$" and inside_display):
            opened = (token, match.start(), match.end())
    return found


def _is_formula(inside: str, opening: str, following: str) -> bool:
    """Return whether two delimiters enclose a formula. "$3 for one and $4" has two signs of dollars."""
    if not inside.strip() or len(inside) > MAX_FORMULA_CHARS or "\n\n" in inside:
        return False
    if opening != "$":
        return True
    is_one_piece = "\n" not in inside or inside[0] == "\n"
    is_price = following.isdigit() or (inside[-1].isspace() and inside[0].isdigit())
    return is_one_piece and not is_price


def is_prose(text: str) -> bool:
    """Return whether a text has three words or more, apart from those in LaTeX commands."""
    return num_words(text) > 2


def num_words(text: str) -> int:
    """Return how many words of three letters or more a text has, apart from those in LaTeX commands."""
    return len(_WORD.findall(_COMMAND.sub("", text)))


def outside(text: str) -> str:
    """Return a text of the same length with a sign that is neither space nor letter for each formula's."""
    pieces, at = [], 0
    for formula in formulas(text):
        pieces += [text[at : formula.begin], _FORMULA_SIGN * (formula.end - formula.begin)]
        at = formula.end
    return "".join([*pieces, text[at:]])


def bare(text: str) -> str:
    """Return a text without delimiters of formulas, bold type, quotes, and punctuation at its ends."""
    pieces, at = [], 0
    for formula in formulas(text):
        pieces += [_BOLD.sub("", text[at : formula.begin]), formula.inside]
        at = formula.end
    pieces.append(_BOLD.sub("", text[at:]))
    return _trimmed("".join(pieces))


def _trimmed(text: str) -> str:
    """Return a text without emoji and punctuation at its ends, and without the quotes around it."""
    text = text.lstrip(_AT_BEGIN).rstrip(_AT_END).removesuffix(" -")
    if not text.strip("$ "):
        return ""
    if len(text) > 2 and text[0] + text[-1] in _QUOTES:
        text = text[1:-1].lstrip(_AT_BEGIN).rstrip(_AT_END)
    # The last point of "p.m." is no full stop.
    return f"{text}." if text[-3:].lower() in ("a.m", "p.m") else text
