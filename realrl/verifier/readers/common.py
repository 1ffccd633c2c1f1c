"""What readers share."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from realrl.verifier.nodes import Node, Number, operation
from realrl.verifier.tokens import Tokens
from realrl.verifier.tree import Formula, Quantity, Reading, Words

Read = Callable[[Tokens], Reading]
"""Reads tokens by all readers, in their order."""


def only_formula(tokens: Tokens, read: Read) -> Node | None:
    found = read(tokens)
    value = found[0]
    if isinstance(value, Quantity) and value.unit.is_known:
        return value.node
    return value.node if isinstance(value, Formula) else None


def scaled(node: Node, factor: Fraction) -> Node:
    return node if factor == 1 else operation("multiply", Number(factor), node)


def as_words(tokens: Tokens) -> Words:
    """Tokens as a text, word by word."""
    return Words(tuple(token.text.casefold() for token in tokens if token.text not in ("{", "}")))
