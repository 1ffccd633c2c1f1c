"""Slices of tokens: the depth of brackets around each token, and the places where an answer can be cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from realrl.verifier.tokens import CLOSE, COMMAND, LETTERS, NUMBER, OPEN, SIGN, TEXT, Token, Tokens

MAX_DEPTH = 60
"""The largest depth of brackets in each other."""
_PARTNERS = {
    **{"(": (")", "]"), "[": ("]", ")"), "{": ("}",), r"\{": (r"\}",), r"\langle": (r"\rangle",)},
    **{r"\lfloor": (r"\rfloor",), r"\lceil": (r"\rceil",)},
}
"""The brackets that may close each opening one; an interval may be open at one end."""


def with_depth(tokens: Tokens) -> Iterator[tuple[Token, int]]:
    """Yield each token with the number of brackets and environments around it.

    A bracket itself has the depth outside it.
    """
    depth = 0
    for token in tokens:
        begins = token.kind == OPEN
        ends = token.kind == CLOSE
        if token.kind == COMMAND:
            begins = token.text.startswith(r"\begin ")
            ends = token.text.startswith(r"\end ")
        depth -= ends
        yield token, depth
        depth += begins


def cut(tokens: Tokens, is_cut: Callable[[Token], bool]) -> tuple[list[Tokens], list[Token]]:
    """Return `(parts, the tokens between them)`, cut at the tokens that `is_cut` picks outside brackets."""
    parts: list[Tokens] = []
    found: list[Token] = []
    start = 0
    for place, (token, depth) in enumerate(with_depth(tokens)):
        if depth == 0 and is_cut(token):
            part = tokens[start:place]
            parts.append(part)
            found.append(token)
            start = place + 1
    last_part = tokens[start:]
    parts.append(last_part)
    return parts, found


def first_place(tokens: Tokens, is_it: Callable[[Token], bool]) -> int | None:
    """Return the place of the first token outside brackets that `is_it` picks."""
    for place, (token, depth) in enumerate(with_depth(tokens)):
        if depth == 0 and is_it(token):
            return place
    return None


def cut_at(tokens: Tokens, *texts: str) -> tuple[list[Tokens], list[Token]]:
    """Return `(parts, the tokens between them)`, cut at the tokens of these texts that are in no bracket."""
    return cut(tokens, lambda token: token.text in texts)


def first_place_of(tokens: Tokens, *texts: str) -> int | None:
    """Return the place of the first token that has one of these texts and is in no bracket."""
    return first_place(tokens, lambda token: token.text in texts)


def has_text(tokens: Tokens, *texts: str) -> bool:
    """Return whether a token has one of these texts, in brackets or outside them."""
    return any(token.text in texts for token in tokens)


def texts_of(tokens: Tokens) -> list[str]:
    """Return the text of each token."""
    return [token.text for token in tokens]


def parts_from(tokens: Tokens, starts: list[int]) -> list[Tokens]:
    """Return the parts that begin at `starts`; each ends where the next one begins."""
    ends = [*starts[1:], len(tokens)]
    parts: list[Tokens] = []
    for start, end in zip(starts, ends, strict=True):
        part = tokens[start:end]
        parts.append(part)
    return parts


def enclosed(tokens: Tokens) -> tuple[str, Tokens, str] | None:
    """Return `(opening, inside, closing)` if one pair of brackets, of any kinds, encloses all tokens."""
    if len(tokens) < 2:
        return None
    first = tokens[0]
    last = tokens[-1]
    if first.kind != OPEN or last.kind != CLOSE:
        return None
    for place, (_, depth) in enumerate(with_depth(tokens)):
        if place and depth <= 0:
            break
    if place != len(tokens) - 1:
        return None
    return first.text, tokens[1:-1], last.text


def is_balanced(tokens: Tokens) -> bool:
    """Return whether every bracket has its partner and none is nested deeper than `MAX_DEPTH`."""
    opened: list[str] = []
    for token in tokens:
        if token.kind == OPEN:
            opened.append(token.text)
        if len(opened) > MAX_DEPTH:
            return False
        if token.kind == CLOSE:
            if not opened:
                return False
            opening = opened.pop()
            if token.text not in _PARTNERS[opening]:
                return False
    return not opened


def texts_without_braces(tokens: Tokens) -> list[str]:
    """Return the text of each token that is not a brace."""
    texts = texts_of(tokens)
    return [text for text in texts if text not in ("{", "}")]


def text_of(tokens: Tokens) -> str:
    """Return one spelling of tokens: tokens that differ only in braces have the same text."""
    return " ".join(texts_without_braces(tokens))


def is_word(token: Token) -> bool:
    """Return whether a token is text, or letters that are more than one."""
    if token.kind == TEXT:
        return True
    return token.kind == LETTERS and len(token.text) > 1


def words_of(tokens: Tokens) -> list[str]:
    """Return the text of each token in lower case."""
    return [token.text.lower() for token in tokens]


def is_separator(token: Token) -> bool:
    r"""Return whether a token is a sign or a word that separates the members of a list."""
    if token.kind in (SIGN, COMMAND):
        return token.text in (",", ";", "&", r"\\", r"\land", r"\lor")
    if token.kind not in (TEXT, LETTERS):
        return False
    return token.text.lower() in ("and", "or")


def is_apart(tokens: Tokens, place: int) -> bool:
    r"""Return whether a token and the one before it belong to two members: `1 2`, but not `\log_2 3`."""
    token = tokens[place]
    before = tokens[place - 1]
    if not before.kind == token.kind == NUMBER:
        return False
    if not token.after_space:
        return False
    if place < 2:
        return True
    # The first number may be an argument of the token before it.
    return tokens[place - 2].text not in ("_", "^", r"\frac", r"\binom")
