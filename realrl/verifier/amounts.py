"""Whether two amounts are the same: numbers, percentages, quantities, numerals, residues, times and dates."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from realrl.verifier import lexicon, units
from realrl.verifier.equality import equal
from realrl.verifier.families import same_up_to_constant, same_with_other_constants
from realrl.verifier.nodes import (
    Constant,
    Node,
    Number,
    Operation,
    Symbol,
    free_symbols,
    operation,
    substituted,
    walk,
    whole,
)
from realrl.verifier.rounding import ANSWER_DIGITS, SOLUTION_DIGITS, stands_for
from realrl.verifier.tree import (
    Congruence,
    Family,
    Formula,
    Moment,
    Numeral,
    Percentage,
    Quantity,
    Reading,
    Unit,
    Value,
)

_OF_A_FAMILY = "n_{family}"
"""The whole number of every family, whatever it is called."""
_ARITHMETIC = frozenset(("add", "negative", "multiply", "divide", "degrees"))


def same_number(answer: Value, solution: Value) -> bool:
    if isinstance(answer, Percentage) or isinstance(solution, Percentage):
        return _same_percentage(answer, solution)
    if isinstance(answer, Quantity) and isinstance(solution, Quantity):
        return _same_quantity(answer, solution)
    return _same_node(answer.node, solution.node)


def same_family(answer: Value, solution: Value) -> bool:
    """Whether two families, or a family and a formula beside which no range is written, are the same."""
    if not (isinstance(answer, Family) and isinstance(solution, Family)):
        return _same_node(answer.node, solution.node)
    mine, wanted = (
        substituted(family.node, {family.variable: Symbol(_OF_A_FAMILY)}) for family in (answer, solution)
    )
    return answer.range == solution.range and equal(mine, wanted)


def _same_node(answer: Node, solution: Node) -> bool:
    if equal(answer, solution) or same_up_to_constant(answer, solution):
        return True
    if stands_for(answer, solution, ANSWER_DIGITS):
        return True
    if stands_for(solution, answer, SOLUTION_DIGITS):
        return True
    if same_by_engineers_j(answer, solution) or same_angles(answer, solution):
        return True
    return same_with_other_constants(answer, solution) or same_without_degrees(answer, solution)


def same_angles(answer: Node, solution: Node) -> bool:
    r"""`n\pi` for `k\pi`: what a whole number is called does not matter in a family of angles."""
    names = free_symbols(answer), free_symbols(solution)
    if names[0] == names[1] or any(len(each) != 1 or not each <= lexicon.COUNTERS for each in names):
        return False
    (mine,), (wanted,) = names
    return (
        _is_angle(answer)
        and _is_angle(solution)
        and equal(substituted(answer, {mine: Symbol(wanted)}), solution)
    )


def same_without_degrees(answer: Node, solution: Node) -> bool:
    r"""`90 - x` for `90^\circ - x`: a sum of angles in degrees, whose sign may be left out."""
    names = free_symbols(solution)
    are_marked = _is_marked(answer), _is_marked(solution)
    if not names or names != free_symbols(answer) or are_marked[0] == are_marked[1]:
        return False
    if not all(node.name in _ARITHMETIC for side in (answer, solution) for node in _operations(side)):
        return False
    return equal(_without_degrees(answer), _without_degrees(solution))


def _is_marked(node: Node) -> bool:
    return any(inner.name == "degrees" for inner in _operations(node))


def _operations(node: Node) -> Iterator[Operation]:
    return (inner for inner in walk(node) if isinstance(inner, Operation))


def _without_degrees(node: Node) -> Node:
    if not isinstance(node, Operation):
        return node
    operands = tuple(map(_without_degrees, node.operands))
    return operands[0] if node.name == "degrees" else Operation(node.name, operands)


def _is_angle(node: Node) -> bool:
    return any(
        inner == Constant("pi") or (isinstance(inner, Operation) and inner.name == "degrees")
        for inner in walk(node)
    )


def same_by_engineers_j(answer: Node, solution: Node) -> bool:
    """`3 + 4j` for `3 + 4i`."""
    is_complex = any(node == Constant("i") for node in walk(solution))
    if not is_complex or free_symbols(answer) != {"j"} or free_symbols(solution):
        return False
    return equal(substituted(answer, {"j": Constant("i")}), solution)


def _same_percentage(answer: Value, solution: Value) -> bool:
    """`50%` is a half; where the solution is at least 1 it may be the number in front of the sign, too."""
    if isinstance(answer, Percentage) and isinstance(solution, Percentage):
        return _same_node(answer.node, solution.node)
    if isinstance(answer, Quantity) or isinstance(solution, Quantity):
        return False
    part = operation("divide", (answer if isinstance(answer, Percentage) else solution).node, whole(100))
    if isinstance(solution, Percentage):
        return _same_node(answer.node, solution.node) or _same_node(answer.node, part)
    return _same_node(part, solution.node) or (
        _is_at_least_one(solution.node) and equal(answer.node, solution.node)
    )


def _is_at_least_one(node: Node) -> bool:
    return isinstance(node, Number) and abs(node.value) >= 1


def _same_quantity(answer: Quantity, solution: Quantity) -> bool:
    mine, wanted = answer.unit, solution.unit
    if mine.is_known and wanted.is_known:
        if units.same_kind(mine, wanted):
            return _same_node(_told(answer), _told(solution))
        return _is_money_rate(mine, wanted) and _same_node(answer.node, solution.node)
    return _same_thing(mine, wanted) and _same_node(answer.node, solution.node)


def _told(quantity: Quantity) -> Node:
    factor = quantity.unit.factor
    return quantity.node if factor == 1 else operation("multiply", quantity.node, Number(Fraction(factor)))


def _is_money_rate(mine: Unit, wanted: Unit) -> bool:
    """`dollars` for `dollars per year`, or the other way round."""
    shorter, longer = sorted((mine.kind, wanted.kind), key=len)
    return shorter.startswith("money") and longer.startswith(f"{shorter} * ")


def _same_thing(mine: Unit, wanted: Unit) -> bool:
    if mine.is_known or wanted.is_known:
        return False
    first, second = (set(map(singular, unit.kind.split())) - lexicon.ARTICLES for unit in (mine, wanted))
    return first <= second or second <= first


def same_numeral(answer: Value, solution: Value) -> bool:
    """Digits of one base; a solution without a base takes a numeral by its value."""
    if isinstance(answer, Numeral) and isinstance(solution, Numeral):
        return answer.base == solution.base and answer.digits.lstrip("0") == solution.digits.lstrip("0")
    if isinstance(answer, Numeral) and isinstance(solution, Formula):
        return equal(whole(int(answer.digits, answer.base)), solution.node)
    is_decimal = isinstance(solution, Numeral) and solution.base == 10 and isinstance(answer, Formula)
    return is_decimal and equal(answer.node, whole(int(solution.digits)))


def same_congruence(answer: Value, solution: Value) -> bool:
    if isinstance(answer, Congruence) and isinstance(solution, Congruence):
        return equal(answer.modulus, solution.modulus) and _same_residue(answer, solution)
    if isinstance(answer, Congruence) and isinstance(solution, Formula):
        remainder = _remainder(answer)
        return remainder is not None and equal(remainder, solution.node)
    if isinstance(solution, Congruence) and isinstance(answer, Formula):
        return any(equal(answer.node, wanted) for wanted in (solution.node, _remainder(solution)) if wanted)
    return False


def _remainder(value: Congruence) -> Node | None:
    """The number that `17 mod 5` is; None unless both are whole numbers."""
    residue, modulus = whole_number((Formula(value.node),)), whole_number((Formula(value.modulus),))
    return None if residue is None or not modulus else whole(residue % modulus)


def _same_residue(answer: Congruence, solution: Congruence) -> bool:
    if equal(answer.node, solution.node):
        return True
    numbers = (answer.node, solution.node, solution.modulus)
    if not all(isinstance(number, Number) and number.value.denominator == 1 for number in numbers):
        return False
    mine, wanted, modulus = (int(number.value) for number in numbers)
    return modulus != 0 and (mine - wanted) % modulus == 0


def same_moment(answer: Moment, solution: Moment) -> bool:
    """Whether two times or dates are the same; one side may leave out the year, or the half of the day."""
    if (answer.minutes is None) != (solution.minutes is None):
        return False
    if answer.minutes is not None:
        if answer.half and solution.half:
            return (answer.minutes, answer.half) == (solution.minutes, solution.half)
        return answer.minutes == solution.minutes or _of_24_hours(answer) == _of_24_hours(solution)
    years_agree = answer.year == solution.year or None in (answer.year, solution.year)
    return (answer.day, answer.month) == (solution.day, solution.month) and years_agree


def _of_24_hours(moment: Moment) -> int:
    hours, minutes = divmod(moment.minutes, 60)
    return 60 * (hours % 12 + 12 * (moment.half == "pm")) + minutes if moment.half else moment.minutes


def whole_number(item: Reading) -> int | None:
    value = item[0]
    is_whole = (
        isinstance(value, Formula) and isinstance(value.node, Number) and value.node.value.denominator == 1
    )
    return int(value.node.value) if is_whole else None


def singular(text: str) -> str:
    return text[:-1] if len(text) > 4 and text.endswith("s") else text
