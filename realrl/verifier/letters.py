"""Splits runs of letters in a formula into names and products of single letters."""

from __future__ import annotations

from realrl.verifier.cursor import Unreadable
from realrl.verifier.functions import CONSTANTS, FUNCTIONS, GREEK
from realrl.verifier.tokens import COMMAND, LETTERS, Token, Tokens

LONGEST_PRODUCT = 3
"""The largest number of letters that may be a product; a longer run is a word."""


def separated(tokens: Tokens) -> list[Token]:
    """Return the tokens with every `LETTERS` token reduced to one letter.

    A name that is written in letters becomes a `COMMAND` whose text begins with `plain `.

    Raises:
        Unreadable: A run of letters is a word that is not a name.
    """
    found: list[Token] = []
    for token in tokens:
        if token.kind == LETTERS and len(token.text) > 1:
            found += _split_letters(token)
        else:
            found.append(token)
    return found


def _split_letters(token: Token) -> list[Token]:
    """Return a name, a letter and a function as in `xsin`, or each letter on its own."""
    text = token.text
    is_name = text in FUNCTIONS or text in CONSTANTS or text in GREEK
    if is_name:
        return [Token(COMMAND, f"plain {text}", token.after_space)]
    # Only the first part can follow a space.
    first = Token(LETTERS, text[0], token.after_space)
    rest = text[1:]
    if rest in FUNCTIONS:
        return [first, Token(COMMAND, f"plain {rest}")]
    if len(text) > LONGEST_PRODUCT:
        raise Unreadable(text)
    parts = [first]
    for letter in rest:
        parts.append(Token(LETTERS, letter))
    return parts
