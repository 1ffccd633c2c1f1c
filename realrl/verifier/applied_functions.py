r"""Reads a known function with its power, its base and its arguments: `\sin^2 x`, `log_2(8)`.

    function := name ("^" exponent | "_" base)* (arguments | argument)
    argument := brackets | "-" argument | power ("/" power | power)*

An argument without brackets ends at a sign of addition or multiplication, at a parenthesis and at another
function. It ends at `/`, too, unless factors next to each other bind closer.
"""

from __future__ import annotations

from realrl.verifier.cursor import Cursor, Unreadable
from realrl.verifier.digits import decimal_number
from realrl.verifier.functions import ANY_NUMBER, BRACKETED, FUNCTIONS, INVERSES
from realrl.verifier.nodes import Node, negative, operation, times, whole
from realrl.verifier.parser import Parser
from realrl.verifier.tokens import COMMAND, NUMBER, TEXT, Token


def read_function(parser: Parser, name: str, *, is_plain: bool) -> Node:
    """Return a function with its arguments, whose name is already read.

    `is_plain` tells that the name is written without a backslash.
    """
    power, base = _power_and_base(parser, is_plain=is_plain)
    if is_plain and name == "log" and base is None:
        base = _base_beside(parser)
    # A power of -1 is the inverse function: `\sin^{-1} x` is no quotient.
    if power == whole(-1) and name in INVERSES:
        return _applied(parser, name, INVERSES[name], base, is_plain=is_plain)
    value = _applied(parser, name, FUNCTIONS[name], base, is_plain=is_plain)
    if power is None:
        return value
    return operation("power", value, power)


def _power_and_base(parser: Parser, *, is_plain: bool) -> tuple[Node | None, Node | None]:
    """Return the power and the base between a function's name and its arguments; None for what is missing."""
    power: Node | None = None
    base: Node | None = None
    while parser.next_is("^", "_"):
        if parser.take("^"):
            power = parser.exponent()
            continue
        parser.expect("_")
        # In plain text all digits are the base: `log_10 x`. In LaTeX only the first one is.
        takes_atom = is_plain and not parser.next_is("{")
        base = parser.atom() if takes_atom else parser.argument()
    return power, base


def _base_beside(cursor: Cursor) -> Node | None:
    """Return the base of `log2(8)`; None if no number is between the name and a bracket."""
    token = cursor.peek()
    if token is None or token.kind != NUMBER or token.after_space:
        return None
    after = cursor.peek(1)
    if after is None or after.text != "(":
        return None
    cursor.at += 1
    return decimal_number(token.text)


def _applied(parser: Parser, name: str, function: str, base: Node | None, *, is_plain: bool) -> Node:
    """Return the operation `function`, written as `name`, of the arguments that come next."""
    if base is not None and name != "log":
        raise Unreadable(f"a base of {name}")
    if name in ANY_NUMBER:
        return operation(function, *parser.arguments())
    if name == "sqrt" and is_plain and not parser.next_is("(", "{"):
        return operation("sqrt", parser.atom())
    if name in BRACKETED and is_plain and not parser.next_is("(", "[", "{"):
        raise Unreadable(f"{name} without brackets")
    argument = _argument(parser)
    if base is None:
        return operation(function, argument)
    return operation(function, argument, base)


def _argument(parser: Parser) -> Node:
    """Return the argument in brackets, or all factors up to a sign or another function."""
    if parser.next_is("(", "["):
        return _argument_in_brackets(parser)
    if parser.take("-"):
        return negative(_argument(parser))
    node = parser.power()
    while _continues_argument(parser):
        if parser.take("/"):
            node = operation("divide", node, parser.power())
        else:
            node = times(node, parser.power())
    return node


def _argument_in_brackets(parser: Parser) -> Node:
    opening = parser.current().text
    entries = parser.entries(opening)
    if len(entries) != 1:
        raise Unreadable("too many arguments")
    return entries[0]


def _continues_argument(parser: Parser) -> bool:
    """Return whether the next token continues an argument that is written without brackets."""
    token = parser.peek()
    if token is None:
        return False
    if token.is_sign("/") and parser.tight:
        after = parser.peek(1)
        return after is not None and not _is_function(after)
    if not parser.starts_factor():
        return False
    return not _is_function(token) and token.text != "("


def _is_function(token: Token) -> bool:
    """Return whether a token names a function; a root is a factor like any other."""
    if token.kind not in (COMMAND, TEXT):
        return False
    bare = token.text.removeprefix("plain ").removeprefix("\\")
    return bare in FUNCTIONS and bare != "sqrt"
