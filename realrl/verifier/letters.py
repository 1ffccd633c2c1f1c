"""Letters that stand together, as the tokens that they are in a formula: a product, or a name."""

from __future__ import annotations

from realrl.verifier.cursor import Unreadable
from realrl.verifier.functions import CONSTANTS, FUNCTIONS, GREEK
from realrl.verifier.tokens import COMMAND, LETTERS, Token, Tokens

LONGEST_PRODUCT = 3
"""The largest number of letters that may be a product; more are a word."""


def separated(tokens: Tokens) -> list[Token]:
    """Tokens of which each `LETTERS` is a single letter; a name in letters is a command that says `plain`.

    Raises:
        Unreadable: letters are a word that is no name.
    """
    found: list[Token] = []
    for token in tokens:
        if token.kind == LETTERS and len(token.text) > 1:
            found += _parts(token)
        else:
            found.append(token)
    return found


def _parts(token: Token) -> list[Token]:
    """A name, a letter and a function as in `xsin`, or all letters one by one."""
    first, rest = token.text[0], token.text[1:]
    if token.text in FUNCTIONS or token.text in CONSTANTS or token.text in GREEK:
        return [Token(COMMAND, f"plain {token.text}", token.after_space)]
    if rest in FUNCTIONS:
        return [Token(LETTERS, first, token.after_space), Token(COMMAND, f"plain {rest}")]
    if len(token.text) > LONGEST_PRODUCT:
        raise Unreadable(token.text)
    return [Token(LETTERS, first, token.after_space), *(Token(LETTERS, letter) for letter in rest)]
