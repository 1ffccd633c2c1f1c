"""Whether two trees of answers mean the same; what two expressions are worth is left to an `Expressions`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from realrl.rewards.choice import choice, chosen_letter
from realrl.rewards.latex import clean
from realrl.rewards.number import Number, decimal_comma, is_rounded, parse_number, rounds_to
from realrl.rewards.reading import read, read_clean, words
from realrl.rewards.relation import names_agree
from realrl.rewards.tree import Items, Leaf, Matrix, Named, Relation, Value, Words

_UNORDERED = (",", "{}", "∪")
_BASE = re.compile(r"(-?[\dA-Z]*\d[\dA-Z]*) ?_\{?(?:\\text\{)?(\w+)\}*")


class Expressions(Protocol):
    """Compares expressions in `latex.clean`'s spelling."""

    def equal(self, left: str, right: str) -> bool: ...

    def rounds_to(self, expression: str, decimal: str) -> bool:
        """See `number.rounds_to`."""

    def proportional(self, left: tuple[str, ...], right: tuple[str, ...]) -> bool:
        """Whether two equations, given by their sides, are one up to a constant factor."""


def same_answer(answer: str, solution: str, expressions: Expressions) -> bool:
    """Whether an answer means what a solution does."""
    chosen = choice(solution)
    if chosen and chosen_letter(answer) == chosen:
        return True
    wanted = read(solution)
    if isinstance(wanted, Words) and wanted.text == words(clean(answer)) != "":
        return True
    return Comparison(expressions).same(read(answer), wanted)


class Comparison:
    """Goes down two trees side by side. The first is the answer, which may say less than the solution."""

    def __init__(self, expressions: Expressions) -> None:
        self._expressions = expressions

    def same(self, answer: Value, solution: Value) -> bool:
        if isinstance(answer, (Named, Relation)) or isinstance(solution, (Named, Relation)):
            return self._same_statement(answer, solution)
        if isinstance(answer, Items) or isinstance(solution, Items):
            return self._same_items(answer, solution)
        if isinstance(answer, Matrix) and isinstance(solution, Matrix):
            same_height = len(answer.rows) == len(solution.rows)
            return same_height and all(map(self._in_order, answer.rows, solution.rows))
        if isinstance(answer, Words) or isinstance(solution, Words):
            return answer == solution != Words("")
        if isinstance(answer, Leaf) and isinstance(solution, Leaf):
            return self._same_leaf(answer, solution)
        return self._expressions.equal(_text(answer), _text(solution))

    def _in_order(self, answers: Sequence[Value], solutions: Sequence[Value]) -> bool:
        return len(answers) == len(solutions) and all(map(self.same, answers, solutions))

    def _in_any_order(self, answers: Sequence[Value], solutions: Sequence[Value]) -> bool:
        left = list(solutions)
        for answer in answers:
            twin = next((i for i, solution in enumerate(left) if self.same(answer, solution)), None)
            if twin is None:
                return False
            del left[twin]
        return not left

    def _same_items(self, answer: Value, solution: Value) -> bool:
        if isinstance(answer, Items) and isinstance(solution, Items):
            return self._same_kinds(answer, solution)
        items, other = (answer, solution) if isinstance(answer, Items) else (solution, answer)
        if isinstance(other, Matrix):
            return items.kind == "()" and self._in_order(items.items, _vector(other))
        if len(items.items) == 1 and items.kind == "{}":
            return self.same(items.items[0], other)
        if items is answer and items.kind == "," and all(self.same(item, solution) for item in items.items):
            return True
        return isinstance(other, Leaf) and _is_decimal_comma(items, other)

    def _same_kinds(self, answer: Items, solution: Items) -> bool:
        if answer.kind in _UNORDERED and solution.kind in _UNORDERED:
            points = all(isinstance(item, Items) for item in solution.items)
            if points or answer.kind == solution.kind == "{}":
                return self._same_members(answer.items, solution.items)
            if _are_named(solution.items) and not any(isinstance(item, Named) for item in answer.items):
                return self._in_order(answer.items, solution.items)
            return self._in_any_order(answer.items, solution.items)
        bare_tuple = {answer.kind, solution.kind} == {",", "()"} and len(solution.items) > 2
        return (answer.kind == solution.kind or bare_tuple) and self._in_order(answer.items, solution.items)

    def _same_members(self, answers: Sequence[Value], solutions: Sequence[Value]) -> bool:
        """Of sets, in which a member may be written twice."""
        found = [next((i for i, s in enumerate(solutions) if self.same(a, s)), None) for a in answers]
        missing = (s for i, s in enumerate(solutions) if i not in found)
        return None not in found and all(any(self.same(a, s) for a in answers) for s in missing)

    def _same_statement(self, answer: Value, solution: Value) -> bool:
        if isinstance(answer, Named) and isinstance(solution, Named):
            return names_agree(answer.name, solution.name) and self.same(answer.value, solution.value)
        if isinstance(solution, Relation) and isinstance(answer, (Named, Relation)):
            return self._same_relation(_as_relation(answer), solution)
        answer, solution = self._value(answer), self._value(solution)
        return answer is not None and solution is not None and self.same(answer, solution)

    def _value(self, statement: Value) -> Value | None:
        """What a statement says the answer is; an equation that holds for some values only says nothing."""
        if isinstance(statement, Named):
            return statement.value
        if not isinstance(statement, Relation):
            return statement
        identity = set(statement.operators) == {"="} and self._expressions.equal(*_ends(statement))
        return read_clean(statement.sides[-1]) if identity else None

    def _same_relation(self, answer: Relation | None, solution: Relation) -> bool:
        if answer is None or answer.operators != solution.operators:
            return False
        if all(map(self.same, map(read_clean, answer.sides), map(read_clean, solution.sides))):
            return True
        return answer.operators == ("=",) and self._expressions.proportional(answer.sides, solution.sides)

    def _same_leaf(self, answer: Leaf, solution: Leaf) -> bool:
        if answer.unit and solution.unit and answer.unit != solution.unit:
            return False
        left, right = answer.latex, solution.latex
        if left == right:
            return bool(left)
        if _BASE.fullmatch(left) or _BASE.fullmatch(right):
            return _base(left) == _base(right)
        numbers = parse_number(left), parse_number(right)
        if None not in numbers and numbers[0].same(numbers[1]):
            return True
        if self._rounded(left, right, numbers[1]) or self._rounded(right, left, numbers[0]):
            return True
        return None in numbers and self._expressions.equal(left, right)

    def _rounded(self, decimal: str, exact: str, number: Number | None) -> bool:
        if not is_rounded(decimal) or is_rounded(exact):
            return False
        if number is None:
            return self._expressions.rounds_to(exact, decimal)
        return rounds_to(number.value, decimal)


def _text(value: Value) -> str:
    return value.latex if isinstance(value, Leaf) else value.text


def _ends(relation: Relation) -> tuple[str, str]:
    return relation.sides[0], relation.sides[-1]


def _base(text: str) -> tuple[str, ...]:
    match = _BASE.fullmatch(text)
    return match.groups() if match else (text,)


def _vector(matrix: Matrix) -> Sequence[Value]:
    """The entries of one row or one column; nothing of any other matrix."""
    if len(matrix.rows) == 1:
        return matrix.rows[0]
    return [row[0] for row in matrix.rows] if all(len(row) == 1 for row in matrix.rows) else ()


def _are_named(items: Sequence[Value]) -> bool:
    return all(isinstance(item, Named) for item in items) and len({item.name for item in items}) == len(items)


def _as_relation(statement: Named | Relation) -> Relation | None:
    if isinstance(statement, Relation):
        return statement
    value = statement.value
    return Relation(("=",), (statement.name, value.latex)) if isinstance(value, Leaf) else None


def _is_decimal_comma(items: Items, other: Leaf) -> bool:
    """`2,74` for 2.74: it is no list where the solution is one number with decimals."""
    number, value = parse_number(other.latex), decimal_comma(items.text)
    return value is not None and number is not None and value.denominator > 1 and number.value == value
