r"""Reads the fraction of a mixed number: `1\frac12` and `1 1/2`."""

from __future__ import annotations

from realrl.verifier.cursor import Cursor
from realrl.verifier.digits import decimal_number
from realrl.verifier.nodes import Node, Number, Operation, operation
from realrl.verifier.parser import Parser
from realrl.verifier.tokens import NUMBER


def fraction_after(parser: Parser, node: Node) -> Node | None:
    """The fraction that comes next, if `node` is a whole number that it belongs to; else None."""
    if not _is_whole(node) or node.decimals or node.value < 0:
        return None
    return _proper_part(parser) if parser.next_is(r"\frac") else _slanted_fraction(parser)


def _proper_part(parser: Parser) -> Node | None:
    r"""A `\frac` of two whole numbers; anything else is left where it is."""
    start = parser.at
    part = parser.power()
    if isinstance(part, Operation) and part.name == "divide" and all(map(_is_whole, part.operands)):
        return part
    parser.at = start
    return None


def _slanted_fraction(cursor: Cursor) -> Node | None:
    """Two numbers with `/` between them, after a space."""
    top, slash, bottom = (cursor.peek(ahead) for ahead in range(3))
    if bottom is None or not top.kind == bottom.kind == NUMBER:
        return None
    if not (top.after_space and slash.is_sign("/")):
        return None
    cursor.at += 3
    return operation("divide", decimal_number(top.text), decimal_number(bottom.text))


def _is_whole(node: Node) -> bool:
    return isinstance(node, Number) and node.value.denominator == 1
