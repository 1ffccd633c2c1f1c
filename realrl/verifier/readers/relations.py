"""Reads relations of two sides or more: equations, orders, memberships and congruences."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

from realrl.verifier import sets
from realrl.verifier.equality import equal
from realrl.verifier.grammar import readings
from realrl.verifier.names import is_one_thing, is_variable, name_of
from realrl.verifier.nodes import Node, Number, Operation, free_symbols, negative, operation, whole
from realrl.verifier.readers.common import Read, only_formula, read_each
from realrl.verifier.readers.edges import stripped
from realrl.verifier.readers.real_sets import (
    as_real_set,
    high_end,
    infinity_sign,
    joined_pieces,
    low_end,
    named_set,
    sets_of_one_name,
)
from realrl.verifier.slices import cut, cut_at, first_place_of
from realrl.verifier.tokens import CLOSE, COMMAND, OPEN, SIGN, Token, Tokens
from realrl.verifier.tree import (
    Congruence,
    Formula,
    Items,
    Named,
    Percentage,
    Progression,
    Reading,
    RealSet,
    Relation,
    Value,
    Words,
)

_RELATIONS = {
    "=": "=",
    "<": "<",
    ">": ">",
    r"\le": "<=",
    r"\ge": ">=",
    r"\ne": "!=",
    r"\approx": "~",
    r"\sim": "~",
    r"\in": "in",
    r"\notin": "not in",
    r"\equiv": "mod",
    r"\simeq": "~",
    r"\cong": "~",
}
_ORDERS = ("<", ">", "<=", ">=")
_RISING = ("<", "<=")
_FALLING = (">", ">=")
_TURNED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
_MINUS = Token(SIGN, "-")


def read_relation(tokens: Tokens, read: Read) -> Reading:
    """Return what a relation says: a named value or set where it can, else the relation itself."""
    found = _union_of_orders(tokens, read)
    if found:
        return found
    sides, joints = cut(tokens, _is_relation)
    operators = [_RELATIONS[joint.text] for joint in joints]
    if not operators:
        return ()
    if not all(sides):
        return _half_relation(sides, operators, read)
    return _whole_relation(sides, operators, read)


def _is_relation(token: Token) -> bool:
    return token.kind in (SIGN, COMMAND) and token.text in _RELATIONS


def _whole_relation(sides: Sequence[Tokens], operators: list[str], read: Read) -> Reading:
    """Return the reading of a relation that has all its sides."""
    if "~" in operators:
        return _approximation(sides, operators, read)
    kinds = set(operators)
    if kinds == {"="}:
        return _equation(sides, read)
    if operators == ["mod"]:
        return _congruence_of(sides, read)
    if len(operators) == 1 and operators[0] in ("in", "not in", "!="):
        return _membership(sides, operators[0], read)
    if kinds.issubset(_ORDERS):
        return _order(sides, operators, read)
    return ()


def _union_of_orders(tokens: Tokens, read: Read) -> Reading:
    r"""Return the union of orders of one variable, as `-3 < k < 0 \cup k > 2`."""
    parts, joints = cut_at(tokens, r"\cup")
    if not joints or not all(parts):
        return ()
    named = sets_of_one_name([named_set(read(part)[0]) for part in parts])
    if named is None:
        return ()
    name, found = named
    return (Named(name, (joined_pieces(found),)),)


def _half_relation(sides: Sequence[Tokens], operators: Sequence[str], read: Read) -> Reading:
    """Return the numbers above or below a bound, as `> 5` says."""
    is_bound = len(sides) == 2 and not sides[0] and operators[0] in _ORDERS
    if not is_bound:
        return ()
    node = only_formula(sides[1], read)
    return () if node is None else (ray(operators[0], node),)


def ray(operator: str, node: Node) -> RealSet:
    """Return the numbers that are in an order to a bound: for `<`, those below `node`."""
    is_closed = operator in ("<=", ">=")
    if operator in _RISING:
        return sets.bounded(None, node, closed=(False, is_closed))
    return sets.bounded(node, None, closed=(is_closed, False))


def _approximation(sides: Sequence[Tokens], operators: Sequence[str], read: Read) -> Reading:
    r"""Return the exact value before `\approx`; for a name there, the value after it."""
    place = operators.index("~")
    if place == 0:
        named = name_of(sides[0])
        if not named:
            return read(sides[0])
        name, may_be_dropped = named
        return (Named(name, read(sides[1]), may_be_dropped),)
    if set(operators[:place]) != {"="}:
        return ()
    return _equation(sides[: place + 1], read)


def _equation(sides: Sequence[Tokens], read: Read) -> Reading:
    """Return the value that an equation gives to a name, or the value of its last side, or the equation."""
    named = name_of(sides[0])
    may_be_dropped = bool(named) and named[1]
    if named and (may_be_dropped or len(sides) == 2) and _are_readable(sides[1:-1], read):
        return _named(named, read(sides[-1]), sides, read)
    if len(sides) == 2:
        named = name_of(sides[1])
        if named:
            return _named(named, read(sides[0]), sides, read)
    elif any(map(name_of, sides)):
        return read(sides[-1]) if _are_readable(sides, read) else ()
    if _is_identity(sides, read):
        return read(sides[-1])
    return _both_sides(sides, read)


def _named(named: tuple[str, bool], value: Reading, sides: Sequence[Tokens], read: Read) -> Reading:
    """Return a value with its name.

    A value with variables, or a name of more than one thing, may be meant as an equation, too.
    """
    name, may_be_dropped = named
    is_single = is_one_thing(name)
    said = Named(name, value, may_be_dropped, is_single)
    if is_single and not _has_variables(value):
        return (said,)
    return (said, *_both_sides(sides, read))


def _has_variables(value: Reading) -> bool:
    return any(isinstance(meaning, Formula) and free_symbols(meaning.node) for meaning in value)


def _are_readable(sides: Sequence[Tokens], read: Read) -> bool:
    """Return whether no side is only words; the last side of such a chain is its value."""
    return not any(isinstance(read(side)[0], Words) for side in sides)


def _both_sides(sides: Sequence[Tokens], read: Read) -> Reading:
    operators = ("=",) * (len(sides) - 1)
    return (Relation(operators, read_each(sides, read)),)


def _is_identity(sides: Sequence[Tokens], read: Read) -> bool:
    """Return whether all sides have one value."""
    nodes = [_numeric_value(read(side)[0]) for side in sides]
    if None in nodes:
        return False
    return all(equal(left, right) for left, right in pairwise(nodes))


def _numeric_value(value: Value) -> Node | None:
    match value:
        case Formula(node):
            return node
        case Percentage(node):
            return operation("divide", node, whole(100))
    return None


def _membership(sides: Sequence[Tokens], operator: str, read: Read) -> Reading:
    """Return the set that a name is in; where that cannot be told, the relation itself."""
    named = name_of(sides[0])
    if named is None:
        return (Relation((operator,), read_each(sides, read)),)
    name, _ = named
    inside = read(sides[1])
    if operator == "in":
        if isinstance(inside[0], (RealSet, Items, Progression, Words)):
            return (Named(name, inside),)
        return (Relation((operator,), read_each(sides, read)),)
    excluded = _as_set(inside[0], operator)
    outside = None if excluded is None else sets.complement(excluded)
    if outside is None:
        return (Relation((operator,), read_each(sides, read)),)
    return (Named(name, (outside,)),)


def _as_set(value: Value, operator: str) -> RealSet | None:
    if operator == "!=" and isinstance(value, Formula):
        return sets.bounded(value.node, value.node, closed=(True, True))
    return as_real_set(value)


def _order(sides: Sequence[Tokens], operators: list[str], read: Read) -> Reading:
    """Return the set of an order of one variable; an order of several is a relation, too."""
    if all(operator in _FALLING for operator in operators):
        sides = sides[::-1]
        operators = [_TURNED[operator] for operator in reversed(operators)]
    found = _bounds(sides, operators, read) or _distance(sides, operators, read)
    if found and not _has_variable_bound(found):
        return found
    return (*found, Relation(tuple(operators), read_each(sides, read)))


def _has_variable_bound(found: Reading) -> bool:
    """Return whether a bound of a set has a variable: `y < 2x` is an order of both variables."""
    _, inside = named_set(found[0])
    for part in inside.parts:
        for node in (part.low.node, part.high.node):
            if node is not None and free_symbols(node):
                return True
    return False


def _bounds(sides: Sequence[Tokens], operators: Sequence[str], read: Read) -> Reading:
    """Return the interval of a name between bounds, as `1 < x < 2` and `x < 2`."""
    are_rising = all(operator in _RISING for operator in operators)
    if not are_rising or len(sides) > 3:
        return ()
    sides, operators = _turned_sign(sides, operators)
    has_low = len(sides) == 3 or not name_of(sides[0])
    place = 1 if has_low else 0
    has_high = place + 1 < len(sides)
    named = name_of(sides[place])
    if named is None:
        return ()
    name, may_be_dropped = named
    num_names = sum(bool(name_of(side)) for side in sides)
    if num_names > 1 and not is_variable(name):
        return ()
    low = only_formula(sides[place - 1], read) if has_low else None
    high = only_formula(sides[place + 1], read) if has_high else None
    if (has_low and low is None) or (has_high and high is None):
        return ()
    if name.startswith("|"):
        return ()
    inside = _between(low, high, operators)
    return (Named(name, (inside,), may_be_dropped),)


def _between(low: Node | None, high: Node | None, operators: Sequence[str]) -> RealSet:
    """Return the interval between bounds, of which None is no bound; an end at infinity is open."""
    is_low_closed = low is not None and operators[0] == "<=" and not infinity_sign(low)
    is_high_closed = high is not None and operators[-1] == "<=" and not infinity_sign(high)
    lowest = None if low is None else low_end(low)
    highest = None if high is None else high_end(high)
    return sets.bounded(lowest, highest, closed=(is_low_closed, is_high_closed))


def _turned_sign(sides: Sequence[Tokens], operators: Sequence[str]) -> tuple[Sequence[Tokens], Sequence[str]]:
    """Return `-x > -1` as `x < 1`: the name without its minus, and the bound negated."""
    if len(sides) != 2 or any(map(name_of, sides)):
        return sides, operators
    left, right = sides
    is_left_name = _is_negated_name(left)
    if is_left_name == _is_negated_name(right):
        return sides, operators
    if is_left_name:
        return [_negated(right), left[1:]], operators[::-1]
    return [right[1:], _negated(left)], operators[::-1]


def _is_negated_name(side: Tokens) -> bool:
    return side[0].text == "-" and bool(name_of(side[1:]))


def _negated(side: Tokens) -> Tokens:
    return (_MINUS, Token(OPEN, "("), *side, Token(CLOSE, ")"))


def _ring(sides: Sequence[Tokens], operators: Sequence[str], read: Read) -> Reading:
    """Return the set of an absolute value between two bounds, as `1 <= |x| <= 2`."""
    outer = _distance(sides[:2], operators[:1], read)
    inner = _distance(sides[1:], operators[1:], read)
    if not outer or not inner:
        return ()
    name, outside = named_set(outer[0])
    other_name, inside = named_set(inner[0])
    both = sets.intersection((outside, inside))
    if both is None or name != other_name:
        return ()
    return (Named(name, (both,)),)


def _distance(sides: Sequence[Tokens], operators: Sequence[str], read: Read) -> Reading:
    """Return the interval of `|x - 1| <= 2`, or the outside of one of `|x| > 3`."""
    if not all(sides):
        return ()
    if len(sides) == 3:
        return _ring(sides, operators, read)
    if len(sides) != 2:
        return ()
    is_inside = sides[0][0].text == "|"
    distance, limit = sides if is_inside else sides[::-1]
    around = _center(distance)
    bound = only_formula(limit, read)
    if around is None or bound is None or free_symbols(bound):
        return ()
    name, center = around
    low = operation("add", center, negative(bound))
    high = operation("add", center, bound)
    is_closed = operators[0] == "<="
    if is_inside:
        inside = sets.bounded(low, high, closed=(is_closed, is_closed))
        return (Named(name, (inside,)),)
    # The ends belong to the outside where they do not belong to the interval.
    excluded = sets.bounded(low, high, closed=(not is_closed, not is_closed))
    outside = sets.complement(excluded)
    return () if outside is None else (Named(name, (outside,)),)


def _center(tokens: Tokens) -> tuple[str, Node] | None:
    """Return `(x, a)` for `|x - a|`."""
    found = readings(tokens)
    match found[0] if found else None:
        case Operation("abs", (inner,)):
            return _shifted_variable(inner)
    return None


def _shifted_variable(node: Node) -> tuple[str, Node] | None:
    """Return `(x, a)` for `x - a`, and `(x, 0)` for `x` alone."""
    names = free_symbols(node)
    if len(names) != 1:
        return None
    (name,) = names
    match node:
        case Operation("add", (first, Number() as second)):
            if free_symbols(first) == names and not isinstance(first, Operation):
                return name, negative(second)
    if isinstance(node, Operation):
        return None
    return name, Number(Fraction(0))


def read_congruence(tokens: Tokens, read: Read) -> Reading:
    r"""Return a residue and its modulus, as `3 \pmod 7` and `3 (mod 7)`."""
    place = first_place_of(tokens, r"\pmod", r"\mod", "mod")
    start = place
    end = len(tokens)
    if place is None:
        place = _place_of_enclosed_mod(tokens)
        if place is None:
            return ()
        start = place - 1
        end -= 1
    if not place:
        return ()
    residue = only_formula(tokens[:start], read)
    modulus = only_formula(tokens[place + 1 : end], read)
    if residue is None or modulus is None:
        return ()
    return (Congruence(residue, modulus),)


def _place_of_enclosed_mod(tokens: Tokens) -> int | None:
    """Return the place of `mod` where it follows the opening bracket of tokens that end with a bracket."""
    if len(tokens) < 4 or tokens[-1].text != ")":
        return None
    for place, token in enumerate(tokens):
        if token.text in ("mod", r"\mod"):
            return place if place and tokens[place - 1].text == "(" else None
    return None


def _congruence_of(sides: Sequence[Tokens], read: Read) -> Reading:
    r"""Return the residue of a name, as `x \equiv 3 \pmod 7`."""
    named = name_of(sides[0])
    found = read_congruence(stripped(sides[1]), read)
    if not named or not found:
        return ()
    name, may_be_dropped = named
    return (Named(name, found, may_be_dropped),)
