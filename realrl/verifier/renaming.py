"""Gives the variable of an answer the letter that the solution has for it."""

from __future__ import annotations

from realrl.verifier.functions import FUNCTIONS
from realrl.verifier.tokens import LETTERS, Token, Tokens

_VARIABLES = frozenset("abcknpqrtuvwxyz")
"""Letters that may be renamed; the others are constants, units or choices by custom."""


def renamed(answer: Tokens, solution: Tokens) -> Tokens:
    """Return an answer with the solution's letter for its variable; no tokens if they differ otherwise.

    All letters but one must be the same, and the answer must be more than its letter.
    """
    mine = _letters(answer)
    wanted = _letters(solution)
    own = mine - wanted
    other = wanted - mine
    if len(own) != 1 or len(other) != 1 or len(answer) == 1:
        return ()
    (old,) = own
    (new,) = other
    if old not in _VARIABLES or new not in _VARIABLES:
        return ()
    return tuple(_with_letter(token, old, new) for token in answer)


def _letters(tokens: Tokens) -> set[str]:
    """Return every letter of the formulas in tokens; those of a function's name do not count."""
    letters: set[str] = set()
    for token in tokens:
        if token.kind == LETTERS and token.text not in FUNCTIONS:
            letters.update(token.text)
    return letters


def _with_letter(token: Token, old: str, new: str) -> Token:
    if token.kind != LETTERS or token.text in FUNCTIONS:
        return token
    return token._replace(text=token.text.replace(old, new))
