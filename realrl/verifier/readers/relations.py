"""Reads what relates two sides: equations, orders, memberships."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from realrl.verifier import sets
from realrl.verifier.equality import equal
from realrl.verifier.grammar import readings
from realrl.verifier.names import is_one_thing, is_variable, name_of
from realrl.verifier.nodes import Node, Number, Operation, free_symbols, negative, operation, whole
from realrl.verifier.readers.common import Read, only_formula
from realrl.verifier.readers.edges import stripped
from realrl.verifier.readers.real_sets import as_real_set, high_end, infinity_sign, low_end, named_set
from realrl.verifier.slices import cut, first_place
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
    **{"=": "=", "<": "<", ">": ">", r"\le": "<=", r"\ge": ">=", r"\ne": "!=", r"\approx": "~", r"\sim": "~"},
    **{r"\in": "in", r"\notin": "not in", r"\equiv": "mod", r"\simeq": "~", r"\cong": "~"},
}
_ORDERS = ("<", ">", "<=", ">=")
_TURNED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}


def read_relation(tokens: Tokens, read: Read) -> Reading:
    if found := _union_of_orders(tokens, read):
        return found
    sides, joints = cut(tokens, lambda token: token.kind in (SIGN, COMMAND) and token.text in _RELATIONS)
    operators = [_RELATIONS[joint.text] for joint in joints]
    if not operators:
        return ()
    if not all(sides):
        return _half_relation(sides, operators, read)
    if "~" in operators:
        return _approximation(sides, operators, read)
    if set(operators) == {"="}:
        return _equation(sides, read)
    if operators == ["mod"]:
        return _congruence_of(sides, read)
    if len(operators) == 1 and operators[0] in ("in", "not in", "!="):
        return _membership(sides, operators[0], read)
    if set(operators) <= set(_ORDERS):
        return _order(sides, operators, read)
    return ()


def _union_of_orders(tokens: Tokens, read: Read) -> Reading:
    r"""`-3 < k < 0 \cup k > 2`."""
    parts, joints = cut(tokens, lambda token: token.text == r"\cup")
    if not joints or not all(parts):
        return ()
    found = [named_set(read(part)[0]) for part in parts]
    if any(each is None or not each[0] for each in found) or len({name for name, _ in found}) != 1:
        return ()
    return (Named(found[0][0], (RealSet(tuple(part for _, each in found for part in each.parts)),)),)


def _half_relation(sides: Sequence[Tokens], operators: Sequence[str], read: Read) -> Reading:
    """`> 5` are the numbers above it."""
    if len(sides) == 2 and not sides[0] and operators[0] in _ORDERS:
        node = only_formula(sides[1], read)
        return () if node is None else (ray(operators[0], node),)
    return ()


def ray(operator: str, node: Node) -> RealSet:
    is_closed = operator in ("<=", ">=")
    if operator in ("<", "<="):
        return sets.bounded(None, node, closed=(False, is_closed))
    return sets.bounded(node, None, closed=(is_closed, False))


def _approximation(sides: Sequence[Tokens], operators: Sequence[str], read: Read) -> Reading:
    r"""What is before `\approx`, and of a name what it is about."""
    place = operators.index("~")
    if place == 0 and name_of(sides[0]):
        name, may_be_dropped = name_of(sides[0])
        return (Named(name, read(sides[1]), may_be_dropped),)
    if place == 0:
        return read(sides[0])
    return _equation(sides[: place + 1], read) if set(operators[:place]) == {"="} else ()


def _equation(sides: Sequence[Tokens], read: Read) -> Reading:
    named = name_of(sides[0])
    if named and (named[1] or len(sides) == 2) and _are_readable(sides[1:-1], read):
        return _named(named, read(sides[-1]), sides, read)
    named = name_of(sides[1]) if len(sides) == 2 else None
    if named:
        return _named(named, read(sides[0]), sides, read)
    if len(sides) > 2 and any(name_of(side) for side in sides):
        return read(sides[-1]) if _are_readable(sides, read) else ()
    return read(sides[-1]) if _is_identity(sides, read) else _both_sides(sides, read)


def _named(named: tuple[str, bool], value: Reading, sides: Sequence[Tokens], read: Read) -> Reading:
    """A value with its name; with variables in it, or of more than one thing, it is an equation, too."""
    name, may_be_dropped = named
    is_equation = not is_one_thing(name)
    is_equation |= any(isinstance(meaning, Formula) and free_symbols(meaning.node) for meaning in value)
    said = Named(name, value, may_be_dropped, is_one_thing(name))
    return (said, *(_both_sides(sides, read) if is_equation else ()))


def _are_readable(sides: Sequence[Tokens], read: Read) -> bool:
    """Whether all sides are formulas, or the like: of a chain of these the last one counts."""
    return not any(isinstance(read(side)[0], Words) for side in sides)


def _both_sides(sides: Sequence[Tokens], read: Read) -> Reading:
    return (Relation(("=",) * (len(sides) - 1), tuple(map(read, sides))),)


def _is_identity(sides: Sequence[Tokens], read: Read) -> bool:
    """Whether all sides have one value."""
    nodes = [_worth(read(side)[0]) for side in sides]
    return None not in nodes and all(equal(left, right) for left, right in zip(nodes, nodes[1:]))


def _worth(value: Value) -> Node | None:
    match value:
        case Formula(node):
            return node
        case Percentage(node):
            return operation("divide", node, whole(100))
    return None


def _membership(sides: Sequence[Tokens], operator: str, read: Read) -> Reading:
    named = name_of(sides[0])
    if named is None:
        return (Relation((operator,), tuple(map(read, sides))),)
    inside = read(sides[1])
    if operator == "in" and isinstance(inside[0], (RealSet, Items, Progression, Words)):
        return (Named(named[0], inside),)
    if operator == "in":
        return (Relation((operator,), tuple(map(read, sides))),)
    excluded = _as_set(inside[0], operator)
    outside = None if excluded is None else sets.complement(excluded)
    if outside is None:
        return (Relation((operator,), tuple(map(read, sides))),)
    return (Named(named[0], (outside,)),)


def _as_set(value: Value, operator: str) -> RealSet | None:
    if operator == "!=" and isinstance(value, Formula):
        return sets.bounded(value.node, value.node, closed=(True, True))
    return as_real_set(value)


def _order(sides: Sequence[Tokens], operators: list[str], read: Read) -> Reading:
    if all(operator in (">", ">=") for operator in operators):
        sides, operators = sides[::-1], [_TURNED[operator] for operator in reversed(operators)]
    found = _bounds(sides, operators, read) or _distance(sides, operators, read)
    if found and not _has_variable_bound(found):
        return found
    return (*found, Relation(tuple(operators), tuple(map(read, sides))))


def _has_variable_bound(found: Reading) -> bool:
    """Whether a set is that of one variable by another: `y < 2x` is an order of both."""
    inside = named_set(found[0])
    ends = [end.node for part in inside[1].parts for end in (part.low, part.high)]
    return any(free_symbols(node) for node in ends if node is not None)


def _bounds(sides: Sequence[Tokens], operators: Sequence[str], read: Read) -> Reading:
    """`1 < x < 2` and `x < 2`: an interval of what has a name."""
    if not all(operator in ("<", "<=") for operator in operators) or len(sides) > 3:
        return ()
    sides, operators = _turned_sign(sides, operators)
    middle = 1 if len(sides) == 3 or not name_of(sides[0]) else 0
    named = name_of(sides[middle])
    if named is None or sum(bool(name_of(side)) for side in sides) > 1 and not is_variable(named[0]):
        return ()
    low = _bound(sides[middle - 1], read) if middle else None
    high = _bound(sides[middle + 1], read) if middle + 1 < len(sides) else None
    if (middle and low is None) or (middle + 1 < len(sides) and high is None):
        return ()
    closed = (
        operators[0] == "<=" and middle == 1 and not infinity_sign(low),
        operators[-1] == "<=" and middle + 1 < len(sides) and not infinity_sign(high),
    )
    if named[0].startswith("|"):
        return ()
    inside = sets.bounded(low and low_end(low), high and high_end(high), closed=closed)
    return (Named(named[0], (inside,), named[1]),)


def _bound(tokens: Tokens, read: Read) -> Node | None:
    return only_formula(tokens, read)


def _turned_sign(sides: Sequence[Tokens], operators: Sequence[str]) -> tuple[Sequence[Tokens], Sequence[str]]:
    """`-x > -1` as `x < 1`: a name with a minus, and the bounds with theirs."""
    is_turned = [side[0].text == "-" and bool(name_of(side[1:])) for side in sides]
    if len(sides) != 2 or sum(is_turned) != 1 or any(name_of(side) for side in sides):
        return sides, operators
    minus = Token(SIGN, "-")
    turned = [
        side[1:] if turns else (minus, Token(OPEN, "("), *side, Token(CLOSE, ")"))
        for side, turns in zip(sides, is_turned, strict=True)
    ]
    return turned[::-1], operators[::-1]


def _ring(sides: Sequence[Tokens], operators: Sequence[str], read: Read) -> Reading:
    """`1 <= |x| <= 2`."""
    bounds = [_distance(sides[:2], operators[:1], read), _distance(sides[1:], operators[1:], read)]
    if not all(bounds):
        return ()
    (name, first), (other, second) = (named_set(bound[0]) for bound in bounds)
    both = sets.intersection((first, second))
    return (Named(name, (both,)),) if both is not None and name == other else ()


def _distance(sides: Sequence[Tokens], operators: Sequence[str], read: Read) -> Reading:
    """`|x - 1| <= 2` and `|x| > 3`: an interval around a number, or what is outside of it."""
    if len(sides) == 3:
        return _ring(sides, operators, read) if all(sides) else ()
    if len(sides) != 2 or not all(sides):
        return ()
    inner_side = 0 if sides[0][0].text == "|" else 1
    around, bound = _center(sides[inner_side]), only_formula(sides[1 - inner_side], read)
    if around is None or bound is None or free_symbols(bound):
        return ()
    name, center = around
    low, high = operation("add", center, negative(bound)), operation("add", center, bound)
    is_closed = operators[0] == "<="
    inside = sets.bounded(low, high, closed=(is_closed, is_closed))
    if inner_side == 0:
        return (Named(name, (inside,)),)
    outside = sets.complement(sets.bounded(low, high, closed=(not is_closed, not is_closed)))
    return () if outside is None else (Named(name, (outside,)),)


def _center(tokens: Tokens) -> tuple[str, Node] | None:
    """`(x, a)` of `|x - a|`."""
    found = readings(tokens)
    match found[0] if found else None:
        case Operation("abs", (inner,)):
            names = free_symbols(inner)
            if len(names) != 1:
                return None
            (name,) = names
            match inner:
                case Operation("add", (first, Number() as second)) if free_symbols(
                    first
                ) == names and not _has_parts(first):
                    return name, negative(second)
            return (name, Number(Fraction(0))) if not _has_parts(inner) else None
    return None


def _has_parts(node: Node) -> bool:
    return isinstance(node, Operation)


def read_congruence(tokens: Tokens, read: Read) -> Reading:
    place = first_place(tokens, lambda token: token.text in (r"\pmod", r"\mod") or token.text == "mod")
    start = place
    if place is None and len(tokens) > 3 and tokens[-1].text == ")":
        inner = next((i for i, token in enumerate(tokens) if token.text in ("mod", r"\mod")), None)
        if inner and tokens[inner - 1].text == "(":
            place, start = inner, inner - 1
    if not place:
        return ()
    end = len(tokens) - (start != place)
    residue, modulus = only_formula(tokens[:start], read), only_formula(tokens[place + 1 : end], read)
    return () if residue is None or modulus is None else (Congruence(residue, modulus),)


def _congruence_of(sides: Sequence[Tokens], read: Read) -> Reading:
    r"""`x \equiv 3 \pmod 7`."""
    named, found = name_of(sides[0]), read_congruence(stripped(sides[1]), read)
    return (Named(named[0], found, named[1]),) if named and found else ()
