"""Writes out vectors and matrices entry by entry: sums, multiples, products and transposes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
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
    """Return the array that a formula is, written out entry by entry.

    A matrix of one entry becomes that entry. A formula without arrays is returned unchanged, and so is one
    whose shapes do not fit or whose entries would be too long.
    """
    if isinstance(node, Array):
        first_row = node.rows[0]
        has_one_entry = len(node.rows) == len(first_row) == 1
        return first_row[0] if has_one_entry else node
    if not isinstance(node, Operation) or node.name not in _RULES:
        return node
    operands = tuple(map(written_out, node.operands))
    if not _arrays_of(operands):
        return node
    rule = _RULES[node.name]
    found = rule(operands)
    return node if found is None else found


def _arrays_of(operands: tuple[Node, ...]) -> list[Array]:
    return [operand for operand in operands if isinstance(operand, Array)]


def _sum(operands: tuple[Node, ...]) -> Node | None:
    arrays = _arrays_of(operands)
    if len(arrays) < len(operands):
        return None
    shapes = set(map(_lengths_of_rows, arrays))
    if len(shapes) != 1:
        return None
    return _by_entry(_sum_of_entries, *arrays)


def _sum_of_entries(*entries: Node) -> Node:
    return operation("add", *entries)


def _lengths_of_rows(array: Array) -> tuple[int, ...]:
    return tuple(map(len, array.rows))


def _by_entry(rule: Callable[..., Node], *arrays: Array) -> Array:
    """Return the array whose entries are `rule` of the entries of `arrays` at the same place."""
    rows_of_arrays = [array.rows for array in arrays]
    rows: list[tuple[Node, ...]] = []
    for rows_at_one_place in zip(*rows_of_arrays, strict=True):
        row = tuple(map(rule, *rows_at_one_place))
        rows.append(row)
    return Array(tuple(rows))


def _product(operands: tuple[Node, ...]) -> Node | None:
    total = operands[0]
    for operand in operands[1:]:
        product = _multiplied(total, operand)
        if product is None:
            return None
        total = product
    return total


def _multiplied(left: Node, right: Node) -> Node | None:
    if isinstance(left, Array) and isinstance(right, Array):
        return _matrix_product(left, right)
    if isinstance(left, Array):
        return _multiple(right, left)
    if isinstance(right, Array):
        return _multiple(left, right)
    return operation("multiply", left, right)


def _multiple(factor: Node, array: Array) -> Array:
    return _by_entry(lambda entry: operation("multiply", factor, entry), array)


def _matrix_product(left: Array, right: Array) -> Node | None:
    """Return a product of matrices; None if their shapes do not fit, or its entries are too long."""
    columns = tuple(zip(*right.rows, strict=True))
    if len(left.rows[0]) != len(right.rows):
        return None
    rows: list[tuple[Node, ...]] = []
    for row in left.rows:
        entries = [_dot(row, column) for column in columns]
        rows.append(tuple(entries))
    product = Array(tuple(rows))
    if _is_large(product):
        return None
    return product


def _dot(row: tuple[Node, ...], column: tuple[Node, ...]) -> Node:
    """Return the product of a row and a column."""
    # Numbers are multiplied at once, so that the entries of repeated products stay short.
    total = Fraction(0)
    are_numbers = True
    terms: list[Node] = []
    for left, right in zip(row, column, strict=True):
        terms.append(operation("multiply", left, right))
        if isinstance(left, Number) and isinstance(right, Number):
            total += left.value * right.value
        else:
            are_numbers = False
    if are_numbers:
        return Number(total)
    if len(terms) == 1:
        return terms[0]
    return operation("add", *terms)


def _is_large(array: Array) -> bool:
    """Return whether an entry is too long to be multiplied again: each product doubles it."""
    for row in array.rows:
        if any(_is_long(entry) for entry in row):
            return True
    return False


def _is_long(entry: Node) -> bool:
    """Return whether a formula has more than `MAX_ENTRY` nodes; no more than that are counted."""
    counted = islice(walk(entry), MAX_ENTRY + 1)
    return sum(1 for _ in counted) > MAX_ENTRY


def _quotient(operands: tuple[Node, ...]) -> Node | None:
    top, bottom = operands
    if isinstance(bottom, Array) or not isinstance(top, Array):
        return None
    return _by_entry(lambda entry: operation("divide", entry, bottom), top)


def _negative(operands: tuple[Node, ...]) -> Node | None:
    (array,) = _arrays_of(operands)
    return _by_entry(lambda entry: operation("negative", entry), array)


def _transpose(operands: tuple[Node, ...]) -> Node | None:
    (array,) = _arrays_of(operands)
    columns = zip(*array.rows, strict=True)
    return Array(tuple(columns))


_RULES: dict[str, Callable[[tuple[Node, ...]], Node | None]] = {
    "add": _sum,
    "multiply": _product,
    "divide": _quotient,
    "negative": _negative,
    "transpose": _transpose,
}


def components(node: Node, count: int) -> tuple[Node, ...] | None:
    r"""Return the components of a vector that is written with unit vectors: `2\mathbf{i} - \mathbf{j}`.

    A component is the formula's value where its unit vector is 1 and the others are 0. None unless the
    formula is linear in `count` unit vectors, two or three.
    """
    names = UNIT_VECTORS[:count]
    if not 2 <= count <= 3:
        return None
    if not _has_unit_vectors(node, names):
        return None
    zeros = _zeros(names)
    constant = _with(node, zeros)
    if not is_zero_polynomial(constant):
        return None
    # The formula is linear if it equals the sum of its components times their unit vectors. Those have other
    # names here, as `i` would be the imaginary unit.
    vectors = {name: Symbol(f"@{name}") for name in names}
    found: list[Node] = []
    terms: list[Node] = []
    for name, vector in vectors.items():
        component = _with(node, {**zeros, name: whole(1)})
        found.append(component)
        terms.append(operation("multiply", component, vector))
    total = operation("add", *terms)
    marked = _with(node, vectors)
    difference = operation("add", total, operation("negative", marked))
    if is_zero_polynomial(difference):
        return tuple(found)
    return None


def _has_unit_vectors(node: Node, names: tuple[str, ...]) -> bool:
    """Return whether a formula has unit vectors, with `j` among them: without it, `i` is a number."""
    if "j" not in free_symbols(node):
        return False
    return _with(node, _zeros(names)) != node


def _zeros(names: Iterable[str]) -> dict[str, Node]:
    return dict.fromkeys(names, whole(0))


def _with(node: Node, values: Mapping[str, Node]) -> Node:
    """Return sums and products with other nodes for their unit vectors, of which `i` is a constant."""
    match node:
        case Symbol(name) | Constant(name):
            return values.get(name, node)
        case Operation(name, operands):
            replaced = [_with(operand, values) for operand in operands]
            return Operation(name, tuple(replaced))
    return node
