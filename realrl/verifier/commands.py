r"""Reads what a formula names: commands such as `\frac` and `\sum`, functions, constants, Greek letters.

A command's own reader is in `_READERS`; it reads the command's arguments, after its name.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from realrl.verifier.applied_functions import read_function
from realrl.verifier.calls import read_primed, with_subscript
from realrl.verifier.cursor import Unreadable
from realrl.verifier.environments import read_environment
from realrl.verifier.functions import BRACKETED, CONSTANTS, FUNCTIONS, GREEK, UNIT_VECTORS
from realrl.verifier.nodes import Constant, Node, Repeated, Symbol, operation
from realrl.verifier.parser import Parser


def read_command(parser: Parser) -> Node:
    """Return a command with its arguments; `plain ` begins one that is written without a backslash.

    Raises:
        Unreadable: The command is unknown.
    """
    name = parser.read().text
    is_plain = name.startswith("plain ")
    bare = _bare(name)
    if bare.startswith("begin "):
        return read_environment(parser, bare.removeprefix("begin "))
    if bare == "sqrt" and not is_plain:
        return _root(parser)
    if bare in FUNCTIONS:
        return read_function(parser, bare, is_plain=is_plain)
    if bare in CONSTANTS:
        return Constant(CONSTANTS[bare])
    if bare in GREEK:
        symbol = with_subscript(parser, Symbol(f"\\{bare}"))
        if parser.next_is("'"):
            return read_primed(parser, symbol)
        return symbol
    if bare in _READERS:
        return _READERS[bare](parser)
    raise Unreadable(name)


def read_word(parser: Parser) -> Node:
    r"""Return what a word in a text names, as in `\text{max}(1, 2)`.

    Raises:
        Unreadable: The word is not a name in formulas.
    """
    name = parser.read().text
    if name in ("e", "i"):
        return Symbol(name)
    if name in FUNCTIONS:
        return read_function(parser, name, is_plain=name in BRACKETED)
    if name.lower() in CONSTANTS:
        return Constant(CONSTANTS[name.lower()])
    raise Unreadable(name)


def is_factor(command: str) -> bool:
    """Return whether a command can be a factor of the formula before it."""
    bare = _bare(command)
    is_known = bare in FUNCTIONS or bare in CONSTANTS or bare in GREEK or bare in _READERS
    return is_known or bare.startswith("begin ")


def _bare(command: str) -> str:
    return command.removeprefix("plain ").removeprefix("\\")


def _fraction(parser: Parser) -> Node:
    top = parser.argument()
    return operation("divide", top, parser.argument())


def _root(parser: Parser) -> Node:
    degree = parser.between("[", "]") if parser.next_is("[") else None
    radicand = parser.argument()
    if degree is None:
        return operation("sqrt", radicand)
    return operation("root", radicand, degree)


def _binomial(parser: Parser) -> Node:
    top = parser.argument()
    return operation("binomial", top, parser.argument())


def _overline(parser: Parser) -> Node:
    return operation("conjugate", _marked_letter(parser))


def _marked(parser: Parser, *, mark: str) -> Node:
    r"""Return a marked letter, a variable of its own: `\hat{x}`, but not the unit vector `\hat{i}`."""
    inside = _marked_letter(parser)
    if inside.name in UNIT_VECTORS and mark in (r"\hat", r"\vec"):
        return inside
    return with_subscript(parser, Symbol(f"{mark} {inside.name}"))


def _marked_letter(parser: Parser) -> Symbol:
    inside = parser.argument()
    if not isinstance(inside, Symbol):
        raise Unreadable("a mark over more than a letter")
    return inside


def _letterlike(_: Parser, *, name: str) -> Node:
    return Symbol(name)


def _repeated(parser: Parser, *, name: str) -> Node:
    r"""Return a sum or a product over whole numbers, as in `\sum_{k=1}^{n} k`."""
    parser.expect("_")
    parser.expect("{")
    index = parser.atom()
    parser.expect("=")
    low = parser.sum()
    parser.expect("}")
    parser.expect("^")
    high = parser.exponent()
    if not isinstance(index, Symbol):
        raise Unreadable("no index")
    return Repeated(name, index, low, high, parser.product())


_READERS: dict[str, Callable[[Parser], Node]] = {
    "frac": _fraction,
    "binom": _binomial,
    "overline": _overline,
    "hat": partial(_marked, mark=r"\hat"),
    "vec": partial(_marked, mark=r"\vec"),
    "dot": partial(_marked, mark=r"\dot"),
    "ddot": partial(_marked, mark=r"\ddot"),
    "tilde": partial(_marked, mark=r"\tilde"),
    "ell": partial(_letterlike, name=r"\ell"),
    "hbar": partial(_letterlike, name=r"\hbar"),
    "sum": partial(_repeated, name="sum"),
    "prod": partial(_repeated, name="product"),
}
"""The reader of each command that is no function and no letter."""
