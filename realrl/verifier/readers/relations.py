"""Reads relations of two sides or more: equations, orders, memberships and congruences."""

from __future__ import annotations

from collections.abc import Sequence

from realrl.verifier import sets, units
from realrl.verifier.amounts import same_number
from realrl.verifier.equality import equal
from realrl.verifier.names import Name, is_one_thing, name_of
from realrl.verifier.nodes import Node, free_symbols, operation, whole
from realrl.verifier.readers.common import Read, only_formula, read_each
from realrl.verifier.readers.edges import stripped
from realrl.verifier.readers.lists import MODULI
from realrl.verifier.readers.orders import ORDERS, ray, read_order
from realrl.verifier.readers.real_sets import as_real_set, joined_pieces, named_set, sets_of_one_name
from realrl.verifier.slices import cut, cut_at, first_place_of
from realrl.verifier.tokens import COMMAND, SIGN, Token, Tokens
from realrl.verifier.tree import (
    Congruence,
    Formula,
    Items,
    Named,
    Percentage,
    Progression,
    Quantity,
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
"""The operator that each sign or command of a relation means."""
_MIN_ENCLOSED_MOD = 4
"""The number of tokens of the shortest modulus in brackets, `(mod 7)`."""


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
    if token.kind not in (SIGN, COMMAND):
        return False
    return token.text in _RELATIONS


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
    if kinds.issubset(ORDERS):
        return read_order(sides, operators, read)
    return ()


def _union_of_orders(tokens: Tokens, read: Read) -> Reading:
    r"""Return the union of orders of one variable, as `-3 < k < 0 \cup k > 2`."""
    parts, joints = cut_at(tokens, r"\cup")
    if not joints or not all(parts):
        return ()
    named_sets = [named_set(read(part)[0]) for part in parts]
    named = sets_of_one_name(named_sets)
    if named is None:
        return ()
    name, found = named
    union = joined_pieces(found)
    return (Named(name, (union,)),)


def _half_relation(sides: Sequence[Tokens], operators: Sequence[str], read: Read) -> Reading:
    """Return the numbers above or below a bound, as `> 5` says."""
    if len(sides) != 2 or sides[0]:
        return ()
    (operator,) = operators
    if operator not in ORDERS:
        return ()
    node = only_formula(sides[1], read)
    if node is None:
        return ()
    return (ray(operator, node),)


def _approximation(sides: Sequence[Tokens], operators: Sequence[str], read: Read) -> Reading:
    r"""Return the exact value before `\approx`; for a name there, the value after it."""
    place = operators.index("~")
    if place == 0:
        name = name_of(sides[0])
        if name is None:
            return read(sides[0])
        value = read(sides[1])
        return (Named(name.text, value, name.may_be_dropped),)
    if set(operators[:place]) != {"="}:
        return ()
    return _equation(sides[: place + 1], read)


def _equation(sides: Sequence[Tokens], read: Read) -> Reading:
    """Return the value that an equation gives to a name, or the value of its last side, or the equation."""
    has_two_sides = len(sides) == 2
    first = sides[0]
    last = sides[-1]
    name = name_of(first)
    if name is not None and (name.may_be_dropped or has_two_sides):
        if _are_readable(sides[1:-1], read):
            return _named(name, read(last), sides, read)
    if has_two_sides:
        name = name_of(last)
        if name is not None:
            return _named(name, read(first), sides, read)
    elif any(map(name_of, sides)):
        if _are_readable(sides, read):
            return read(last)
        return ()
    if _is_identity(sides, read) or _is_conversion(sides, read):
        return read(last)
    return _all_sides(sides, read)


def _named(name: Name, value: Reading, sides: Sequence[Tokens], read: Read) -> Reading:
    """Return a value with its name.

    A value with variables, or a name of more than one thing, may be meant as an equation, too.
    """
    is_single = is_one_thing(name.text)
    said = Named(name.text, value, name.may_be_dropped, is_single)
    if is_single and not _has_variables(value):
        return (said,)
    return (said, *_all_sides(sides, read))


def _has_variables(value: Reading) -> bool:
    for meaning in value:
        if isinstance(meaning, Formula) and free_symbols(meaning.node):
            return True
    return False


def _are_readable(sides: Sequence[Tokens], read: Read) -> bool:
    """Return whether no side is only words; the last side of such a chain is its value."""
    for side in sides:
        if isinstance(read(side)[0], Words) and not _is_symbol(side):
            return False
    return True


def _is_symbol(tokens: Tokens) -> bool:
    r"""Return whether tokens are one command without a meaning, which can only be a name: `\star`."""
    return len(tokens) == 1 and tokens[0].kind == COMMAND


def _all_sides(sides: Sequence[Tokens], read: Read) -> Reading:
    """Return an equation as a relation of its sides."""
    operators = ("=",) * (len(sides) - 1)
    return (Relation(operators, read_each(sides, read)),)


def _is_identity(sides: Sequence[Tokens], read: Read) -> bool:
    """Return whether all sides have one value."""
    values = [read(side)[0] for side in sides]
    nodes: list[Node] = []
    for value in values:
        node = _numeric_value(value)
        if node is None:
            return False
        nodes.append(node)
    return all(map(equal, nodes, nodes[1:]))


def _is_conversion(sides: Sequence[Tokens], read: Read) -> bool:
    """Return whether an equation says what an amount is in other units: `3 euros = 4 dollars`.

    Amounts of one kind must be equal. A bare number may be the worth of an amount: `3 tickets = 12`.
    """
    if len(sides) != 2:
        return False
    amount, worth = (_measured(read(side)) for side in sides)
    if not isinstance(amount, Quantity) or worth is None:
        return False
    if isinstance(worth, Quantity) and units.same_kind(amount.unit, worth.unit):
        return same_number(amount, worth)
    return True


def _measured(reading: Reading) -> Quantity | Formula | None:
    """Return the amount that a reading may be, or its number; None if it has variables or is neither."""
    for value in reading:
        if isinstance(value, Quantity) and not free_symbols(value.node):
            return value
    first = reading[0]
    if isinstance(first, Formula) and not free_symbols(first.node):
        return first
    return None


def _numeric_value(value: Value) -> Node | None:
    """Return a number or a percentage as a formula; None for any other value."""
    match value:
        case Formula(node):
            return node
        case Percentage(node):
            return operation("divide", node, whole(100))
    return None


def _membership(sides: Sequence[Tokens], operator: str, read: Read) -> Reading:
    """Return the set that contains a name's value; the relation itself if the set is unknown."""
    name = name_of(sides[0])
    if name is not None:
        inside = read(sides[1])
        found = _values_in(inside, operator)
        if found is not None:
            return (Named(name.text, found),)
    return (Relation((operator,), read_each(sides, read)),)


def _values_in(inside: Reading, operator: str) -> Reading | None:
    """Return the values that are in a set, or outside it, as the operator says; None if they are unknown."""
    value = inside[0]
    if operator == "in":
        is_set = isinstance(value, (RealSet, Items, Progression, Words))
        return inside if is_set else None
    if operator == "!=" and isinstance(value, Formula):
        excluded: RealSet | None = sets.bounded(value.node, value.node, closed=(True, True))
    else:
        excluded = as_real_set(value)
    outside = None if excluded is None else sets.complement(excluded)
    if outside is None:
        return None
    return (outside,)


def read_congruence(tokens: Tokens, read: Read) -> Reading:
    r"""Return a residue and its modulus, as `3 \pmod 7` and `3 (mod 7)`."""
    split = _at_mod(tokens)
    if split is None:
        return ()
    before, after = split
    residue = only_formula(before, read)
    modulus = only_formula(after, read)
    if residue is None or modulus is None:
        return ()
    return (Congruence(residue, modulus),)


def _at_mod(tokens: Tokens) -> tuple[Tokens, Tokens] | None:
    """Return the tokens before and after `mod`, which may be in brackets with its modulus; else None."""
    place = first_place_of(tokens, *MODULI)
    if place is not None:
        after = tokens[place + 1 :]
        # A second modulus is no part of a formula. Reading it would take time for each that follows.
        if place and first_place_of(after, *MODULI) is None:
            return (tokens[:place], after)
        return None
    if len(tokens) < _MIN_ENCLOSED_MOD:
        return None
    if tokens[-1].text != ")":
        return None
    places = [place for place, token in enumerate(tokens) if token.text in ("mod", r"\mod")]
    if not places or places[0] == 0:
        return None
    place = places[0]
    if tokens[place - 1].text != "(":
        return None
    return tokens[: place - 1], tokens[place + 1 : -1]


def _congruence_of(sides: Sequence[Tokens], read: Read) -> Reading:
    r"""Return the residue of a name, as `x \equiv 3 \pmod 7`."""
    name = name_of(sides[0])
    found = read_congruence(stripped(sides[1]), read)
    if name is None or not found:
        return ()
    return (Named(name.text, found, name.may_be_dropped),)
