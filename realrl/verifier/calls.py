r"""Reads a letter with its subscript, its primes and its arguments: `x_{1}`, `f'(2)`, `C(5, 2)`."""

from __future__ import annotations

from realrl.verifier.cursor import Cursor, Unreadable
from realrl.verifier.functions import UNKNOWN_FUNCTIONS
from realrl.verifier.nodes import Applied, Node, Number, Symbol, operation
from realrl.verifier.parser import Parser
from realrl.verifier.tokens import CLOSE, OPEN

MAX_SUBSCRIPT = 13
"""The largest number of tokens of a subscript in braces."""


def read_letter(parser: Parser) -> Node:
    """Return a variable, or the value of an unknown function."""
    letter = Symbol(parser.read().text)
    symbol = with_subscript(parser, letter)
    if parser.next_is("'"):
        return read_primed(parser, symbol)
    return _called(parser, symbol)


def with_subscript(cursor: Cursor, symbol: Symbol) -> Symbol:
    """Return a symbol with the subscript that comes next, if there is one."""
    if not cursor.take("_"):
        return symbol
    subscript = _subscript(cursor)
    return Symbol(f"{symbol.name}_{{{subscript}}}")


def _subscript(cursor: Cursor) -> str:
    if cursor.take("{"):
        return _subscript_in_braces(cursor)
    token = cursor.peek()
    if token is None or token.kind in (OPEN, CLOSE):
        raise Unreadable("no subscript")
    cursor.at += 1
    return token.text


def _subscript_in_braces(cursor: Cursor) -> str:
    parts: list[str] = []
    while not cursor.take("}"):
        token = cursor.peek()
        if token is None or len(parts) == MAX_SUBSCRIPT:
            raise Unreadable("a long subscript")
        parts.append(token.text.removeprefix("plain "))
        cursor.at += 1
    return "".join(parts)


def read_primed(parser: Parser, symbol: Symbol) -> Node:
    """Return a symbol with the primes that come next, and perhaps its arguments."""
    name = symbol.name
    while parser.take("'"):
        name += "'"
    return _called(parser, Symbol(name))


def _called(parser: Parser, symbol: Symbol) -> Node:
    """Return a symbol, with its arguments if it is a function: `f(x)` is a value of f, `a(x)` a product."""
    base = symbol.name.partition("_")[0].rstrip("'")
    is_function = base in UNKNOWN_FUNCTIONS or symbol.name.endswith("'")
    if not parser.next_is("(") or not (is_function or base == "C"):
        return symbol
    start = parser.at
    arguments = parser.arguments()
    if base == "C" and len(arguments) == 2:
        # Nobody chooses a negative number of things: these are the coordinates of a point.
        if any(map(_is_negative, arguments)):
            raise Unreadable("a point")
        return operation("binomial", *arguments)
    if is_function:
        return Applied(symbol.name, arguments)
    parser.at = start
    return symbol


def _is_negative(node: Node) -> bool:
    return isinstance(node, Number) and node.value < 0
