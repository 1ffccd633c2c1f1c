"""Slices of tokens: what is inside which bracket, and where an answer can be cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from realrl.verifier.tokens import CLOSE, COMMAND, LETTERS, NUMBER, OPEN, SIGN, TEXT, Token, Tokens

MAX_DEPTH = 60
_PARTNERS = {
    **{"(": (")", "]"), "[": ("]", ")"), "{": ("}",), r"\{": (r"\}",), r"\langle": (r"\rangle",)},
    **{r"\lfloor": (r"\rfloor",), r"\lceil": (r"\rceil",)},
}
"""The brackets that may close each opening one; an interval may be open at one end."""


def with_depth(tokens: Tokens) -> Iterator[tuple[Token, int]]:
    """Each token with the number of brackets and environments around it; a bracket has that outside it."""
    depth = 0
    for token in tokens:
        ends = token.kind == CLOSE or (token.kind == COMMAND and token.text.startswith(r"\end "))
        begins = token.kind == OPEN or (token.kind == COMMAND and token.text.startswith(r"\begin "))
        depth -= ends
        yield token, depth
        depth += begins


def cut(tokens: Tokens, is_cut: Callable[[Token], bool]) -> tuple[list[Tokens], list[Token]]:
    """`(parts, the tokens between them)`, cut at some tokens that are in no bracket."""
    parts: list[Tokens] = []
    found: list[Token] = []
    start = 0
    for place, (token, depth) in enumerate(with_depth(tokens)):
        if depth == 0 and is_cut(token):
            parts.append(tokens[start:place])
            found.append(token)
            start = place + 1
    return [*parts, tokens[start:]], found


def first_place(tokens: Tokens, is_it: Callable[[Token], bool]) -> int | None:
    """The place of the first such token that is in no bracket."""
    for place, (token, depth) in enumerate(with_depth(tokens)):
        if depth == 0 and is_it(token):
            return place
    return None


def enclosed(tokens: Tokens) -> tuple[str, Tokens, str] | None:
    """`(opening, inside, closing)` where one pair of brackets, of whatever kinds, holds everything."""
    if len(tokens) < 2 or tokens[0].kind != OPEN or tokens[-1].kind != CLOSE:
        return None
    for place, (_, depth) in enumerate(with_depth(tokens)):
        if place and depth <= 0:
            break
    return (tokens[0].text, tokens[1:-1], tokens[-1].text) if place == len(tokens) - 1 else None


def is_balanced(tokens: Tokens) -> bool:
    """Whether every bracket has its partner, and none are too deep in each other."""
    opened: list[str] = []
    for token in tokens:
        if token.kind == OPEN:
            opened.append(token.text)
        elif token.kind == CLOSE and (not opened or token.text not in _PARTNERS[opened.pop()]):
            return False
        if len(opened) > MAX_DEPTH:
            return False
    return not opened


def text_of(tokens: Tokens) -> str:
    """One spelling of tokens: what is equal here is the same text."""
    return " ".join(token.text for token in tokens if token.text not in ("{", "}"))


def is_word(token: Token) -> bool:
    return token.kind == TEXT or (token.kind == LETTERS and len(token.text) > 1)


def words_of(tokens: Tokens) -> list[str]:
    return [token.text.lower() for token in tokens]


def is_separator(token: Token) -> bool:
    r"""A sign or a word between the members of a list."""
    if token.kind in (SIGN, COMMAND):
        return token.text in (",", ";", "&", r"\\", r"\land", r"\lor")
    return token.kind in (TEXT, LETTERS) and token.text.lower() in ("and", "or")


def is_apart(tokens: Tokens, place: int) -> bool:
    r"""Whether a token and the one before it belong to two members: `1 2`, but not `\log_2 3`."""
    before, token = tokens[place - 1], tokens[place]
    is_index = place > 1 and tokens[place - 2].text in ("_", "^", r"\frac", r"\binom")
    return before.kind == token.kind == NUMBER and token.after_space and not is_index
