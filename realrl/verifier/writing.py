"""Writes formulas as plain text for a person: `(x + 1)^2/3`, `sqrt(2)*pi`, `sum(k^2, k = 1 to n)`."""

from __future__ import annotations

from collections.abc import Iterable

from realrl.verifier.nodes import (
    Applied,
    Array,
    Condition,
    Constant,
    Node,
    Number,
    Operation,
    Piecewise,
    Repeated,
    Symbol,
)

MAX_DEPTH = 40
"""The largest depth of a formula that is written; deeper parts are written as dots."""
MAX_CHARS = 160
_SUM, _SIGN, _PRODUCT, _POWER, _ATOM = range(5)
"""How closely a part holds together: one that holds less closely than its place asks gets parentheses."""

Written = tuple[str, int]


def written(node: Node) -> str:
    """Return a formula as text, cut off where it is long."""
    return shortened(_written(node, MAX_DEPTH)[0])


def shortened(text: str, most: int = MAX_CHARS) -> str:
    """Return a text of at most `most` characters; a longer one is cut and ends in dots."""
    if len(text) <= most:
        return text
    return text[: most - 1] + "…"


def _written(node: Node, depth: int) -> Written:
    if not depth:
        return "…", _ATOM
    match node:
        case Number():
            return _number(node)
        case Symbol(name=name) | Constant(name=name):
            return name, _ATOM
        case Operation():
            return _operation(node, depth - 1)
        case Applied(name=name, operands=operands):
            return _call(name, operands, depth - 1)
        case Repeated():
            return _repeated(node, depth - 1), _ATOM
        case Array(rows=rows):
            shown = "; ".join(_row(row, depth - 1) for row in rows)
            return f"[{shown}]", _ATOM
        case Piecewise():
            return _cases(node, depth - 1), _ATOM
    raise AssertionError(f"no formula: {node!r:.100}")


def _repeated(node: Repeated, depth: int) -> str:
    low = _written(node.low, depth)[0]
    high = _written(node.high, depth)[0]
    body = _written(node.body, depth)[0]
    return f"{node.name}({body}, {node.index.name} = {low} to {high})"


def _number(node: Number) -> Written:
    """Return a number as it was written: with a point and all of its decimals, or as a fraction."""
    whole = node.value * 10**node.decimals
    if node.decimals and whole.denominator == 1:
        digits = str(abs(whole)).zfill(node.decimals + 1)
        sign = "-" if whole < 0 else ""
        before_point = digits[: -node.decimals]
        after_point = digits[-node.decimals :]
        text = f"{sign}{before_point}.{after_point}"
    else:
        text = str(node.value)
    if node.value < 0:
        return text, _SIGN
    return text, _PRODUCT if "/" in text else _ATOM


def _operation(node: Operation, depth: int) -> Written:
    match node:
        case Operation("add", operands):
            return _sum(operands, depth), _SUM
        case Operation("multiply", operands):
            return _product(operands, depth), _PRODUCT
        case Operation("divide", (top, bottom)):
            return f"{_part(top, _PRODUCT, depth)}/{_part(bottom, _POWER, depth)}", _PRODUCT
        case Operation("negative", (inner,)):
            return f"-{_part(inner, _PRODUCT, depth)}", _SIGN
        case Operation("power", (base, exponent)):
            return f"{_part(base, _ATOM, depth)}^{_part(exponent, _ATOM, depth)}", _POWER
        case Operation("factorial", (inner,)):
            return f"{_part(inner, _ATOM, depth)}!", _POWER
    return _call(node.name, node.operands, depth)


def _product(operands: Iterable[Node], depth: int) -> str:
    first, *rest = operands
    parts = [_part(first, _SIGN, depth)]
    parts.extend(_part(operand, _PRODUCT, depth) for operand in rest)
    return "*".join(parts)


def _sum(operands: Iterable[Node], depth: int) -> str:
    text = ""
    for operand in operands:
        part = _part(operand, _SIGN, depth)
        if not text:
            text = part
        elif part.startswith("-"):
            text += f" - {part[1:]}"
        else:
            text += f" + {part}"
    return text


def _part(node: Node, least: int, depth: int) -> str:
    text, holds = _written(node, depth)
    return text if holds >= least else f"({text})"


def _call(name: str, operands: Iterable[Node], depth: int) -> Written:
    return f"{name}({_row(operands, depth)})", _ATOM


def _row(nodes: Iterable[Node], depth: int) -> str:
    return ", ".join(_written(node, depth)[0] for node in nodes)


def _cases(node: Piecewise, depth: int) -> str:
    shown = []
    for value, conditions in node.cases:
        held = " and ".join(_condition(condition, depth) for condition in conditions)
        text = _written(value, depth)[0]
        shown.append(f"{text} if {held}" if held else f"{text} otherwise")
    return "{" + "; ".join(shown) + "}"


def _condition(condition: Condition, depth: int) -> str:
    left = _written(condition.left, depth)[0]
    right = _written(condition.right, depth)[0]
    return f"{left} {condition.operator} {right}"
