"""Cuts the tokens of a list into its members, at commas, words, spaces and marks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from realrl.verifier.slices import cut, is_apart, is_separator, parts_from, texts_of
from realrl.verifier.tokens import LETTERS, NUMBER, SIGN, TEXT, Token, Tokens

_PARTS = "abcdefgh"
"""The letters that mark the parts of an answer: `(a) 1 (b) 2`."""
_MARK_TOKENS = 3
"""The number of tokens of a mark: a letter in parentheses."""


def cut_into_members(tokens: Tokens) -> tuple[list[Tokens], list[Token]]:
    """Return the members of a list, without empty ones, and the tokens between them."""
    parts, joints = cut(tokens, is_separator)
    found: list[Tokens] = []
    for part in _without_marks(parts):
        members = _lettered(part) or _equations(part) or _spaced(part)
        found.extend(members)
    if not joints and len(found) > 1:
        # Members that only a space separates are a list with commas.
        joints = [Token(SIGN, ",")]
    filled = [part for part in found if part]
    return filled, joints


def _spaced(tokens: Tokens) -> Iterator[Tokens]:
    """Cut between numbers with a space between them, except where a mixed number begins."""
    start = 0
    for place in range(1, len(tokens)):
        if not is_apart(tokens, place):
            continue
        is_mixed = texts_of(tokens[place + 1 : place + 2]) == ["/"]
        if not is_mixed:
            yield tokens[start:place]
            start = place
    yield tokens[start:]


def _lettered(tokens: Tokens) -> list[Tokens]:
    """Return the parts of `(a) 1 (b) 2`, without their marks."""
    last = len(tokens) - _MARK_TOKENS
    marks = [place for place in range(last + 1) if _is_mark(tokens, place)]
    if len(marks) < 2:
        return []
    if marks[0] != 0:
        return []
    parts = parts_from(tokens, marks)
    letters = [part[1].text for part in parts]
    if not _PARTS.startswith("".join(letters)):
        return []
    return _cut_off_marks(parts)


def _without_marks(parts: list[Tokens]) -> list[Tokens]:
    """Return parts without the marks of `(a) 1, (b) 2`."""
    if len(parts) < 2:
        return parts
    letters = ""
    for part in parts:
        if len(part) > _MARK_TOKENS and _is_mark(part, 0):
            letters += part[1].text
    if len(letters) != len(parts):
        return parts
    if not _PARTS.startswith(letters):
        return parts
    return _cut_off_marks(parts)


def _is_mark(tokens: Tokens, place: int) -> bool:
    """Return whether a letter in parentheses begins at a place."""
    end = place + _MARK_TOKENS
    opening, letter, closing = tokens[place:end]
    if opening.text != "(" or closing.text != ")":
        return False
    return letter.kind in (TEXT, LETTERS)


def _cut_off_marks(parts: Sequence[Tokens]) -> list[Tokens]:
    return [part[_MARK_TOKENS:] for part in parts]


def _equations(tokens: Tokens) -> list[Tokens]:
    """Return the equations of `x = 1  y = 2`, with a space before each name."""
    starts = [0]
    for place in range(2, len(tokens) - 1):
        if _begins_equation(tokens, place):
            starts.append(place)
    if len(starts) == 1:
        return []
    first, second = tokens[:2]
    if first.kind != LETTERS or second.text != "=":
        return []
    return parts_from(tokens, starts)


def _begins_equation(tokens: Tokens, place: int) -> bool:
    name = tokens[place]
    if name.kind != LETTERS or not name.after_space:
        return False
    before = tokens[place - 1]
    after = tokens[place + 1]
    if after.text != "=":
        return False
    return before.kind == NUMBER or before.text == "}"
