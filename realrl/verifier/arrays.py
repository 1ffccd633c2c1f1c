"""Vectors and matrices in formulas: sums, multiples, products and transposes written out entry by entry."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import islice

from realrl.verifier.functions import UNIT_VECTORS
from realrl.verifier.nodes import (
    Array,
    Constant,
    Node,
    Number,
    Operation,
    Symbol,
    free_symbols,
    operation,
    walk,
    whole,
)
from realrl.verifier.rational import is_zero_polynomial

MAX_ENTRY = 400
"""The largest number of nodes in an entry of a product of matrices."""


def written_out(node: Node) -> Node:
    """A formula as the array that it is; a matrix of one entry as that entry; any other formula as it is."""
    if isinstance(node, Array):
        return node.rows[0][0] if len(node.rows) == len(node.rows[0]) == 1 else node
    if not isinstance(node, Operation) or node.name not in _RULES:
        return node
    operands = tuple(map(written_out, node.operands))
    if not any(isinstance(operand, Array) for operand in operands):
        return node
    found = _RULES[node.name](operands)
    return node if found is None else found


def _sum(operands: tuple[Node, ...]) -> Node | None:
    if not all(isinstance(operand, Array) for operand in operands):
        return None
    shapes = {tuple(map(len, operand.rows)) for operand in operands}
    if len(shapes) != 1:
        return None
    return _by_entry(lambda *entries: operation("add", *entries), *operands)


def _by_entry(rule: Callable[..., Node], *arrays: Array) -> Array:
    rows = zip(*(array.rows for array in arrays), strict=True)
    return Array(tuple(tuple(map(rule, *row)) for row in rows))


def _product(operands: tuple[Node, ...]) -> Node | None:
    total = operands[0]
    for operand in operands[1:]:
        total = _multiplied(total, operand)
        if total is None:
            return None
    return total


def _multiplied(left: Node, right: Node) -> Node | None:
    if isinstance(left, Array) and isinstance(right, Array):
        return _matrix_product(left, right)
    if isinstance(left, Array):
        left, right = right, left
    if isinstance(right, Array):
        return _by_entry(lambda entry: operation("multiply", left, entry), right)
    return operation("multiply", left, right)


def _matrix_product(left: Array, right: Array) -> Node | None:
    columns = tuple(zip(*right.rows, strict=True))
    if len(left.rows[0]) != len(right.rows):
        return None
    rows = tuple(tuple(_dot(row, column) for column in columns) for row in left.rows)
    product = Array(rows)
    return None if _is_large(product) else product


def _dot(row: tuple[Node, ...], column: tuple[Node, ...]) -> Node:
    if all(isinstance(entry, Number) for entry in (*row, *column)):
        return Number(sum((a.value * b.value for a, b in zip(row, column, strict=True)), Fraction(0)))
    terms = [operation("multiply", a, b) for a, b in zip(row, column, strict=True)]
    return terms[0] if len(terms) == 1 else operation("add", *terms)


def _is_large(array: Array) -> bool:
    """Whether an entry is too long to be multiplied again: products of matrices double it each time."""
    entries = (entry for row in array.rows for entry in row)
    return any(sum(1 for _ in islice(walk(entry), MAX_ENTRY + 1)) > MAX_ENTRY for entry in entries)


def _quotient(operands: tuple[Node, ...]) -> Node | None:
    top, bottom = operands
    if isinstance(bottom, Array) or not isinstance(top, Array):
        return None
    return _by_entry(lambda entry: operation("divide", entry, bottom), top)


def _negative(operands: tuple[Node, ...]) -> Node | None:
    return _by_entry(lambda entry: operation("negative", entry), operands[0])


def _transpose(operands: tuple[Node, ...]) -> Node | None:
    return Array(tuple(zip(*operands[0].rows, strict=True)))


_RULES: dict[str, Callable[[tuple[Node, ...]], Node | None]] = {
    "add": _sum,
    "multiply": _product,
    "divide": _quotient,
    "negative": _negative,
    "transpose": _transpose,
}


def components(node: Node, count: int) -> tuple[Node, ...] | None:
    r"""The components of a vector that is written with unit vectors, as `2\mathbf{i} - \mathbf{j}`."""
    names = UNIT_VECTORS[:count]
    if not 2 <= count <= 3 or not _has(node, names):
        return None
    zero = whole(0)
    found = [_with(node, dict(zip(names, map(whole, unit), strict=True))) for unit in _units(count)]
    rest = _with(node, dict.fromkeys(names, zero))
    total = operation(
        "add",
        *(operation("multiply", part, Symbol(f"@{name}")) for part, name in zip(found, names, strict=True)),
    )
    marked = _with(node, {name: Symbol(f"@{name}") for name in names})
    is_linear = is_zero_polynomial(rest) and is_zero_polynomial(
        operation("add", total, operation("negative", marked))
    )
    return tuple(found) if is_linear else None


def _units(count: int) -> list[tuple[int, ...]]:
    return [tuple(int(row == column) for column in range(count)) for row in range(count)]


def _has(node: Node, names: tuple[str, ...]) -> bool:
    return _with(node, dict.fromkeys(names, whole(0))) != node and "j" in free_symbols(node)


def _with(node: Node, values: dict[str, Node]) -> Node:
    """A formula of sums and products with other nodes for its unit vectors, of which `i` is a constant."""
    match node:
        case Symbol(name) | Constant(name):
            return values.get(name, node)
        case Operation(name, operands):
            return Operation(name, tuple(_with(operand, values) for operand in operands))
    return node
