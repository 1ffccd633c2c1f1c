"""Reads an answer by one list of readers, one for each kind of answer, in one order.

    edges and remarks off ─▶ moment ─▶ list ─▶ relation ─▶ set ─▶ congruence ─▶ numeral ─▶ ratio ─▶ signs
                             ─▶ brackets ─▶ quantity, percentage, formula ─▶ labelled value ─▶ words

The first reader that knows the tokens decides. A reading has all meanings of a text, the usual one first.
Tokens that no reader knows are words, and equal only to the same words.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from realrl.verifier.readers.brackets import read_brackets
from realrl.verifier.readers.common import Read, as_words
from realrl.verifier.readers.edges import stripped
from realrl.verifier.readers.forms import (
    read_labelled,
    read_moment,
    read_number_in_words,
    read_numeral,
    read_ratio,
    read_signs,
)
from realrl.verifier.readers.lists import read_list, read_system
from realrl.verifier.readers.quantities import read_number
from realrl.verifier.readers.real_sets import read_open_interval, read_set
from realrl.verifier.readers.relations import read_congruence, read_relation
from realrl.verifier.slices import is_balanced
from realrl.verifier.tokens import CLOSE, COMMAND, NUMBER, SIGN, Token, Tokens, tokenized
from realrl.verifier.tree import Reading

MAX_TOKENS = 700
"""The largest number of tokens of an answer that is read; a longer one is words."""
MAX_TOKENS_READ = 4_000
"""The largest number of tokens of all parts together: a bracket in brackets is read again at each depth."""
_NEGATED = {r"\in": r"\notin", "=": r"\ne"}
r"""The command that each sign becomes after `\not`."""
_DEGREES = (Token(SIGN, "^"), Token(COMMAND, r"\circ"))
_NO_TOKEN = Token("", "")
"""The token before the first one."""


@functools.lru_cache(maxsize=4096)
def read(text: str, groups: bool = True) -> Reading:
    """Return the reading of an answer; with `groups`, `1,234` is one number."""
    return read_tokens(tokenized(text, groups=groups))


def read_tokens(tokens: Tokens) -> Reading:
    """Return the reading of an answer from its tokens."""
    if len(tokens) > MAX_TOKENS:
        return (as_words(tokens),)
    session = _Session()
    try:
        if not is_balanced(tokens):
            interval = read_open_interval(tokens, session.read)
            return interval or (as_words(tokens),)
        return session.read(_in_one_spelling(tokens))
    except TooManyParts:
        return (as_words(tokens),)


class TooManyParts(Exception):
    """The parts of an answer have too many tokens together."""


class _Session:
    """Reads one answer and its parts, within a number of tokens."""

    def __init__(self) -> None:
        self._left = MAX_TOKENS_READ

    def read(self, tokens: Tokens) -> Reading:
        """Return the reading of an answer or a part of it.

        Raises:
            TooManyParts: All parts together have more than `MAX_TOKENS_READ` tokens.
        """
        self._left -= len(tokens)
        if self._left < 0:
            raise TooManyParts
        tokens = stripped(tokens)
        for reader in _READERS:
            found = reader(tokens, self.read)
            if found:
                return found
        return (as_words(tokens),)


def _in_one_spelling(tokens: Tokens) -> Tokens:
    r"""Return tokens with one for `\not\in` and the like, and with the sign of degrees for the word."""
    found: list[Token] = []
    before = _NO_TOKEN
    for token in tokens:
        text = token.text
        if before.text == r"\not" and text in _NEGATED:
            found[-1] = Token(COMMAND, _NEGATED[text])
        elif before.kind in (NUMBER, CLOSE) and text in ("degree", "degrees"):
            found.extend(_DEGREES)
        else:
            found.append(token)
        before = found[-1]
    return tuple(found)


_READERS: tuple[Callable[[Tokens, Read], Reading], ...] = (
    read_moment,
    read_number_in_words,
    read_system,
    read_list,
    read_relation,
    read_set,
    read_congruence,
    read_numeral,
    read_ratio,
    read_signs,
    read_brackets,
    read_number,
    read_labelled,
)
"""All readers in their order; the first that knows the tokens decides."""
