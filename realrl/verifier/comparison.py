"""Whether an answer means what a solution does. It may say less than the solution, never another thing.

Two readings are the same if one meaning of the first is one of the second. Every pair of kinds has its rule;
a pair without one is different.
"""

from __future__ import annotations

from collections.abc import Sequence

from realrl.verifier import lexicon, sets
from realrl.verifier.amounts import (
    same_congruence,
    same_moment,
    same_number,
    same_numeral,
    singular,
    whole_number,
)
from realrl.verifier.arrays import components
from realrl.verifier.equality import equal
from realrl.verifier.names import is_variable, without_subscript
from realrl.verifier.nodes import (
    Array,
    Node,
    Number,
    free_symbols,
    operation,
    whole,
)
from realrl.verifier.readers.real_sets import as_real_set
from realrl.verifier.relations import same_equation
from realrl.verifier.tree import (
    Congruence,
    Formula,
    Items,
    Moment,
    Named,
    Numeral,
    Progression,
    Reading,
    RealSet,
    Relation,
    Value,
    Words,
)

_LISTS = (",", "or", "{}")
_WHOLE_NAMES = frozenset("n k m j l N K M".split())
_NOTHING = Items("{}", ())


def same(answer: Reading, solution: Reading) -> bool:
    """Whether one meaning of an answer is one of a solution."""
    return any(_same(mine, wanted) for wanted in solution for mine in answer)


def _same(answer: Value, solution: Value) -> bool:
    named = _assignments(answer), _assignments(solution)
    if named[1] is not None and len(named[1]) > 1:
        return _same_assignments(answer, named[0], named[1])
    if isinstance(answer, (Named, Relation)) or isinstance(solution, (Named, Relation)):
        return _same_statement(answer, solution)
    if isinstance(answer, RealSet) or isinstance(solution, RealSet):
        return _same_set(answer, solution)
    if isinstance(answer, Progression) or isinstance(solution, Progression):
        return _same_progression(answer, solution)
    if isinstance(answer, Items) or isinstance(solution, Items):
        return _same_items(answer, solution)
    if isinstance(answer, Words) or isinstance(solution, Words):
        return isinstance(answer, Words) and isinstance(solution, Words) and same_words(answer, solution)
    if isinstance(answer, Numeral) or isinstance(solution, Numeral):
        return same_numeral(answer, solution)
    if isinstance(answer, Congruence) or isinstance(solution, Congruence):
        return same_congruence(answer, solution)
    if isinstance(answer, Moment) or isinstance(solution, Moment):
        return isinstance(answer, Moment) and isinstance(solution, Moment) and same_moment(answer, solution)
    return same_number(answer, solution)


# Words.


def same_words(answer: Words, solution: Words) -> bool:
    first, second = canonical_words(answer), canonical_words(solution)
    return bool(second) and (first == second or singular(first) == singular(second))


def canonical_words(value: Words) -> str:
    """Words without articles, in one of the spellings that mean the same."""
    words = [word for word in value.words if word not in (".", '"')]
    text = " ".join([word for word in words if word not in lexicon.ARTICLES] or words)
    for opening in lexicon.OPENINGS:
        text = text.removeprefix(opening)
    return lexicon.WORD_SYNONYMS.get(text, text)


# Names and relations.


def _assignments(value: Value) -> dict[str, Reading] | None:
    """What several names are said to be the values of, by name."""
    if isinstance(value, Named):
        return _of_tuple(value)
    if not isinstance(value, Items) or value.kind not in (",", "or"):
        return None
    found: dict[str, Reading] = {}
    for item in value.items:
        if not isinstance(item[0], Named) or item[0].name in found:
            return None
        found[item[0].name] = item[0].value
    return found


def _of_tuple(value: Named) -> dict[str, Reading] | None:
    r"""`(x, y) = (1, 2)`, name by name."""
    inner = value.value[0]
    if not (value.name.startswith("( ") and isinstance(inner, Items) and inner.kind == "()"):
        return None
    names = [name.strip() for name in value.name.strip("() ").split(",")]
    if len(names) != len(inner.items) or len(set(names)) != len(names):
        return None
    return dict(zip(names, inner.items, strict=True))


def _same_assignments(answer: Value, mine: dict[str, Reading] | None, wanted: dict[str, Reading]) -> bool:
    if mine is not None:
        return mine.keys() == wanted.keys() and all(same(mine[name], wanted[name]) for name in wanted)
    if not isinstance(answer, Items) or answer.kind not in (",", "()") or _are_named(answer):
        return False
    return _in_order(answer.items, tuple(wanted.values()))


def _are_named(items: Items) -> bool:
    return any(isinstance(item[0], Named) for item in items.items)


def _same_statement(answer: Value, solution: Value) -> bool:
    if isinstance(answer, Relation) or isinstance(solution, Relation):
        return (
            isinstance(answer, Relation)
            and isinstance(solution, Relation)
            and _same_relation(answer, solution)
        )
    if isinstance(answer, Named) and isinstance(solution, Named):
        are_alike = isinstance(answer.value[0], Congruence) == isinstance(solution.value[0], Congruence)
        return are_alike and names_agree(answer.name, solution.name) and same(answer.value, solution.value)
    if isinstance(answer, Named):
        return answer.may_be_dropped and same(answer.value, (solution,))
    if _are_whole_numbers(answer, solution):
        return True
    return solution.may_be_dropped and solution.is_one_thing and same((answer,), solution.value)


def names_agree(answer: str, solution: str) -> bool:
    """Whether two names are the same, perhaps with an index or an argument that only one has."""
    if answer == solution or {answer, solution} == {"y", "f ( x )"}:
        return True
    if is_variable(solution) and without_subscript(answer) == solution:
        return True
    return _without_argument(answer) == solution or answer == _without_argument(solution)


def _without_argument(name: str) -> str:
    """`f` of `f ( x )`; a name without such an argument as it is."""
    function, _, argument = name.partition(" ( ")
    return function if len(argument) == 3 and argument.endswith(" )") else name


def _are_whole_numbers(answer: Value, solution: Named) -> bool:
    r"""A set of numbers for `-2 \le n \le 2`, where n is a whole number by its name."""
    if solution.name not in _WHOLE_NAMES or not isinstance(solution.value[0], RealSet):
        return False
    numbers = sets.whole_numbers(solution.value[0])
    if not numbers or not isinstance(answer, Items) or answer.kind not in (",", "{}"):
        return False
    wanted = tuple((Formula(whole(number)),) for number in numbers)
    return _in_any_order(answer.items, wanted)


def _same_relation(answer: Relation, solution: Relation) -> bool:
    if answer.operators != solution.operators:
        return False
    if all(map(same, answer.sides, solution.sides)):
        return True
    if set(answer.operators) <= {"=", "!="} and all(map(same, answer.sides[::-1], solution.sides)):
        return True
    return answer.operators == ("=",) and same_equation(_nodes(answer.sides), _nodes(solution.sides))


def _nodes(sides: Sequence[Reading]) -> tuple[Node, Node] | None:
    found = [side[0].node for side in sides if isinstance(side[0], Formula)]
    return (found[0], found[1]) if len(found) == len(sides) == 2 else None


# Sets and lists.


def _same_set(answer: Value, solution: Value) -> bool:
    if isinstance(solution, RealSet) and isinstance(answer, Items) and answer.kind == ",":
        return False
    mine, wanted = as_real_set(answer), as_real_set(solution)
    return mine is not None and wanted is not None and sets.same_set(mine, wanted)


def _same_items(answer: Value, solution: Value) -> bool:
    if isinstance(solution, Items) and solution == _NOTHING:
        return answer == _NOTHING or (isinstance(answer, Words) and canonical_words(answer) == "none")
    if isinstance(answer, Items) and answer == _NOTHING:
        return isinstance(solution, Words) and canonical_words(solution) == "none"
    if isinstance(answer, Items) and isinstance(solution, Items):
        return _same_kinds(answer, solution)
    if isinstance(solution, Formula) and isinstance(solution.node, Array) and isinstance(answer, Items):
        return answer.kind == "()" and _in_order(answer.items, _entries(solution.node))
    if isinstance(answer, Formula) and isinstance(answer.node, Array) and isinstance(solution, Items):
        return solution.kind == "()" and _in_order(_entries(answer.node), solution.items)
    if isinstance(answer, Formula) and isinstance(solution, Items) and solution.kind == "()":
        found = components(answer.node, len(solution.items))
        return found is not None and _in_order(tuple((Formula(node),) for node in found), solution.items)
    if isinstance(solution, Formula) and isinstance(answer, Items) and answer.kind == "()":
        found = components(solution.node, len(answer.items))
        return found is not None and _in_order(answer.items, tuple((Formula(node),) for node in found))
    if isinstance(answer, Items):
        return _items_for_one(answer, solution)
    return _one_for_items(answer, solution)


def _entries(array: Array) -> tuple[Reading, ...]:
    """Of one row or one column; nothing of any other matrix."""
    if len(array.rows) == 1:
        return tuple((Formula(entry),) for entry in array.rows[0])
    if all(len(row) == 1 for row in array.rows):
        return tuple((Formula(row[0]),) for row in array.rows)
    return ()


def _items_for_one(answer: Items, solution: Value) -> bool:
    """A list for one value: each member is it, or a comma is that of a decimal, or a ratio is a quotient."""
    if answer.kind in (",", "or") and answer.items and all(same(item, (solution,)) for item in answer.items):
        return True
    if answer.kind == "{}" and len(answer.items) == 1 and not isinstance(answer.items[0][0], Items):
        return same(answer.items[0], (solution,))
    if answer.decimal is not None and isinstance(solution, Formula):
        return _is_fraction(solution.node) and equal(answer.decimal, solution.node)
    quotient = _quotient(answer)
    return quotient is not None and same((Formula(quotient),), (solution,))


def _one_for_items(answer: Value, solution: Items) -> bool:
    if solution.kind == "{}" and len(solution.items) == 1 and not isinstance(solution.items[0][0], Items):
        return same((answer,), solution.items[0])
    if _is_long_decimal(solution) and isinstance(answer, Formula):
        return equal(answer.node, solution.decimal)
    quotient = _quotient(solution)
    return quotient is not None and same((answer,), (Formula(quotient),))


def _is_long_decimal(items: Items) -> bool:
    """`0,125`, which is no list of 0 and 125."""
    return items.decimal is not None and 0 < items.decimal.value < 1 and items.decimal.decimals > 2


def _is_fraction(node: Node) -> bool:
    """Whether a number is certainly no whole one."""
    return not free_symbols(node) and not (isinstance(node, Number) and node.value.denominator == 1)


def _quotient(items: Items) -> Node | None:
    """What a ratio of two numbers is worth."""
    if items.kind != ":" or len(items.items) != 2:
        return None
    first, second = (item[0] for item in items.items)
    if not (isinstance(first, Formula) and isinstance(second, Formula)):
        return None
    return operation("divide", first.node, second.node)


def _same_kinds(answer: Items, solution: Items) -> bool:
    if answer.kind == solution.kind == ":":
        return _same_ratio(answer, solution)
    mine, wanted = _plain_kind(answer), _plain_kind(solution)
    if mine in _LISTS and wanted in _LISTS:
        are_points = all(isinstance(item[0], Items) for item in solution.items)
        if are_points or mine == wanted == "{}":
            return _same_members(answer.items, solution.items)
        return _in_any_order(answer.items, solution.items)
    if wanted == "()" and (names := _assignments(answer)) is not None and all(map(is_variable, names)):
        return _in_order(tuple(names[name] for name in sorted(names)), solution.items)
    is_bare_tuple = {mine, wanted} == {",", "()"} and len(solution.items) > 2
    return (mine == wanted or is_bare_tuple) and _in_order(answer.items, solution.items)


def _plain_kind(items: Items) -> str:
    """A list in brackets is a bare one, unless it may be an interval."""
    return "," if items.kind == "[]" and len(items.items) > 2 else items.kind


def _same_ratio(answer: Items, solution: Items) -> bool:
    """Ratios are equal up to a common factor."""
    if len(answer.items) != len(solution.items):
        return False
    mine, wanted = ([item[0] for item in items.items] for items in (answer, solution))
    if not all(isinstance(value, Formula) for value in (*mine, *wanted)):
        return _in_order(answer.items, solution.items)
    if any(equal(value.node, whole(0)) for value in (*mine, *wanted)):
        return _in_order(answer.items, solution.items)
    pairs = zip(mine[1:], wanted[1:], strict=True)
    products = (
        (operation("multiply", a.node, wanted[0].node), operation("multiply", b.node, mine[0].node))
        for a, b in pairs
    )
    return all(equal(left, right) for left, right in products)


def _in_order(answers: Sequence[Reading], solutions: Sequence[Reading]) -> bool:
    return len(answers) == len(solutions) > 0 and all(map(same, answers, solutions))


def _in_any_order(answers: Sequence[Reading], solutions: Sequence[Reading]) -> bool:
    left = list(solutions)
    for answer in answers:
        twin = next((place for place, solution in enumerate(left) if same(answer, solution)), None)
        if twin is None:
            return False
        del left[twin]
    return not left


def _same_members(answers: Sequence[Reading], solutions: Sequence[Reading]) -> bool:
    """Of sets, in which a member may be written twice."""
    are_wanted = all(any(_same_member(mine, wanted) for wanted in solutions) for mine in answers)
    return are_wanted and all(any(_same_member(mine, wanted) for mine in answers) for wanted in solutions)


def _same_member(mine: Reading, wanted: Reading) -> bool:
    """Whether two members are the same; a set is no member in the place of its only one."""
    return _is_set(mine) == _is_set(wanted) and same(mine, wanted)


def _is_set(member: Reading) -> bool:
    return isinstance(member[0], Items) and member[0].kind == "{}"


def _same_progression(answer: Value, solution: Value) -> bool:
    if isinstance(answer, Progression) and isinstance(solution, Progression):
        parts = ((answer.first, solution.first), (answer.last, solution.last))
        if answer.kind == solution.kind and all(len(a) == len(b) and all(map(same, a, b)) for a, b in parts):
            return True
    if isinstance(answer, Progression) and isinstance(solution, Progression):
        mine, wanted = _written_out(answer), _written_out(solution)
        return None not in (mine, wanted) and answer.kind == solution.kind and _in_order(mine, wanted)
    progression, other = (answer, solution) if isinstance(answer, Progression) else (solution, answer)
    members = _written_out(progression)
    if members is None or not isinstance(other, Items):
        return False
    written = Items(progression.kind, members)
    return _same_items(written, other) if progression is answer else _same_items(other, written)


def _written_out(progression: Progression) -> tuple[Reading, ...] | None:
    """The members of a progression of whole numbers with one difference."""
    numbers = [whole_number(item) for item in (*progression.first, *progression.last)]
    if len(progression.first) < 2 or len(progression.last) != 1 or None in numbers:
        return None
    step = numbers[1] - numbers[0]
    is_even = all(b - a == step for a, b in zip(numbers[:-2], numbers[1:-1]))
    if (
        not step
        or not is_even
        or (numbers[-1] - numbers[0]) % step
        or not 0 < (numbers[-1] - numbers[0]) // step < 200
    ):
        return None
    members = range(numbers[0], numbers[-1] + (1 if step > 0 else -1), step)
    return tuple((Formula(whole(number)),) for number in members)
