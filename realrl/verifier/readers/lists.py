"""Reads lists: members with commas, words or spaces between them, systems of equations, lists with dots."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

from realrl.verifier import sets, units
from realrl.verifier.nodes import Node, Number, free_symbols, operation
from realrl.verifier.readers.common import Read, as_words, read_each, scaled
from realrl.verifier.readers.real_sets import joined_pieces, named_set, sets_of_one_name
from realrl.verifier.slices import cut, cut_at, has_text, is_apart, is_separator, is_word, parts_from
from realrl.verifier.tokens import LETTERS, NUMBER, SIGN, TEXT, Token, Tokens
from realrl.verifier.tree import (
    Family,
    Formula,
    Items,
    Named,
    Progression,
    Quantity,
    Reading,
    RealSet,
    Relation,
    Unit,
    Value,
    Words,
)

MAX_MEMBERS = 100
"""The largest number of members of a list that is read; a longer one is text."""
MAX_CONDITIONS = 12
"""The largest number of conditions on a variable that are combined."""
MODULI = (r"\pmod", r"\mod", "mod")
_PARTS = "abcdefgh"
"""The letters that mark the parts of an answer: `(a) 1 (b) 2`."""
_ALIGNING_ENVIRONMENTS = ("aligned", "align", "align*", "gathered", "split")
_ALIGNED = tuple((rf"\begin {name}", rf"\end {name}") for name in _ALIGNING_ENVIRONMENTS)
_CASES = (r"\begin cases", r"\end cases")
_MAX_SMALLER_UNITS = 3
"""The largest number of smaller units behind the first: days, hours, minutes and seconds."""


def read_system(tokens: Tokens, read: Read) -> Reading:
    r"""Return the equations in the rows of `\begin{cases}` or `\begin{aligned}`."""
    if len(tokens) < 4:
        return ()
    environment = (tokens[0].text, tokens[-1].text)
    inside = tokens[1:-1]
    if environment in _ALIGNED:
        inside = tuple(token for token in inside if token.text != "&")
    elif environment != _CASES or has_text(inside, "&"):
        return ()
    rows, _ = cut_at(inside, r"\\")
    filled = [row for row in rows if row]
    return (Items(",", read_each(filled, read)),)


def read_list(tokens: Tokens, read: Read) -> Reading:
    """Return a list, or the one value that several parts together mean."""
    found = _list_of_lists(tokens, read) or _residues(tokens, read)
    if found:
        return found
    parts, joints = _members(tokens)
    if len(parts) < 2:
        is_list_of_one = bool(parts and joints)
        return read(parts[0]) if is_list_of_one else _run_of_quantities(tokens, read)
    if len(parts) > MAX_MEMBERS:
        return (as_words(tokens),)
    if any(is_dots(part) for part in parts):
        return read_progression(parts, ",", read)
    members = [read(part) for part in parts]
    is_choice = any(_means_or(joint) for joint in joints)
    if not is_choice:
        members = _without_ranges(members)
    if len(members) == 1:
        return members[0]
    return _conditions(members, is_choice) or _items(members, is_choice, tokens)


def _means_or(joint: Token) -> bool:
    return joint.text.lower() == "or" or joint.text == r"\lor"


def _items(members: Sequence[Reading], is_choice: bool, tokens: Tokens) -> Reading:
    """Return several members as a list, and as one quantity if they are one."""
    flat: list[Reading] = []
    for member in members:
        flat.extend(members_of(member))
    decimal = _decimal_comma(tokens)
    if is_choice:
        return (Items("or", tuple(flat), decimal),)
    return (Items(",", tuple(flat), decimal), *_compound(members))


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
    return (Items(",", read_each(parts, read)),)


def _residues(tokens: Tokens, read: Read) -> Reading:
    r"""Return several residues of one modulus, as `n \equiv 1, 4 \pmod 5`."""
    sides, joints = cut_at(tokens, r"\equiv")
    if len(joints) != 1:
        return ()
    left, right = sides
    places = [place for place, token in enumerate(right) if token.text in MODULI]
    if len(places) != 1 or places[0] == 0:
        return ()
    end = places[0]
    if right[end - 1].text == "(":
        end -= 1
    residues, commas = cut(right[:end], is_separator)
    if not commas or not all(residues):
        return ()
    modulus = right[end:]
    congruences = [(*left, joints[0], *residue, *modulus) for residue in residues]
    return (Items(",", read_each(congruences, read)),)


def _members(tokens: Tokens) -> tuple[list[Tokens], list[Token]]:
    """Return the members of a list, without empty ones, and the tokens between them."""
    parts, joints = cut(tokens, is_separator)
    found: list[Tokens] = []
    for part in _without_marks(parts):
        found += _lettered(part) or _equations(part) or _spaced(part)
    if not joints and len(found) > 1:
        # Members that only a space separates are a list with commas.
        joints = [Token(SIGN, ",")]
    members = [part for part in found if part]
    return members, joints


def _spaced(tokens: Tokens) -> Iterator[Tokens]:
    """Cut between numbers with a space between them, except where a mixed number begins."""
    start = 0
    for place in range(1, len(tokens)):
        is_mixed = place + 1 < len(tokens) and tokens[place + 1].text == "/"
        if is_apart(tokens, place) and not is_mixed:
            yield tokens[start:place]
            start = place
    yield tokens[start:]


def _lettered(tokens: Tokens) -> list[Tokens]:
    """Return the parts of `(a) 1 (b) 2`, without their marks."""
    marks = [place for place in range(len(tokens) - 2) if _is_mark(tokens[place : place + 3])]
    if len(marks) < 2 or marks[0] != 0:
        return []
    letters = "".join(tokens[place + 1].text for place in marks)
    if not _PARTS.startswith(letters):
        return []
    return [part[3:] for part in parts_from(tokens, marks)]


def _without_marks(parts: list[Tokens]) -> list[Tokens]:
    """Return parts without the marks of `(a) 1, (b) 2`."""
    if len(parts) < 2:
        return parts
    marked = [part for part in parts if len(part) > 3 and _is_mark(part[:3])]
    letters = "".join(part[1].text for part in marked)
    is_marked = len(letters) == len(parts) and _PARTS.startswith(letters)
    return [part[3:] for part in parts] if is_marked else parts


def _equations(tokens: Tokens) -> list[Tokens]:
    """Return the equations of `x = 1  y = 2`, with a space before each name."""
    starts = [place for place in range(2, len(tokens) - 1) if _begins_equation(tokens, place)]
    if not starts or tokens[0].kind != LETTERS or tokens[1].text != "=":
        return []
    return parts_from(tokens, [0, *starts])


def _begins_equation(tokens: Tokens, place: int) -> bool:
    name = tokens[place]
    if name.kind != LETTERS or not name.after_space or tokens[place + 1].text != "=":
        return False
    before = tokens[place - 1]
    return before.kind == NUMBER or before.text == "}"


def _is_mark(tokens: Tokens) -> bool:
    return tokens[0].text == "(" and tokens[2].text == ")" and tokens[1].kind in (TEXT, LETTERS)


def _without_ranges(members: list[Reading]) -> list[Reading]:
    r"""Return members without ranges of their variables, as `k \in \mathbb{Z}`.

    With exactly one range, the other members become families over it.
    """
    used = _used_variables(members)
    ranges = [member for member in members if _is_range(member, used)]
    kept = [member for member in members if member not in ranges]
    if not ranges or not kept:
        return members
    if len(ranges) > 1:
        return kept
    only_range = ranges[0][0]
    return [_family(member, only_range) for member in kept]


def _used_variables(members: Sequence[Reading]) -> set[str]:
    """Return the variables in the formulas of members."""
    used: set[str] = set()
    for member in members:
        value = member[0]
        if isinstance(value, Named):
            value = value.value[0]
        if isinstance(value, Formula):
            used |= free_symbols(value.node)
    return used


def _family(member: Reading, range_: Named) -> Reading:
    """Return a member as a family; over a set of real numbers it stays as it is."""
    inside = range_.value[0]
    if isinstance(inside, RealSet):
        return member
    return _in_family(member, range_.name, inside)


def _in_family(member: Reading, variable: str, inside: Words) -> Reading:
    """Return the values of a member that can be a family, or the member as it is if none can."""
    return tuple(_families(member, variable, inside)) or member


def _families(member: Reading, variable: str, inside: Words) -> Iterator[Value]:
    for value in member:
        if isinstance(value, Formula):
            yield Family(value.node, variable, " ".join(inside.words))
        elif isinstance(value, Named):
            yield replace(value, value=_in_family(value.value, variable, inside))
        elif not isinstance(value, Relation):
            yield value


def _is_range(member: Reading, used: set[str]) -> bool:
    value = member[0]
    if not isinstance(value, Named) or value.name not in used:
        return False
    return isinstance(value.value[0], (Words, RealSet))


def members_of(member: Reading) -> tuple[Reading, ...]:
    r"""Return the members of a bare list in a list, as of `\pm 1`; any other member alone."""
    value = member[0]
    is_bare_list = isinstance(value, Items) and value.kind == "," and len(member) == 1
    return value.items if is_bare_list else (member,)


def _conditions(members: Sequence[Reading], is_choice: bool) -> Reading:
    """Return the set that several bounds of one variable mean together: `x > 1` and `x < 2`.

    A comma means the intersection if it is not empty.
    """
    if len(members) > MAX_CONDITIONS:
        return ()
    found = sets_of_one_name([named_set(member[0]) for member in members])
    if found is None:
        return ()
    name, parts = found
    are_bounds = all(_is_ray(part) or _leaves_out_points(part) for part in parts)
    if are_bounds and not is_choice:
        both = sets.intersection(parts)
        if both is not None and both.parts:
            return (Named(name, (both,)),)
    pieces = joined_pieces(parts)
    union = sets.merged(pieces)
    # Sets that overlap are alternatives, of which only one may be right.
    if len(union.parts) != len(pieces.parts):
        return ()
    return (Named(name, (union,)),)


def _leaves_out_points(found: RealSet) -> bool:
    r"""Return whether a set is the whole line, or the line without some points, as `x \ne 1` says."""
    if not found.parts:
        return False
    first = found.parts[0]
    last = found.parts[-1]
    if first.low.node is not None or last.high.node is not None:
        return False
    return all(left.high.node == right.low.node for left, right in pairwise(found.parts))


def _is_ray(found: RealSet) -> bool:
    """Return whether a set is one interval with exactly one end at infinity."""
    if len(found.parts) != 1:
        return False
    only = found.parts[0]
    return (only.low.node is None) != (only.high.node is None)


def _compound(members: Sequence[Reading]) -> Reading:
    """Return one quantity from several of one kind whose units become smaller: `1 hour 30 minutes`."""
    quantities: list[Quantity] = []
    for member in members:
        quantity = _first_quantity(member)
        if quantity is None or not quantity.unit.is_known:
            return ()
        quantities.append(quantity)
    for larger, smaller in pairwise(quantities):
        is_one_kind = units.same_kind(larger.unit, smaller.unit)
        if not is_one_kind or larger.unit.factor <= smaller.unit.factor:
            return ()
    largest = quantities[0].unit
    smallest = quantities[-1].unit
    return (_in_unit(largest, quantities), _in_unit(smallest, quantities))


def _first_quantity(member: Reading) -> Quantity | None:
    for value in member:
        if isinstance(value, Quantity):
            return value
    return None


def _in_unit(unit: Unit, quantities: Sequence[Quantity]) -> Quantity:
    """Return the sum of quantities in one unit."""
    terms = [scaled(quantity.node, quantity.unit.factor / unit.factor) for quantity in quantities]
    return Quantity(operation("add", *terms), unit)


def _run_of_quantities(tokens: Tokens, read: Read) -> Reading:
    """Return one quantity from several with no sign between them, as `1 hour 30 minutes`."""
    starts = []
    for place in range(1, len(tokens)):
        if tokens[place].kind == NUMBER and is_word(tokens[place - 1]):
            starts.append(place)
    if not 1 <= len(starts) <= _MAX_SMALLER_UNITS or tokens[0].kind != NUMBER:
        return ()
    parts = parts_from(tokens, [0, *starts])
    return _compound(read_each(parts, read))


def _decimal_comma(tokens: Tokens) -> Node | None:
    """Return `2,74` as 2.74, which it is where a comma precedes decimals."""
    is_negative = bool(tokens) and tokens[0].text == "-"
    unsigned = tokens[1:] if is_negative else tokens
    if len(unsigned) != 3:
        return None
    whole, comma, decimals = unsigned
    if comma.text != "," or decimals.after_space:
        return None
    if not whole.text.isdigit() or not decimals.text.isdigit():
        return None
    num_decimals = len(decimals.text)
    value = Fraction(int(whole.text + decimals.text), 10**num_decimals)
    return Number(-value if is_negative else value, num_decimals)


def is_dots(tokens: Tokens) -> bool:
    """Return whether tokens are dots that replace members of a list."""
    return len(tokens) == 1 and tokens[0].text in (r"\ldots", r"\cdots")


def read_progression(parts: Sequence[Tokens], kind: str, read: Read) -> Reading:
    """Return a list in which dots replace some members, which the first and last members determine."""
    places = [place for place, part in enumerate(parts) if is_dots(part)]
    if len(places) != 1 or places[0] == 0:
        return ()
    place = places[0]
    first = read_each(parts[:place], read)
    last = read_each(parts[place + 1 :], read)
    return (Progression(kind, first, last),)
