"""Reads an answer: what kind of thing it is, by one list of readers in one order.

    edges and remarks off ─▶ moment ─▶ list ─▶ relation ─▶ set ─▶ congruence ─▶ numeral ─▶ ratio ─▶ signs
                             ─▶ brackets ─▶ quantity, percentage, formula ─▶ labelled value ─▶ words

The first reader that knows the tokens decides. A reading holds all that a text may mean, the usual meaning
first. What no reader knows is words, and equal to the same words.
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
"""The largest number of tokens of an answer that is read; a longer one is text."""
MAX_TOKENS_READ = 4_000
"""The largest number of tokens of all parts together: brackets in brackets are read again at each depth."""
_NEGATED = {r"\in": r"\notin", "=": r"\ne"}


@functools.lru_cache(maxsize=4096)
def read(text: str, groups: bool = True) -> Reading:
    """The reading of an answer; with `groups`, `1,234` is one number."""
    return read_tokens(tokenized(text, groups=groups))


def read_tokens(tokens: Tokens) -> Reading:
    """The reading of an answer from its tokens."""
    if len(tokens) > MAX_TOKENS:
        return (as_words(tokens),)
    session = _Session()
    try:
        if not is_balanced(tokens):
            return read_open_interval(tokens, session.read) or (as_words(tokens),)
        return session.read(_in_one_spelling(tokens))
    except TooManyParts:
        return (as_words(tokens),)


class TooManyParts(Exception):
    """The parts of an answer are read again and again."""


class _Session:
    """Reads one answer, whose parts are read by the same readers."""

    def __init__(self) -> None:
        self._left = MAX_TOKENS_READ

    def read(self, tokens: Tokens) -> Reading:
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
    r"""The tokens with one for `\not\in` and the like, and with the sign of degrees for the word."""
    found: list[Token] = []
    for token in tokens:
        before = found[-1] if found else None
        negated = _NEGATED.get(token.text) if before is not None and before.text == r"\not" else None
        if negated:
            found[-1] = Token(COMMAND, negated)
        elif before is not None and before.kind in (NUMBER, CLOSE) and token.text in ("degree", "degrees"):
            found += [Token(SIGN, "^"), Token(COMMAND, r"\circ")]
        else:
            found.append(token)
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
