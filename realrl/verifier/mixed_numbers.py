r"""Reads the fraction of a mixed number: `1\frac12` and `1 1/2`."""

from __future__ import annotations

from realrl.verifier.cursor import Cursor
from realrl.verifier.digits import decimal_number
from realrl.verifier.nodes import Node, Number, Operation, operation
from realrl.verifier.parser import Parser
from realrl.verifier.tokens import NUMBER


def fraction_after(parser: Parser, node: Node) -> Node | None:
    """Return the fraction that comes next, if it belongs to the whole number `node`; else None."""
    if not isinstance(node, Number) or not _is_whole(node):
        return None
    if node.decimals or node.value < 0:
        return None
    if parser.next_is(r"\frac"):
        return _proper_part(parser)
    return _slanted_fraction(parser)


def _proper_part(parser: Parser) -> Node | None:
    r"""Return a `\frac` of two whole numbers; for anything else the cursor does not move."""
    start = parser.at
    part = parser.power()
    if isinstance(part, Operation) and part.name == "divide":
        if all(map(_is_whole, part.operands)):
            return part
    parser.at = start
    return None


def _slanted_fraction(cursor: Cursor) -> Node | None:
    """Return the fraction of two numbers with `/` between them, after a space."""
    top = cursor.peek(0)
    slash = cursor.peek(1)
    bottom = cursor.peek(2)
    if top is None or slash is None or bottom is None:
        return None
    if not top.kind == bottom.kind == NUMBER:
        return None
    if not top.after_space or not slash.is_sign("/"):
        return None
    cursor.at += 3
    return operation("divide", decimal_number(top.text), decimal_number(bottom.text))


def _is_whole(node: Node) -> bool:
    if not isinstance(node, Number):
        return False
    return node.value.denominator == 1
