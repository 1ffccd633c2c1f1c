"""Functions that several readers share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction

from realrl.verifier.nodes import Node, Number, operation
from realrl.verifier.slices import texts_without_braces
from realrl.verifier.tokens import Tokens
from realrl.verifier.tree import Formula, Quantity, Reading, Words

Read = Callable[[Tokens], Reading]
"""Reads tokens by all readers, in their order."""


def read_each(parts: Iterable[Tokens], read: Read) -> tuple[Reading, ...]:
    """Return the reading of each part."""
    return tuple(map(read, parts))


def only_formula(tokens: Tokens, read: Read) -> Node | None:
    """Return the formula that tokens mean first, without its unit; None if they mean something else."""
    found = read(tokens)
    value = found[0]
    if isinstance(value, Quantity) and value.unit.is_known:
        return value.node
    if isinstance(value, Formula):
        return value.node
    return None


def scaled(node: Node, factor: Fraction) -> Node:
    """Return a formula multiplied by a factor; a factor of 1 leaves it as it is."""
    if factor == 1:
        return node
    return operation("multiply", Number(factor), node)


def as_words(tokens: Tokens) -> Words:
    """Return tokens as a text, word by word, without braces."""
    words = map(str.casefold, texts_without_braces(tokens))
    return Words(tuple(words))
