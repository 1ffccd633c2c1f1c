"""Reads lists: members between commas, words or spaces, systems of equations, and lists with dots."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction

from realrl.verifier import sets, units
from realrl.verifier.nodes import Node, Number, free_symbols, operation
from realrl.verifier.readers.common import Read, as_words, scaled
from realrl.verifier.readers.real_sets import named_set
from realrl.verifier.slices import cut, is_apart, is_separator, is_word
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
MAX_CONDITIONS = 12
"""The largest number of conditions on a variable that are taken together."""
MODULI = (r"\pmod", r"\mod", "mod")
_PARTS = "abcdefgh"
_ALIGNED = tuple(
    (rf"\begin {name}", rf"\end {name}") for name in ("aligned", "align", "align*", "gathered", "split")
)


def read_system(tokens: Tokens, read: Read) -> Reading:
    r"""The equations that `\begin{cases}` or `\begin{aligned}` holds together, one in a row."""
    if len(tokens) < 4:
        return ()
    ends, inside = (tokens[0].text, tokens[-1].text), tokens[1:-1]
    if ends in _ALIGNED:
        inside = tuple(token for token in inside if token.text != "&")
    elif ends != (r"\begin cases", r"\end cases") or any(token.text == "&" for token in inside):
        return ()
    rows, _ = cut(inside, lambda token: token.text == r"\\")
    return (Items(",", tuple(read(row) for row in rows if row)),)


def read_list(tokens: Tokens, read: Read) -> Reading:
    if found := _list_of_lists(tokens, read) or _residues(tokens, read):
        return found
    parts, joints = _members(tokens)
    if len(parts) < 2:
        return read(parts[0]) if parts and joints else _run_of_quantities(tokens, read)
    if len(parts) > MAX_MEMBERS:
        return (as_words(tokens),)
    if any(is_dots(part) for part in parts):
        return read_progression(parts, ",", read)
    members = [read(part) for part in parts]
    is_choice = any(joint.text.lower() == "or" or joint.text == r"\lor" for joint in joints)
    if not is_choice:
        members = _without_ranges(members)
    if len(members) == 1:
        return members[0]
    found = _conditions(members, is_choice)
    if found:
        return found
    flat = tuple(member for each in members for member in members_of(each))
    decimal = _decimal_comma(tokens)
    compound = () if is_choice else _compound(members)
    return (Items("or" if is_choice else ",", flat, decimal), *compound)


def _list_of_lists(tokens: Tokens, read: Read) -> Reading:
    """`x = 1, y = 2; x = 3, y = 4`: members with as many members each."""
    parts, joints = cut(tokens, lambda token: token.text == ";")
    if not joints:
        parts, joints = cut(tokens, lambda token: token.text in ("or", r"\lor"))
    inner = [cut(part, lambda token: token.text == ",")[0] for part in parts]
    if not joints or len({len(each) for each in inner}) != 1 or len(inner[0]) < 2:
        return ()
    return (Items(",", tuple(map(read, parts))),)


def _residues(tokens: Tokens, read: Read) -> Reading:
    r"""`n \equiv 1, 4 \pmod 5`: residues of one modulus."""
    sides, joints = cut(tokens, lambda token: token.text == r"\equiv")
    places = [place for place, token in enumerate(sides[-1]) if token.text in MODULI]
    if len(joints) != 1 or len(places) != 1 or not places[0]:
        return ()
    end = places[0] - (sides[-1][places[0] - 1].text == "(")
    residues, commas = cut(sides[-1][:end], is_separator)
    if not commas or not all(residues):
        return ()
    members = [read((*sides[0], joints[0], *residue, *sides[-1][end:])) for residue in residues]
    return (Items(",", tuple(members)),)


def _members(tokens: Tokens) -> tuple[list[Tokens], list[Token]]:
    """The members of a list and what is between them, without empty ones."""
    parts, joints = cut(tokens, is_separator)
    found: list[Tokens] = []
    for part in _without_marks(parts):
        found += _lettered(part) or _equations(part) or _spaced(part)
    return [part for part in found if part], joints or ([Token(SIGN, ",")] if len(found) > 1 else [])


def _spaced(tokens: Tokens) -> Iterator[Tokens]:
    """Cut between numbers with a space between them, unless a mixed number begins there."""
    start = 0
    for place in range(1, len(tokens)):
        is_mixed = place + 1 < len(tokens) and tokens[place + 1].text == "/"
        if is_apart(tokens, place) and not is_mixed:
            yield tokens[start:place]
            start = place
    yield tokens[start:]


def _lettered(tokens: Tokens) -> list[Tokens]:
    """The parts of `(a) 1 (b) 2`."""
    marks = [i for i in range(len(tokens) - 2) if _is_mark(tokens[i : i + 3])]
    letters = "".join(tokens[i + 1].text for i in marks)
    if len(marks) < 2 or marks[0] or not _PARTS.startswith(letters):
        return []
    ends = [*marks[1:], len(tokens)]
    return [tokens[start + 3 : end] for start, end in zip(marks, ends, strict=True)]


def _without_marks(parts: list[Tokens]) -> list[Tokens]:
    """Without the marks of `(a) 1, (b) 2`."""
    letters = "".join(part[1].text for part in parts if len(part) > 3 and _is_mark(part[:3]))
    is_marked = len(letters) == len(parts) > 1 and _PARTS.startswith(letters)
    return [part[3:] for part in parts] if is_marked else parts


def _equations(tokens: Tokens) -> list[Tokens]:
    """The equations of `x = 1  y = 2`, with a space before each name."""
    starts = [place for place in range(2, len(tokens) - 1) if _begins_equation(tokens, place)]
    if not starts or tokens[0].kind != LETTERS or tokens[1].text != "=":
        return []
    ends = [*starts, len(tokens)]
    return [tokens[start:end] for start, end in zip((0, *starts), ends, strict=True)]


def _begins_equation(tokens: Tokens, place: int) -> bool:
    name, before = tokens[place], tokens[place - 1]
    is_name = name.kind == LETTERS and name.after_space and tokens[place + 1].text == "="
    return is_name and (before.kind == NUMBER or before.text == "}")


def _is_mark(tokens: Tokens) -> bool:
    return tokens[0].text == "(" and tokens[2].text == ")" and tokens[1].kind in (TEXT, LETTERS)


def _without_ranges(members: list[Reading]) -> list[Reading]:
    r"""Without `k \in \mathbb{Z}` about a variable of another member, which is a family then."""
    used: set[str] = set()
    for member in members:
        value = member[0].value[0] if isinstance(member[0], Named) else member[0]
        if isinstance(value, Formula):
            used |= free_symbols(value.node)
    ranges = [member for member in members if _is_range(member, used)]
    kept = [member for member in members if member not in ranges]
    if not ranges or not kept:
        return members
    return [_family(member, ranges[0][0]) for member in kept] if len(ranges) == 1 else kept


def _family(member: Reading, range_: Named) -> Reading:
    """A member as a family, where what is said of the variable is no set of real numbers."""
    inside = range_.value[0]
    return member if isinstance(inside, RealSet) else _in_family(member, range_.name, inside)


def _in_family(member: Reading, variable: str, inside: Words) -> Reading:
    """What of a member can be a family, or the member as it is."""
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
    return isinstance(value, Named) and value.name in used and isinstance(value.value[0], (Words, RealSet))


def members_of(member: Reading) -> tuple[Reading, ...]:
    r"""The members of a bare list in a list, as of `\pm 1`."""
    value = member[0]
    return value.items if isinstance(value, Items) and value.kind == "," and len(member) == 1 else (member,)


def _conditions(members: Sequence[Reading], is_choice: bool) -> Reading:
    """Bounds of one variable together: `x > 1` and `x < 2`. A comma means both where both can hold."""
    if len(members) > MAX_CONDITIONS:
        return ()
    found = [named_set(member[0]) for member in members]
    if any(each is None or not each[0] for each in found) or len({name for name, _ in found}) != 1:
        return ()
    name, parts = found[0][0], [each for _, each in found]
    are_bounds = all(_is_ray(part) or _leaves_out_points(part) for part in parts)
    both = sets.intersection(parts) if are_bounds and not is_choice else None
    if both is not None and both.parts:
        return (Named(name, (both,)),)
    pieces = RealSet(tuple(part for each in parts for part in each.parts))
    union = sets.merged(pieces)
    # Sets that overlap are answers of which one may be right.
    return (Named(name, (union,)),) if len(union.parts) == len(pieces.parts) else ()


def _leaves_out_points(found: RealSet) -> bool:
    r"""Whether a set is the line without some points, as `x \ne 1` says, or all of it."""
    ends = (found.parts[0].low.node, found.parts[-1].high.node) if found.parts else (0,)
    gaps = zip(found.parts, found.parts[1:])
    return ends == (None, None) and all(left.high.node == right.low.node for left, right in gaps)


def _is_ray(found: RealSet) -> bool:
    return len(found.parts) == 1 and (found.parts[0].low.node is None) != (found.parts[0].high.node is None)


def _compound(members: Sequence[Reading]) -> Reading:
    """One quantity out of some that can be told in each other: `1 hour 30 minutes`."""
    quantities = [next((v for v in member if isinstance(v, Quantity)), None) for member in members]
    if any(quantity is None or not quantity.unit.is_known for quantity in quantities):
        return ()
    found = [quantity.unit for quantity in quantities]
    falls = all(units.same_kind(a, b) and a.factor > b.factor for a, b in zip(found, found[1:]))
    if not falls:
        return ()
    return tuple(_told_in(unit, quantities) for unit in (found[0], found[-1]))


def _told_in(unit: Unit, quantities: Sequence[Quantity]) -> Quantity:
    terms = [scaled(quantity.node, quantity.unit.factor / unit.factor) for quantity in quantities]
    return Quantity(operation("add", *terms), unit)


def _run_of_quantities(tokens: Tokens, read: Read) -> Reading:
    """`1 hour 30 minutes`, which has no sign between its members."""
    starts = [
        place
        for place in range(1, len(tokens))
        if tokens[place].kind == NUMBER and is_word(tokens[place - 1])
    ]
    if not 1 <= len(starts) <= 3 or tokens[0].kind != NUMBER:
        return ()
    ends = [*starts, len(tokens)]
    return _compound([read(tokens[start:end]) for start, end in zip((0, *starts), ends)])


def _decimal_comma(tokens: Tokens) -> Node | None:
    """`2,74` as 2.74."""
    sign = bool(tokens) and tokens[0].text == "-"
    texts = [token.text for token in tokens[sign:]]
    if len(texts) != 3 or texts[1] != "," or not (texts[0].isdigit() and texts[2].isdigit()):
        return None
    if tokens[sign + 2].after_space:
        return None
    value = Fraction(int(texts[0] + texts[2]), 10 ** len(texts[2]))
    return Number(-value if sign else value, len(texts[2]))


def is_dots(tokens: Tokens) -> bool:
    return len(tokens) == 1 and tokens[0].text in (r"\ldots", r"\cdots")


def read_progression(parts: Sequence[Tokens], kind: str, read: Read) -> Reading:
    """A list of which dots stand for some members."""
    places = [place for place, part in enumerate(parts) if is_dots(part)]
    if len(places) != 1 or places[0] == 0:
        return ()
    first, last = (tuple(map(read, part)) for part in (parts[: places[0]], parts[places[0] + 1 :]))
    return (Progression(kind, first, last),)
