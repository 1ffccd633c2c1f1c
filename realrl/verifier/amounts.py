"""Compares amounts: numbers, percentages, quantities, numerals, residues, times and dates."""

from __future__ import annotations

from fractions import Fraction
from typing import TypeAlias

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
)

Amount: TypeAlias = Formula | Quantity | Percentage
_OF_A_FAMILY = "n_{family}"
"""The common name for the whole number of every family, so that its own name does not matter."""
_ARITHMETIC = frozenset(("add", "negative", "multiply", "divide", "degrees"))
"""The operations in which a sign of degrees may be left out."""


def same_number(answer: Amount, solution: Amount) -> bool:
    """Return whether two numbers, percentages or quantities are the same."""
    if isinstance(answer, Percentage) or isinstance(solution, Percentage):
        return _same_percentage(answer, solution)
    if isinstance(answer, Quantity) and isinstance(solution, Quantity):
        return _same_quantity(answer, solution)
    return _same_node(answer.node, solution.node)


def same_family(answer: Formula | Family, solution: Formula | Family) -> bool:
    """Return whether two families are the same, or a family and a formula without a range."""
    if not (isinstance(answer, Family) and isinstance(solution, Family)):
        return _same_node(answer.node, solution.node)
    if answer.range != solution.range:
        return False
    return equal(_with_common_name(answer), _with_common_name(solution))


def _with_common_name(family: Family) -> Node:
    """Return the formula of a family with the common name for its whole number."""
    return substituted(family.node, {family.variable: Symbol(_OF_A_FAMILY)})


def _same_node(answer: Node, solution: Node) -> bool:
    """Return whether two formulas are equal, or equal by one of the rules for what may be left out."""
    if equal(answer, solution):
        return True
    if same_up_to_constant(answer, solution):
        return True
    if stands_for(answer, solution, ANSWER_DIGITS):
        return True
    if stands_for(solution, answer, SOLUTION_DIGITS):
        return True
    if same_by_engineers_j(answer, solution):
        return True
    if same_angles(answer, solution):
        return True
    if same_with_other_constants(answer, solution):
        return True
    return same_without_degrees(answer, solution)


def same_angles(answer: Node, solution: Node) -> bool:
    r"""Return whether two families of angles differ only in the name of a whole number: `n\pi` for `k\pi`."""
    mine = _counter(answer)
    wanted = _counter(solution)
    if mine is None or wanted is None or mine == wanted:
        return False
    if not (_is_angle(answer) and _is_angle(solution)):
        return False
    renamed = substituted(answer, {mine: Symbol(wanted)})
    return equal(renamed, solution)


def _counter(node: Node) -> str | None:
    """Return the only variable of a formula if it names a whole number by custom; else None."""
    names = free_symbols(node)
    if len(names) != 1:
        return None
    if not names <= lexicon.COUNTERS:
        return None
    (name,) = names
    return name


def same_without_degrees(answer: Node, solution: Node) -> bool:
    r"""Return whether one side only leaves out the sign of degrees: `90 - x` for `90^\circ - x`."""
    names = free_symbols(solution)
    if not names or names != free_symbols(answer):
        return False
    if _is_marked(answer) == _is_marked(solution):
        return False
    if not (_is_arithmetic(answer) and _is_arithmetic(solution)):
        return False
    return equal(_without_degrees(answer), _without_degrees(solution))


def _is_arithmetic(node: Node) -> bool:
    """Return whether a formula has only operations in which a sign of degrees may be left out."""
    return _operations(node) <= _ARITHMETIC


def _is_marked(node: Node) -> bool:
    """Return whether a formula has a sign of degrees."""
    return "degrees" in _operations(node)


def _operations(node: Node) -> set[str]:
    """Return the names of the operations in a formula."""
    return {inner.name for inner in walk(node) if isinstance(inner, Operation)}


def _without_degrees(node: Node) -> Node:
    if not isinstance(node, Operation):
        return node
    operands = tuple(map(_without_degrees, node.operands))
    if node.name == "degrees":
        return operands[0]
    return Operation(node.name, operands)


def _is_angle(node: Node) -> bool:
    """Return whether a formula contains pi or a sign of degrees."""
    if _is_marked(node):
        return True
    return Constant("pi") in walk(node)


def same_by_engineers_j(answer: Node, solution: Node) -> bool:
    """Return whether an answer is a complex solution with j as the imaginary unit: `3 + 4j` for `3 + 4i`."""
    imaginary_unit = Constant("i")
    if imaginary_unit not in walk(solution):
        return False
    if free_symbols(answer) != {"j"} or free_symbols(solution):
        return False
    renamed = substituted(answer, {"j": imaginary_unit})
    return equal(renamed, solution)


def _same_percentage(answer: Amount, solution: Amount) -> bool:
    """Return whether two values, at least one of them a percentage, are the same.

    `50%` is a half. It also is 50 if the solution is a number of at least 1, or is `50%` itself.
    """
    mine = answer.node
    wanted = solution.node
    if isinstance(answer, Percentage) and isinstance(solution, Percentage):
        return _same_node(mine, wanted)
    if isinstance(answer, Quantity) or isinstance(solution, Quantity):
        return False
    if isinstance(solution, Percentage):
        if _same_node(mine, wanted):
            return True
        return _same_node(mine, _hundredth(wanted))
    if _same_node(_hundredth(mine), wanted):
        return True
    if not _is_at_least_one(wanted):
        return False
    return equal(mine, wanted)


def _hundredth(node: Node) -> Node:
    return operation("divide", node, whole(100))


def _is_at_least_one(node: Node) -> bool:
    if not isinstance(node, Number):
        return False
    return abs(node.value) >= 1


def _same_quantity(answer: Quantity, solution: Quantity) -> bool:
    """Return whether two amounts are the same, if their units can be compared at all."""
    mine = answer.unit
    wanted = solution.unit
    if mine.is_known and wanted.is_known:
        if units.same_kind(mine, wanted):
            return _same_node(_in_base_units(answer), _in_base_units(solution))
        are_comparable = _is_money_rate(mine, wanted)
    else:
        are_comparable = _same_thing(mine, wanted)
    if not are_comparable:
        return False
    return _same_node(answer.node, solution.node)


def _in_base_units(quantity: Quantity) -> Node:
    factor = quantity.unit.factor
    if factor == 1:
        return quantity.node
    return operation("multiply", quantity.node, Number(Fraction(factor)))


def _is_money_rate(mine: Unit, wanted: Unit) -> bool:
    """Return whether one unit is money and the other a rate of it: `dollars` and `dollars per year`."""
    kinds = (mine.kind, wanted.kind)
    shorter, longer = sorted(kinds, key=len)
    if not shorter.startswith("money"):
        return False
    return longer.startswith(f"{shorter} * ")


def _same_thing(mine: Unit, wanted: Unit) -> bool:
    """Return whether two counted things have the same name, up to words that one leaves out."""
    if mine.is_known or wanted.is_known:
        return False
    first = _words_of_thing(mine)
    second = _words_of_thing(wanted)
    return first <= second or second <= first


def _words_of_thing(unit: Unit) -> set[str]:
    """Return the words for a thing that is counted, in the singular and without articles."""
    words = {singular(word) for word in unit.kind.split()}
    return words - lexicon.ARTICLES


def same_numeral(answer: Numeral | Formula, solution: Numeral | Formula) -> bool:
    """Return whether two numerals have the same base and digits, or a numeral and a number the same value.

    A number is a numeral's value only if the solution is without a base, or its base is 10.
    """
    if isinstance(answer, Numeral) and isinstance(solution, Numeral):
        digits = answer.digits.lstrip("0")
        wanted_digits = solution.digits.lstrip("0")
        if answer.base != solution.base:
            return False
        return digits == wanted_digits
    if isinstance(answer, Numeral) and isinstance(solution, Formula):
        value = int(answer.digits, answer.base)
        return equal(whole(value), solution.node)
    if not (isinstance(answer, Formula) and isinstance(solution, Numeral)):
        return False
    if solution.base != 10:
        return False
    return equal(answer.node, whole(int(solution.digits)))


def same_congruence(answer: Congruence | Formula, solution: Congruence | Formula) -> bool:
    """Return whether two residues are the same, or a residue and a number are.

    A number may be the remainder, and as an answer also the residue as the solution writes it.
    """
    if isinstance(answer, Congruence) and isinstance(solution, Congruence):
        if not equal(answer.modulus, solution.modulus):
            return False
        return _same_residue(answer, solution)
    if isinstance(answer, Congruence):
        remainder = _remainder(answer)
        return remainder is not None and equal(remainder, solution.node)
    if isinstance(solution, Congruence):
        if equal(answer.node, solution.node):
            return True
        remainder = _remainder(solution)
        return remainder is not None and equal(answer.node, remainder)
    return False


def _remainder(value: Congruence) -> Node | None:
    """Return the value of `17 mod 5`; None unless both are whole numbers and the modulus is not 0."""
    residue = _whole_value(value.node)
    modulus = _whole_value(value.modulus)
    if residue is None or not modulus:
        return None
    return whole(residue % modulus)


def _same_residue(answer: Congruence, solution: Congruence) -> bool:
    if equal(answer.node, solution.node):
        return True
    mine = _whole_value(answer.node)
    wanted = _whole_value(solution.node)
    modulus = _whole_value(solution.modulus)
    if mine is None or wanted is None or not modulus:
        return False
    return (mine - wanted) % modulus == 0


def same_moment(answer: Moment, solution: Moment) -> bool:
    """Return whether two times or dates are the same; one may leave out the year or the half of the day."""
    mine = answer.minutes
    wanted = solution.minutes
    if mine is None or wanted is None:
        return mine is wanted and _same_date(answer, solution)
    if answer.half and solution.half:
        if mine != wanted:
            return False
        return answer.half == solution.half
    if mine == wanted:
        return True
    minutes = _since_midnight(mine, answer.half)
    wanted_minutes = _since_midnight(wanted, solution.half)
    return minutes == wanted_minutes


def _same_date(answer: Moment, solution: Moment) -> bool:
    if answer.day != solution.day:
        return False
    if answer.month != solution.month:
        return False
    has_no_year = answer.year is None or solution.year is None
    return has_no_year or answer.year == solution.year


def _since_midnight(minutes_of_clock: int, half: str) -> int:
    """Return the minutes since midnight of a time with a half of the day; without one, as they are."""
    if not half:
        return minutes_of_clock
    hours, minutes = divmod(minutes_of_clock, 60)
    hours_of_day = hours % 12
    if half == "pm":
        hours_of_day += 12
    return 60 * hours_of_day + minutes


def whole_number(item: Reading) -> int | None:
    """Return the whole number that a reading usually means; None if it means anything else."""
    value = item[0]
    if isinstance(value, Formula):
        return _whole_value(value.node)
    return None


def _whole_value(node: Node) -> int | None:
    """Return the value of a number that is whole; None of any other formula."""
    if not isinstance(node, Number):
        return None
    if node.value.denominator != 1:
        return None
    return int(node.value)


def singular(text: str) -> str:
    """Return a word without its plural `s`; a word of up to four letters keeps it."""
    is_plural = len(text) > 4 and text.endswith("s")
    if is_plural:
        return text[:-1]
    return text
