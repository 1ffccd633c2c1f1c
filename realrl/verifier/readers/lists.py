"""Reads lists: members with commas, words or spaces between them, systems of equations, lists with dots.

tokens ─▶ members (list_members.py) ─▶ without ranges (ranges.py) ─▶ one condition, or a list
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

from realrl.verifier import sets, units
from realrl.verifier.nodes import Node, Number, free_symbols, operation
from realrl.verifier.readers.common import Read, as_words, read_each, scaled
from realrl.verifier.readers.list_members import cut_into_members
from realrl.verifier.readers.ranges import without_ranges
from realrl.verifier.readers.real_sets import joined_pieces, named_set, sets_of_one_name
from realrl.verifier.slices import cut, cut_at, has_text, is_separator, is_word, parts_from
from realrl.verifier.tokens import NUMBER, Token, Tokens
from realrl.verifier.tree import (
    Formula,
    Interval,
    Items,
    Named,
    Progression,
    Quantity,
    Reading,
    RealSet,
    Unit,
    Value,
)

MAX_MEMBERS = 100
"""The largest number of members of a list that is read; a longer one is text."""
MAX_CONDITIONS = 12
"""The largest number of conditions on a variable that are combined."""
MODULI = (r"\pmod", r"\mod", "mod")
"""The words and commands before a modulus."""
_ALIGNING_ENVIRONMENTS = ("aligned", "align", "align*", "gathered", "split")
_ALIGNED = tuple((rf"\begin {name}", rf"\end {name}") for name in _ALIGNING_ENVIRONMENTS)
_CASES = (r"\begin cases", r"\end cases")
_MIN_SYSTEM_TOKENS = 4
"""The number of tokens of the shortest system: its two ends, and two tokens inside."""
_MAX_SMALLER_UNITS = 3
"""The largest number of smaller units after the first: days, hours, minutes and seconds."""


def read_system(tokens: Tokens, read: Read) -> Reading:
    r"""Return the equations in the rows of `\begin{cases}` or `\begin{aligned}`."""
    if len(tokens) < _MIN_SYSTEM_TOKENS:
        return ()
    begin = tokens[0].text
    end = tokens[-1].text
    inside = tokens[1:-1]
    if (begin, end) in _ALIGNED:
        inside = tuple(token for token in inside if token.text != "&")
    elif (begin, end) != _CASES or has_text(inside, "&"):
        return ()
    rows, _ = cut_at(inside, r"\\")
    equations = read_each(filter(None, rows), read)
    return (Items(",", equations),)


def read_list(tokens: Tokens, read: Read) -> Reading:
    """Return a list, or the one value that several parts together mean."""
    found = _list_of_lists(tokens, read) or _residues(tokens, read)
    if found:
        return found
    parts, joints = cut_into_members(tokens)
    if len(parts) < 2:
        is_list_of_one = bool(parts and joints)
        if is_list_of_one:
            return read(parts[0])
        return _run_of_quantities(tokens, read)
    if len(parts) > MAX_MEMBERS:
        return (as_words(tokens),)
    if any(map(is_dots, parts)):
        return read_progression(parts, ",", read)
    members = list(map(read, parts))
    is_choice = any(map(_means_or, joints))
    if not is_choice:
        members = without_ranges(members)
    if len(members) == 1:
        return members[0]
    condition = _conditions(members, is_choice)
    return condition or _items(members, is_choice, tokens)


def _means_or(joint: Token) -> bool:
    if joint.text.lower() == "or":
        return True
    return joint.text == r"\lor"


def _items(members: Sequence[Reading], is_choice: bool, tokens: Tokens) -> Reading:
    """Return several members as a list, and as one quantity if they are one."""
    flat: list[Reading] = []
    for member in members:
        flat.extend(members_of(member))
    kind = "or" if is_choice else ","
    items = Items(kind, tuple(flat), _decimal_comma(tokens))
    if is_choice:
        return (items,)
    return (items, *_compound(members))


def _list_of_lists(tokens: Tokens, read: Read) -> Reading:
    """Return a list of lists of one length, as `x = 1, y = 2; x = 3, y = 4`."""
    parts, joints = cut_at(tokens, ";")
    if not joints:
        parts, joints = cut_at(tokens, "or", r"\lor")
    if not joints:
        return ()
    lengths = set()
    for part in parts:
        inner, _ = cut_at(part, ",")
        lengths.add(len(inner))
    if len(lengths) != 1 or lengths == {1}:
        return ()
    lists = read_each(parts, read)
    return (Items(",", lists),)


def _residues(tokens: Tokens, read: Read) -> Reading:
    r"""Return several residues of one modulus, as `n \equiv 1, 4 \pmod 5`."""
    sides, joints = cut_at(tokens, r"\equiv")
    if len(joints) != 1:
        return ()
    left, right = sides
    start = _start_of_modulus(right)
    if start is None:
        return ()
    residues, commas = cut(right[:start], is_separator)
    if not commas or not all(residues):
        return ()
    modulus = right[start:]
    items: list[Reading] = []
    for residue in residues:
        congruence = (*left, *joints, *residue, *modulus)
        items.append(read(congruence))
    return (Items(",", tuple(items)),)


def _start_of_modulus(tokens: Tokens) -> int | None:
    """Return the place of the only `mod` after a residue, or of the bracket before it; else None."""
    places = [place for place, token in enumerate(tokens) if token.text in MODULI]
    if len(places) != 1:
        return None
    (place,) = places
    if place == 0:
        return None
    if tokens[place - 1].text == "(":
        return place - 1
    return place


def members_of(member: Reading) -> tuple[Reading, ...]:
    r"""Return the members of a bare list in a list, as of `\pm 1`; any other member alone."""
    value = member[0]
    has_other_meanings = len(member) > 1
    if has_other_meanings or not isinstance(value, Items):
        return (member,)
    if value.kind != ",":
        return (member,)
    return value.items


def _conditions(members: Sequence[Reading], is_choice: bool) -> Reading:
    """Return the set that several bounds of one variable mean together: `x > 1` and `x < 2`.

    A comma means the intersection if it is not empty.
    """
    if len(members) > MAX_CONDITIONS:
        return ()
    named_sets = [named_set(member[0]) for member in members]
    if is_choice and any(named_sets):
        named_sets = [named or _point(member[0]) for named, member in zip(named_sets, members, strict=True)]
    found = sets_of_one_name(named_sets)
    if found is None:
        return ()
    name, parts = found
    if not is_choice and all(map(_is_bound, parts)):
        both = sets.intersection(parts)
        if both is not None and both.parts:
            return (Named(name, (both,)),)
    pieces = joined_pieces(parts)
    union = sets.merged(pieces)
    # Sets that overlap are alternatives, of which only one may be right.
    if len(union.parts) != len(pieces.parts):
        return ()
    return (Named(name, (union,)),)


def _point(value: Value) -> tuple[str, RealSet] | None:
    """Return the set of one number that a name is equal to: `x = 0` next to `x > 2`."""
    if not isinstance(value, Named):
        return None
    inside = value.value[0]
    if not isinstance(inside, Formula) or free_symbols(inside.node):
        return None
    return value.name, sets.bounded(inside.node, inside.node, closed=(True, True))


def _is_bound(found: RealSet) -> bool:
    r"""Return whether a set is a ray, as of `x > 1`, or the line without some points, as of `x \ne 1`."""
    if not found.parts:
        return False
    has_least = found.parts[0].low.node is not None
    has_largest = found.parts[-1].high.node is not None
    if len(found.parts) == 1 and has_least != has_largest:
        return True
    if has_least or has_largest:
        return False
    return all(map(_have_one_point_between, found.parts, found.parts[1:]))


def _have_one_point_between(left: Interval, right: Interval) -> bool:
    return left.high.node == right.low.node


def _compound(members: Sequence[Reading]) -> Reading:
    """Return one quantity from several of one kind whose units become smaller: `1 hour 30 minutes`."""
    quantities: list[Quantity] = []
    for member in members:
        quantity = _first_quantity(member)
        if quantity is None or not quantity.unit.is_known:
            return ()
        quantities.append(quantity)
    found_units = [quantity.unit for quantity in quantities]
    for larger, smaller in pairwise(found_units):
        if not units.same_kind(larger, smaller):
            return ()
        if larger.factor <= smaller.factor:
            return ()
    largest = _in_unit(found_units[0], quantities)
    smallest = _in_unit(found_units[-1], quantities)
    return (largest, smallest)


def _first_quantity(member: Reading) -> Quantity | None:
    for value in member:
        if isinstance(value, Quantity):
            return value
    return None


def _in_unit(unit: Unit, quantities: Sequence[Quantity]) -> Quantity:
    """Return the sum of quantities in one unit."""
    terms: list[Node] = []
    for quantity in quantities:
        factor = quantity.unit.factor / unit.factor
        terms.append(scaled(quantity.node, factor))
    total = operation("add", *terms)
    return Quantity(total, unit)


def _run_of_quantities(tokens: Tokens, read: Read) -> Reading:
    """Return one quantity from several with no sign between them, as `1 hour 30 minutes`."""
    starts = []
    for place, (before, token) in enumerate(pairwise(tokens), 1):
        if token.kind == NUMBER and is_word(before):
            starts.append(place)
    if not 1 <= len(starts) <= _MAX_SMALLER_UNITS:
        return ()
    if tokens[0].kind != NUMBER:
        return ()
    parts = parts_from(tokens, [0, *starts])
    return _compound(read_each(parts, read))


def _decimal_comma(tokens: Tokens) -> Number | None:
    """Return `2,74` as 2.74, which it is where a comma precedes decimals."""
    is_negative = bool(tokens) and tokens[0].text == "-"
    unsigned = tokens[1:] if is_negative else tokens
    if len(unsigned) != 3:
        return None
    whole, comma, decimals = unsigned
    if comma.text != "," or decimals.after_space:
        return None
    if not whole.text.isdigit():
        return None
    if not decimals.text.isdigit():
        return None
    num_decimals = len(decimals.text)
    digits = int(whole.text + decimals.text)
    value = Fraction(digits, 10**num_decimals)
    return Number(-value if is_negative else value, num_decimals)


def is_dots(tokens: Tokens) -> bool:
    """Return whether tokens are dots that replace members of a list."""
    if len(tokens) != 1:
        return False
    return tokens[0].text in (r"\ldots", r"\cdots")


def read_progression(parts: Sequence[Tokens], kind: str, read: Read) -> Reading:
    """Return a list in which dots replace some members, which the first and last members determine."""
    places = [place for place, part in enumerate(parts) if is_dots(part)]
    if len(places) != 1:
        return ()
    (place,) = places
    if place == 0:
        return ()
    first = read_each(parts[:place], read)
    last = read_each(parts[place + 1 :], read)
    return (Progression(kind, first, last),)
