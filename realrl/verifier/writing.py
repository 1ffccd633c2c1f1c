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
            shown = [_row(row, depth - 1) for row in rows]
            return f"[{'; '.join(shown)}]", _ATOM
        case Piecewise():
            return _cases(node, depth - 1), _ATOM
    raise AssertionError(f"no formula: {node!r:.100}")


def _repeated(node: Repeated, depth: int) -> str:
    low = _written(node.low, depth)[0]
    high = _written(node.high, depth)[0]
    body = _written(node.body, depth)[0]
    index = node.index.name
    return f"{node.name}({body}, {index} = {low} to {high})"


def _number(node: Number) -> Written:
    """Return a number as it was written: with a point and all of its decimals, or as a fraction."""
    value = node.value
    decimals = node.decimals
    text = str(value)
    whole = abs(value) * 10**decimals
    if decimals and whole.denominator == 1:
        digits = str(whole).zfill(decimals + 1)
        sign = "-" if value < 0 else ""
        before_point = digits[:-decimals]
        after_point = digits[-decimals:]
        text = f"{sign}{before_point}.{after_point}"
    if value < 0:
        return text, _SIGN
    if "/" in text:
        return text, _PRODUCT
    return text, _ATOM


def _operation(node: Operation, depth: int) -> Written:
    match node:
        case Operation("add", operands):
            return _sum(operands, depth), _SUM
        case Operation("multiply", operands):
            return _product(operands, depth), _PRODUCT
        case Operation("divide", (top, bottom)):
            above = _part(top, _PRODUCT, depth)
            below = _part(bottom, _POWER, depth)
            return f"{above}/{below}", _PRODUCT
        case Operation("negative", (inner,)):
            shown = _part(inner, _PRODUCT, depth)
            return f"-{shown}", _SIGN
        case Operation("power", (base, exponent)):
            below = _part(base, _ATOM, depth)
            raised = _part(exponent, _ATOM, depth)
            return f"{below}^{raised}", _POWER
        case Operation("factorial", (inner,)):
            shown = _part(inner, _ATOM, depth)
            return f"{shown}!", _POWER
    return _call(node.name, node.operands, depth)


def _product(operands: Iterable[Node], depth: int) -> str:
    parts: list[str] = []
    for operand in operands:
        # Only the first factor may begin with a sign.
        least = _PRODUCT if parts else _SIGN
        parts.append(_part(operand, least, depth))
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
    if holds >= least:
        return text
    return f"({text})"


def _call(name: str, operands: Iterable[Node], depth: int) -> Written:
    return f"{name}({_row(operands, depth)})", _ATOM


def _row(nodes: Iterable[Node], depth: int) -> str:
    shown = [_written(node, depth)[0] for node in nodes]
    return ", ".join(shown)


def _cases(node: Piecewise, depth: int) -> str:
    shown = []
    for value, conditions in node.cases:
        text, _ = _written(value, depth)
        held = [_condition(condition, depth) for condition in conditions]
        when = " and ".join(held)
        case = f"{text} if {when}" if when else f"{text} otherwise"
        shown.append(case)
    return "{" + "; ".join(shown) + "}"


def _condition(condition: Condition, depth: int) -> str:
    left = _written(condition.left, depth)[0]
    right = _written(condition.right, depth)[0]
    return f"{left} {condition.operator} {right}"
