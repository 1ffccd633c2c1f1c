"""Reads an answer: what kind of thing it is, by one list of readers in one order.

    edges and remarks off ─▶ moment ─▶ list ─▶ relation ─▶ set ─▶ congruence ─▶ numeral ─▶ ratio ─▶ signs
                             ─▶ brackets ─▶ quantity, percentage, formula ─▶ labelled value ─▶ words

The first reader that knows the tokens decides. A reading holds all that a text may mean, the usual meaning
first. What no reader knows is words, and equal to the same words.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction

from realrl.verifier import lexicon, numerals, sets, units
from realrl.verifier.arrays import written_out
from realrl.verifier.equality import equal
from realrl.verifier.grammar import readings
from realrl.verifier.names import is_one_thing, is_variable, name_of
from realrl.verifier.nodes import (
    Array,
    Constant,
    Node,
    Number,
    Operation,
    free_symbols,
    negative,
    operation,
    whole,
)
from realrl.verifier.series import summed
from realrl.verifier.slices import (
    cut,
    enclosed,
    first_place,
    is_apart,
    is_balanced,
    is_separator,
    is_word,
    with_depth,
    words_of,
)
from realrl.verifier.tokens import CLOSE, COMMAND, LETTERS, NUMBER, OPEN, SIGN, TEXT, Token, Tokens, tokenized
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
    Unit,
    Value,
    Words,
)

MAX_TOKENS = 700
"""A longer answer is text."""
MAX_MEMBERS = 100

_EDGES = frozenset((".", ",", ";", ":"))
_RELATIONS = {
    **{"=": "=", "<": "<", ">": ">", r"\le": "<=", r"\ge": ">=", r"\ne": "!=", r"\approx": "~", r"\sim": "~"},
    **{r"\in": "in", r"\notin": "not in", r"\equiv": "mod", r"\simeq": "~", r"\cong": "~"},
}
_ORDERS = ("<", ">", "<=", ">=")
_TURNED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
_NEGATED = {r"\in": r"\notin", "=": r"\ne", r"\equiv": ""}
_PARTS = "abcdefgh"
_SPOKEN = re.compile("[b-df-hj-np-tv-xz][aeiou][b-df-hj-np-tv-xz]")


@functools.lru_cache(maxsize=4096)
def read(text: str, groups: bool = True) -> Reading:
    """What an answer says; with `groups`, `1,234` is one number."""
    tokens = tokenized(text, groups=groups)
    if len(tokens) > MAX_TOKENS or not is_balanced(tokens):
        found = _open_interval(tokens) if len(tokens) <= MAX_TOKENS else None
        return found or (_words(tokens),)
    return read_tokens(tokens)


def read_tokens(tokens: Tokens) -> Reading:
    """What the tokens of an answer say."""
    return _read(_with_negations(tokens))


def _with_negations(tokens: Tokens) -> Tokens:
    r"""With one token for `\not\in` and its kind."""
    found: list[Token] = []
    for token in tokens:
        negated = _NEGATED.get(token.text) if found and found[-1].text == r"\not" else None
        if negated:
            found[-1] = Token(COMMAND, negated)
        else:
            found.append(token)
    return tuple(found)


def _read(tokens: Tokens) -> Reading:
    tokens = _stripped(tokens)
    for reader in _READERS:
        found = reader(tokens)
        if found:
            return found
    return (_words(tokens),)


def _words(tokens: Tokens) -> Words:
    return Words(tuple(token.text.casefold() for token in tokens if token.text not in ("{", "}")))


# Edges and remarks.


def _stripped(tokens: Tokens) -> Tokens:
    """Without signs at the edges, braces around everything, lead-ins, qualifiers and remarks."""
    before = None
    while tokens != before:
        before = tokens
        tokens = _without_edges(tokens)
        tokens = _without_lead_in(tokens)
        tokens = _without_qualifier(tokens)
        tokens = _without_remark(tokens)
        around = enclosed(tokens)
        if around is not None and around[0] == "{":
            tokens = around[1]
    return tokens


def _without_edges(tokens: Tokens) -> Tokens:
    start, end = 0, len(tokens)
    while start < end and (tokens[start].text in _EDGES or tokens[start].is_sign("=", r"\approx", r"\sim")):
        start += 1
    while start < end and tokens[end - 1].text in _EDGES:
        end -= 1
    return tokens[start:end]


def _without_lead_in(tokens: Tokens) -> Tokens:
    start = 0
    while start < len(tokens) - 1 and is_word(tokens[start]):
        word = tokens[start].text.lower()
        if word not in lexicon.LEAD_INS and word not in lexicon.APPROXIMATELY:
            break
        start += 1
    return tokens[start:]


def _without_qualifier(tokens: Tokens) -> Tokens:
    """Without what is said about the value: `for all real x`, `where k is whole`."""
    place = first_place(tokens, lambda token: is_word(token) and token.text.lower() in lexicon.QUALIFIERS)
    return tokens[:place] if place else tokens


def _without_remark(tokens: Tokens) -> Tokens:
    """Without words in parentheses, or at the end, that add nothing to a value."""
    end = len(tokens)
    if end and tokens[-1].text == ")":
        start = next((i for i in range(end - 2, 0, -1) if tokens[i].text == "("), 0)
        inside = tokens[start + 1 : -1]
        is_remark = all(is_word(token) and token.text.lower() in lexicon.REMARKS for token in inside)
        return tokens[:start] if start and inside and (is_remark or _is_unit(inside)) else tokens
    while (
        end > 1
        and is_word(tokens[end - 1])
        and tokens[end - 1].text.lower() in lexicon.REMARKS - {"units", "unit"}
    ):
        end -= 1
    has_value = end and not all(map(is_word, tokens[:end]))
    return tokens[:end] if has_value else tokens


def _is_unit(tokens: Tokens) -> bool:
    return all(map(is_word, tokens)) and units.read_unit(tokens) is not None


# Times and dates.


def _moment(tokens: Tokens) -> Reading:
    found = numerals.moment(tokens)
    if found is None:
        return ()
    ratio = _ratio(tokens) if found.minutes is not None and not found.half else ()
    return (*ratio, found)


# Lists.


def _system(tokens: Tokens) -> Reading:
    r"""The equations that `\begin{cases}` holds together, one in a row."""
    if len(tokens) < 4 or (tokens[0].text, tokens[-1].text) != (r"\begin cases", r"\end cases"):
        return ()
    inside = tokens[1:-1]
    if any(token.text == "&" for token in inside):
        return ()
    rows, _ = cut(inside, lambda token: token.text == r"\\")
    return (Items(",", tuple(_read(row) for row in rows if row)),)


def _list(tokens: Tokens) -> Reading:
    if found := _list_of_lists(tokens):
        return found
    parts, joints = _members(tokens)
    if len(parts) < 2:
        return _read(parts[0]) if parts and joints else _run_of_quantities(tokens)
    if len(parts) > MAX_MEMBERS:
        return (_words(tokens),)
    if any(_is_dots(part) for part in parts):
        return _progression(parts, ",")
    members = [_read(part) for part in parts]
    members = _without_ranges(members)
    if len(members) == 1:
        return members[0]
    is_choice = any(joint.text.lower() == "or" or joint.text == r"\lor" for joint in joints)
    found = _conditions(members, is_choice)
    if found:
        return found
    flat = tuple(member for each in members for member in _flat(each))
    decimal = _decimal_comma(tokens)
    compound = () if is_choice else _compound(members)
    return (Items("or" if is_choice else ",", flat, decimal), *compound)


def _list_of_lists(tokens: Tokens) -> Reading:
    """`x = 1, y = 2; x = 3, y = 4`: members with as many members each."""
    parts, joints = cut(tokens, lambda token: token.text == ";")
    inner = [cut(part, lambda token: token.text == ",")[0] for part in parts]
    if not joints or len({len(each) for each in inner}) != 1 or len(inner[0]) < 2:
        return ()
    return (Items(",", tuple(map(_read, parts))),)


def _members(tokens: Tokens) -> tuple[list[Tokens], list[Token]]:
    """The members of a list and what is between them, without empty ones."""
    parts, joints = cut(tokens, is_separator)
    found: list[Tokens] = []
    for part in parts:
        found += _lettered(part) or _spaced(part)
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


def _is_mark(tokens: Tokens) -> bool:
    return tokens[0].text == "(" and tokens[2].text == ")" and tokens[1].kind in (TEXT, LETTERS)


def _without_ranges(members: list[Reading]) -> list[Reading]:
    r"""Without `k \in \mathbb{Z}` about a variable of another member."""
    used = {
        name
        for member in members
        for value in member
        if isinstance(value, Formula)
        for name in free_symbols(value.node)
    }
    kept = [member for member in members if not _is_range(member, used)]
    return kept if 0 < len(kept) < len(members) else members


def _is_range(member: Reading, used: set[str]) -> bool:
    value = member[0]
    return isinstance(value, Named) and value.name in used and isinstance(value.value[0], (Words, RealSet))


def _flat(member: Reading) -> tuple[Reading, ...]:
    r"""The members of a bare list in a list, as of `\pm 1`."""
    value = member[0]
    return value.items if isinstance(value, Items) and value.kind == "," and len(member) == 1 else (member,)


def _conditions(members: Sequence[Reading], is_choice: bool) -> Reading:
    """Bounds of one variable together: `x > 1` and `x < 2`. A comma means both where both can hold."""
    found = [_named_set(member[0]) for member in members]
    if any(each is None or not each[0] for each in found) or len({name for name, _ in found}) != 1:
        return ()
    name, parts = found[0][0], [each for _, each in found]
    both = None if is_choice or not all(map(_is_ray, parts)) else sets.intersection(parts)
    if both is not None and both.parts:
        return (Named(name, (both,)),)
    pieces = RealSet(tuple(part for each in parts for part in each.parts))
    union = sets.merged(pieces)
    # Sets that overlap are answers of which one may be right.
    return (Named(name, (union,)),) if len(union.parts) == len(pieces.parts) else ()


def _is_ray(found: RealSet) -> bool:
    return len(found.parts) == 1 and (found.parts[0].low.node is None) != (found.parts[0].high.node is None)


def _named_set(value: Value) -> tuple[str, RealSet] | None:
    if isinstance(value, RealSet):
        return "", value
    if isinstance(value, Named) and isinstance(value.value[0], RealSet):
        return value.name, value.value[0]
    return None


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
    terms = [_scaled(quantity.node, quantity.unit.factor / unit.factor) for quantity in quantities]
    return Quantity(operation("add", *terms), unit)


def _run_of_quantities(tokens: Tokens) -> Reading:
    """`1 hour 30 minutes`, which has no sign between its members."""
    starts = [
        place
        for place in range(1, len(tokens))
        if tokens[place].kind == NUMBER and is_word(tokens[place - 1])
    ]
    if not 1 <= len(starts) <= 3 or tokens[0].kind != NUMBER:
        return ()
    ends = [*starts, len(tokens)]
    return _compound([_read(tokens[start:end]) for start, end in zip((0, *starts), ends)])


def _scaled(node: Node, factor: Fraction) -> Node:
    return node if factor == 1 else operation("multiply", Number(factor), node)


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


def _is_dots(tokens: Tokens) -> bool:
    return len(tokens) == 1 and tokens[0].text in (r"\ldots", r"\cdots")


def _progression(parts: Sequence[Tokens], kind: str) -> Reading:
    """A list of which dots stand for some members."""
    places = [place for place, part in enumerate(parts) if _is_dots(part)]
    if len(places) != 1 or places[0] == 0:
        return ()
    first, last = (tuple(map(_read, part)) for part in (parts[: places[0]], parts[places[0] + 1 :]))
    return (Progression(kind, first, last),)


# Relations.


def _relation(tokens: Tokens) -> Reading:
    sides, joints = cut(tokens, lambda token: token.kind in (SIGN, COMMAND) and token.text in _RELATIONS)
    operators = [_RELATIONS[joint.text] for joint in joints]
    if not operators:
        return ()
    if not all(sides):
        return _half_relation(sides, operators)
    if "~" in operators:
        return _approximation(sides, operators)
    if set(operators) == {"="}:
        return _equation(sides)
    if operators == ["mod"]:
        return _congruence_of(sides)
    if len(operators) == 1 and operators[0] in ("in", "not in", "!="):
        return _membership(sides, operators[0])
    if set(operators) <= set(_ORDERS):
        return _order(sides, operators)
    return ()


def _half_relation(sides: Sequence[Tokens], operators: Sequence[str]) -> Reading:
    """`> 5` are the numbers above it."""
    if len(sides) == 2 and not sides[0] and operators[0] in _ORDERS:
        node = _only_formula(sides[1])
        return () if node is None else (_ray(operators[0], node),)
    return ()


def _ray(operator: str, node: Node) -> RealSet:
    is_closed = operator in ("<=", ">=")
    if operator in ("<", "<="):
        return sets.bounded(None, node, closed=(False, is_closed))
    return sets.bounded(node, None, closed=(is_closed, False))


def _only_formula(tokens: Tokens) -> Node | None:
    found = _read(tokens)
    value = found[0]
    if isinstance(value, Quantity) and value.unit.is_known:
        return value.node
    return value.node if isinstance(value, Formula) else None


def _approximation(sides: Sequence[Tokens], operators: Sequence[str]) -> Reading:
    r"""What is before `\approx`, and of a name what it is about."""
    place = operators.index("~")
    if place == 0 and name_of(sides[0]):
        name, may_be_dropped = name_of(sides[0])
        return (Named(name, _read(sides[1]), may_be_dropped),)
    if place == 0:
        return _read(sides[0])
    return _equation(sides[: place + 1]) if set(operators[:place]) == {"="} else ()


def _equation(sides: Sequence[Tokens]) -> Reading:
    named = name_of(sides[0])
    if named and (named[1] or len(sides) == 2):
        return _named(named, _read(sides[-1]), sides)
    named = name_of(sides[1]) if len(sides) == 2 else None
    if named:
        return _named(named, _read(sides[0]), sides)
    if len(sides) > 2 and any(name_of(side) for side in sides):
        return _read(sides[-1])
    return _read(sides[-1]) if _is_identity(sides) else _both_sides(sides)


def _named(named: tuple[str, bool], value: Reading, sides: Sequence[Tokens]) -> Reading:
    """A value with its name; with variables in it, or of more than one thing, it is an equation, too."""
    name, may_be_dropped = named
    is_equation = not is_one_thing(name)
    is_equation |= any(isinstance(meaning, Formula) and free_symbols(meaning.node) for meaning in value)
    said = Named(name, value, may_be_dropped, is_one_thing(name))
    return (said, *(_both_sides(sides) if is_equation else ()))


def _both_sides(sides: Sequence[Tokens]) -> Reading:
    return (Relation(("=",) * (len(sides) - 1), tuple(map(_read, sides))),)


def _is_identity(sides: Sequence[Tokens]) -> bool:
    """Whether all sides have one value."""
    nodes = [_worth(_read(side)[0]) for side in sides]
    return None not in nodes and all(equal(left, right) for left, right in zip(nodes, nodes[1:]))


def _worth(value: Value) -> Node | None:
    match value:
        case Formula(node):
            return node
        case Percentage(node):
            return operation("divide", node, whole(100))
    return None


def _membership(sides: Sequence[Tokens], operator: str) -> Reading:
    named = name_of(sides[0])
    if named is None:
        return (Relation((operator,), tuple(map(_read, sides))),)
    inside = _read(sides[1])
    if operator == "in":
        return (Named(named[0], inside),)
    excluded = _as_set(inside[0], operator)
    outside = None if excluded is None else sets.complement(excluded)
    if outside is None:
        return (Relation((operator,), tuple(map(_read, sides))),)
    return (Named(named[0], (outside,)),)


def _as_set(value: Value, operator: str) -> RealSet | None:
    if operator == "!=" and isinstance(value, Formula):
        return sets.bounded(value.node, value.node, closed=(True, True))
    return as_real_set(value)


def as_real_set(value: Value) -> RealSet | None:
    """A set of real numbers that a value may mean: an interval, or a set of numbers."""
    if isinstance(value, RealSet):
        return value
    if not isinstance(value, Items):
        return None
    nodes = [item[0].node if isinstance(item[0], Formula) else None for item in value.items]
    if any(node is None for node in nodes):
        return None
    if value.kind == "()" and len(nodes) == 2:
        return sets.bounded(*map(finite, nodes), closed=(False, False))
    if value.kind == "{}":
        points = (sets.bounded(node, node, closed=(True, True)).parts[0] for node in nodes)
        return RealSet(tuple(points))
    return None


def finite(node: Node) -> Node | None:
    """A bound, or None where it is infinity."""
    return None if is_infinite(node) else node


def is_infinite(node: Node) -> bool:
    match node:
        case Constant("infinity") | Operation("negative", (Constant("infinity"),)):
            return True
    return False


def _order(sides: Sequence[Tokens], operators: list[str]) -> Reading:
    if all(operator in (">", ">=") for operator in operators):
        sides, operators = sides[::-1], [_TURNED[operator] for operator in reversed(operators)]
    found = _bounds(sides, operators) or _distance(sides, operators)
    if found:
        return found
    return (Relation(tuple(operators), tuple(map(_read, sides))),)


def _bounds(sides: Sequence[Tokens], operators: Sequence[str]) -> Reading:
    """`1 < x < 2` and `x < 2`: an interval of what has a name."""
    if not all(operator in ("<", "<=") for operator in operators) or len(sides) > 3:
        return ()
    sides, operators = _turned_sign(sides, operators)
    middle = 1 if len(sides) == 3 or not name_of(sides[0]) else 0
    named = name_of(sides[middle])
    if named is None or sum(bool(name_of(side)) for side in sides) > 1 and not is_variable(named[0]):
        return ()
    low = _bound(sides[middle - 1]) if middle else None
    high = _bound(sides[middle + 1]) if middle + 1 < len(sides) else None
    if (middle and low is None) or (middle + 1 < len(sides) and high is None):
        return ()
    closed = (
        operators[0] == "<=" and middle == 1 and not is_infinite(low),
        operators[-1] == "<=" and middle + 1 < len(sides) and not is_infinite(high),
    )
    if named[0].startswith("|"):
        return ()
    return (
        Named(named[0], (sets.bounded(low and finite(low), high and finite(high), closed=closed),), named[1]),
    )


def _bound(tokens: Tokens) -> Node | None:
    return _only_formula(tokens)


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


def _ring(sides: Sequence[Tokens], operators: Sequence[str]) -> Reading:
    """`1 <= |x| <= 2`."""
    bounds = [_distance(sides[:2], operators[:1]), _distance(sides[1:], operators[1:])]
    if not all(bounds):
        return ()
    (name, first), (other, second) = (_named_set(bound[0]) for bound in bounds)
    both = sets.intersection((first, second))
    return (Named(name, (both,)),) if both is not None and name == other else ()


def _distance(sides: Sequence[Tokens], operators: Sequence[str]) -> Reading:
    """`|x - 1| <= 2` and `|x| > 3`: an interval around a number, or what is outside of it."""
    if len(sides) == 3:
        return _ring(sides, operators) if all(sides) else ()
    if len(sides) != 2 or not all(sides):
        return ()
    inner_side = 0 if sides[0][0].text == "|" else 1
    around, bound = _center(sides[inner_side]), _only_formula(sides[1 - inner_side])
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


# Sets of real numbers.


def _set(tokens: Tokens) -> Reading:
    r"""`\mathbb{R}`, unions, intersections and differences of intervals."""
    if len(tokens) == 1 and tokens[0].text == r"\mathbb R":
        return (sets.ALL,)
    if [token.text for token in tokens[:2]] == [r"\mathbb R", "^"] and tokens[2:]:
        sign = "".join(token.text for token in tokens[2:] if token.text not in ("{", "}"))
        zero = Number(Fraction(0))
        if sign in ("+", "-"):
            ends = (zero, None) if sign == "+" else (None, zero)
            return (sets.bounded(*ends, closed=(False, False)),)
    if words_of(tokens) and " ".join(words_of(tokens)) in lexicon.ALL_REALS:
        return (sets.ALL,)
    return _set_operation(tokens)


def _set_operation(tokens: Tokens) -> Reading:
    parts, joints = cut(tokens, lambda token: token.text in (r"\cup", r"\cap", r"\setminus"))
    if not joints and tokens and tokens[0].text == r"\mathbb R":
        parts, joints = cut(tokens, lambda token: token.text == "-")
    if not joints or not all(parts):
        return ()
    found = [as_real_set(_read(part)[0]) for part in parts]
    if any(each is None for each in found):
        return ()
    total = found[0]
    for joint, each in zip(joints, found[1:], strict=True):
        total = _combined(joint.text, total, each)
        if total is None:
            return ()
    return (total,)


def _combined(sign: str, left: RealSet, right: RealSet) -> RealSet | None:
    if sign == r"\cup":
        return RealSet((*left.parts, *right.parts))
    if sign == r"\cap":
        return sets.intersection((left, right))
    outside = sets.complement(right)
    return None if outside is None else sets.intersection((left, outside))


def _open_interval(tokens: Tokens) -> Reading:
    """`]1, 2[` and `[1, 2[`, whose brackets have no partners."""
    if len(tokens) < 4 or tokens[0].text not in ("]", "[", "(") or tokens[-1].text not in ("[", "]", ")"):
        return ()
    if {tokens[0].text, tokens[-1].text} <= {"(", ")"}:
        return ()
    parts, _ = cut(tokens[1:-1], lambda token: token.text in (",", ";"))
    if len(parts) != 2 or not all(map(is_balanced, parts)):
        return ()
    low, high = map(_only_formula, parts)
    if low is None or high is None:
        return ()
    closed = (tokens[0].text == "[", tokens[-1].text == "]")
    return (sets.bounded(finite(low), finite(high), closed=closed),)


# Congruences, numerals, ratios, signs.


def _congruence(tokens: Tokens) -> Reading:
    place = first_place(tokens, lambda token: token.text in (r"\pmod", r"\mod") or token.text == "mod")
    start = place
    if place is None and len(tokens) > 3 and tokens[-1].text == ")":
        inner = next((i for i, token in enumerate(tokens) if token.text in ("mod", r"\mod")), None)
        if inner and tokens[inner - 1].text == "(":
            place, start = inner, inner - 1
    if not place:
        return ()
    end = len(tokens) - (start != place)
    residue, modulus = _only_formula(tokens[:start]), _only_formula(tokens[place + 1 : end])
    return () if residue is None or modulus is None else (Congruence(residue, modulus),)


def _congruence_of(sides: Sequence[Tokens]) -> Reading:
    r"""`x \equiv 3 \pmod 7`."""
    named, found = name_of(sides[0]), _congruence(_stripped(sides[1]))
    return (Named(named[0], found, named[1]),) if named and found else ()


def _numeral(tokens: Tokens) -> Reading:
    found = numerals.numeral(tokens)
    return () if found is None else (found,)


def _ratio(tokens: Tokens) -> Reading:
    parts, joints = cut(tokens, lambda token: token.text == ":" or (is_word(token) and token.text == "to"))
    if not joints or not all(parts):
        return ()
    if len(parts) == 2 and name_of(parts[0]) and not name_of(parts[1]):
        return (Named(name_of(parts[0])[0], _read(parts[1])),)
    return (Items(":", tuple(map(_read, parts))),)


def _signs(tokens: Tokens) -> Reading:
    r"""Both values of an expression with `\pm`: every `\pm` has one sign, every `\mp` the other."""
    around = enclosed(tokens)
    is_set = around is not None and around[0] == r"\{"
    if is_set or not any(token.text in (r"\pm", r"\mp") for token in tokens):
        return ()
    plus, minus = Token(SIGN, "+"), Token(SIGN, "-")
    upper = tuple({r"\pm": plus, r"\mp": minus}.get(token.text, token) for token in tokens)
    lower = tuple({r"\pm": minus, r"\mp": plus}.get(token.text, token) for token in tokens)
    members = tuple(map(_read, (upper, lower)))
    if any(isinstance(member[0], Words) for member in members):
        return ()
    return (Items(",", members),)


# Brackets.


def _brackets(tokens: Tokens) -> Reading:
    if len(tokens) == 1 and tokens[0].text == r"\emptyset":
        return (Items("{}", ()),)
    around = enclosed(tokens)
    if around is None:
        return _point(tokens) or _juxtaposed(tokens)
    opening, inside, closing = around
    if opening == r"\{":
        return _braces(inside)
    if opening in (r"\lfloor", r"\lceil", "{"):
        return ()
    parts, joints = cut(inside, lambda token: token.text in (",", ";", "|"))
    if not joints:
        return _alone(opening, inside, closing)
    if any(joint.text == "|" for joint in joints) and len(joints) > 1:
        return ()
    if any(_is_dots(part) for part in parts):
        return _progression(parts, "()")
    return _tuple(opening, closing, parts, tokens)


def _tuple(opening: str, closing: str, parts: Sequence[Tokens], tokens: Tokens) -> Reading:
    members = tuple(map(_read, parts))
    arrays = tuple(Formula(node) for node in readings(tokens) if isinstance(node, Array))
    is_interval = (opening, closing) in (("[", "]"), ("[", ")"), ("(", "]")) and len(members) == 2
    if is_interval and all(isinstance(member[0], Formula) for member in members):
        low, high = (finite(member[0].node) for member in members)
        return (sets.bounded(low, high, closed=(opening == "[", closing == "]")),)
    if (opening, closing) in (("(", ")"), (r"\langle", r"\rangle"), ("[", "]")):
        matrices = [array for array in arrays if len(array.node.rows) > 1]
        return (Items("[]" if opening == "[" else "()", members), *matrices)
    return ()


def _alone(opening: str, inside: Tokens, closing: str) -> Reading:
    if (opening, closing) not in (("(", ")"), ("[", "]")):
        return ()
    return _read(inside)


def _braces(inside: Tokens) -> Reading:
    """A set, by its members or by a condition."""
    if not inside:
        return (Items("{}", ()),)
    place = first_place(inside, lambda token: token.text in ("|", ":"))
    if place:
        found = _read(inside[place + 1 :])
        is_set = _named_set(found[0]) is not None
        return found if is_set else ()
    parts, _ = cut(inside, lambda token: token.text in (",", ";"))
    if any(_is_dots(part) for part in parts):
        return _progression(parts, "{}")
    members = [member for part in parts if part for member in _flat(_read(part))]
    return (Items("{}", tuple(members)),)


def _point(tokens: Tokens) -> Reading:
    """`P(3, 4)`: a point with its name."""
    if (
        len(tokens) < 6
        or tokens[0].kind != LETTERS
        or not (len(tokens[0].text) == 1 and tokens[0].text.isupper())
    ):
        return ()
    around = enclosed(tokens[1:])
    if around is None or around[0] != "(" or first_place(around[1], lambda token: token.text == ",") is None:
        return ()
    formulas = tuple(Formula(node) for node in readings(tokens))
    return (Named(tokens[0].text, _read(tokens[1:])), *formulas)


def _juxtaposed(tokens: Tokens) -> Reading:
    """`(1,2)(3,4)`: tuples next to each other."""
    if not tokens or tokens[0].text != "(":
        return ()
    groups, start = [], 0
    for place, (token, depth) in enumerate(with_depth(tokens)):
        if depth == 0 and token.kind == CLOSE:
            groups.append(tokens[start : place + 1])
            start = place + 1
        elif depth == 0 and token.kind != OPEN:
            return ()
    members = [_brackets(group) for group in groups]
    are_tuples = all(member and isinstance(member[0], Items) and member[0].kind == "()" for member in members)
    return (Items(",", tuple(members)),) if len(groups) > 1 and are_tuples else ()


# Numbers and what they count.


def _number(tokens: Tokens) -> Reading:
    """A formula, a percentage, or a number with a unit."""
    if not tokens:
        return ()
    repeating = numerals.repeating_decimal(tokens)
    if repeating is not None:
        return (Formula(Number(repeating)),)
    angle = _angle(tokens)
    formulas = tuple(Formula(node) for node in _formulas(tokens))
    measured = tuple(_measured(tokens))
    if formulas and any(token.kind == TEXT for token in tokens):
        measured = tuple(
            value for value in measured if not isinstance(value, Quantity) or value.unit.is_known
        )
    first_is_measure = bool(angle) or not formulas
    found = (*angle, *measured, *formulas) if first_is_measure else (*formulas, *measured)
    return tuple(dict.fromkeys(found))


def _formulas(tokens: Tokens) -> tuple[Node, ...]:
    if all(token.kind == LETTERS for token in tokens) and _is_short_word(tokens):
        return ()
    return tuple(summed(written_out(node)) for node in readings(tokens))


def _is_short_word(tokens: Tokens) -> bool:
    """A word that is known, or can be spoken: `bob`, but not `abc`, `mgh`, `xyz`."""
    return any(token.text.lower() in lexicon.SHORT_WORDS or _SPOKEN.fullmatch(token.text) for token in tokens)


def _angle(tokens: Tokens) -> Reading:
    r"""`60^\circ`, `45^\circ 30'` and temperatures."""
    place = first_place(tokens, lambda token: token.text == r"\circ")
    if place is None:
        place = next(
            (i for i, t in enumerate(tokens) if t.text == r"\circ" and tokens[i - 1].text == "{"), None
        )
        if place is None or tokens[place - 2].text != "^":
            return ()
        before, rest = tokens[: place - 2], tokens[place + 2 :]
    else:
        before, rest = tokens[: place - 1], tokens[place + 1 :]
    found = readings(before)
    if not found or any(token.text == r"\circ" for token in before):
        return ()
    if not rest:
        return tuple(Quantity(node, Unit("angle")) for node in found)
    scale = units.degrees_of(rest[0].text) if len(rest) == 1 else None
    if scale is not None:
        return tuple(Quantity(node, scale) for node in found)
    return _minutes_of_arc(found[0], rest) or _directed(found[0], rest)


def _directed(node: Node, rest: Tokens) -> Reading:
    thing = units.counted_thing(rest)
    return () if thing is None else (Quantity(node, Unit(f"angle {thing.kind}", is_known=False)),)


def _minutes_of_arc(node: Node, rest: Tokens) -> Reading:
    texts = "".join(token.text for token in rest)
    minutes, mark, seconds = texts.partition("'")
    seconds = seconds.strip("'\"")
    if not mark or not minutes.isdigit() or (seconds and not seconds.isdigit()):
        return ()
    part = Fraction(int(minutes), 60) + Fraction(int(seconds or 0), 3600)
    return (Quantity(operation("add", node, Number(part)), Unit("angle")),)


def _measured(tokens: Tokens) -> Iterator[Value]:
    """Readings as a number with words, signs or units around it."""
    if tokens[0].text in units.CURRENCIES:
        yield from _after_number(tokens[1:], units.CURRENCIES[tokens[0].text])
    elif tokens[0].text == "-" and len(tokens) > 2 and tokens[1].text in units.CURRENCIES:
        yield from _after_number((tokens[0], *tokens[2:]), units.CURRENCIES[tokens[1].text])
    elif tokens[0].text.lower() in ("rs", "usd", "eur", "inr", "gbp"):
        rest = tokens[2:] if len(tokens) > 1 and tokens[1].text == "." else tokens[1:]
        yield from _after_number(rest, units.unit_of_word(tokens[0].text.lower()))
    else:
        yield from _after_number(tokens, None)


def _after_number(tokens: Tokens, currency: Unit | None) -> Iterator[Value]:
    for node, rest in _numbers_at_start(tokens):
        factor, taken = numerals.scales(rest)
        node, rest = _scaled(node, factor), rest[taken:]
        yield from _with_rest(node, rest, currency)


def _with_rest(node: Node, rest: Tokens, currency: Unit | None) -> Iterator[Value]:
    texts = words_of(rest)
    if texts[:1] in (["%"], ["percent"], ["pct"], ["percentage"]) or texts[:2] == ["per", "cent"]:
        if len(rest) == 1 or texts == ["per", "cent"]:
            yield Percentage(node)
        return
    if not rest:
        yield Formula(node) if currency is None else Quantity(node, currency)
        return
    if texts[0] in ("in", "of", "out") and (chance := _chance(node, rest)) is not None:
        yield Formula(chance)
    if currency is not None:
        same = units.read_unit(rest)
        has_more = same is None or not units.same_kind(same, currency)
        is_rate = texts[0] in ("per", "a", "an", "each", "/", "every")
        if not has_more or is_rate:
            yield Quantity(node, currency)
        return
    for unit in _units(rest):
        yield Quantity(node, unit)


def _units(rest: Tokens) -> Iterator[Unit]:
    unit = units.read_unit(rest)
    if unit is None and rest[-1].text == "old":
        unit = units.read_unit(rest[:-1])
    if unit is not None:
        yield unit
        return
    inside = enclosed(rest)
    if inside is not None and inside[0] == "(":
        rest = inside[1]
    if rest[0].text in ("per", "/") and len(rest) > 1:
        rest = rest[1:]
    thing = units.counted_thing(rest)
    if thing is not None:
        yield thing
        return
    for place in range(len(rest) - 1, 0, -1):
        unit, label = units.read_unit(rest[:place]), units.counted_thing(rest[place:])
        label = label or _rate(rest[place:])
        if unit is not None and label is not None:
            yield Unit(f"{unit.kind} {label.kind}", unit.factor, is_known=False)
            return


def _rate(rest: Tokens) -> Unit | None:
    """`per person`: a thing that is counted behind a unit."""
    return units.counted_thing(rest[1:]) if rest[0].text in ("per", "each", "/", "every", "a") else None


def _chance(node: Node, rest: Tokens) -> Node | None:
    """`1 in 4`, `1 out of 4`."""
    texts = words_of(rest)
    start = 2 if texts[:2] == ["out", "of"] else 1 if texts[0] == "in" else 0
    if not start or len(rest) != start + 1 or rest[start].kind != NUMBER:
        return None
    found = readings(rest[start:])
    return operation("divide", node, found[0]) if found else None


def _numbers_at_start(tokens: Tokens) -> Iterator[tuple[Node, Tokens]]:
    """Each way to begin with a number and end with words, and the rest; the shortest number last."""
    in_words = numerals.number_in_words(tokens)
    if in_words is not None:
        yield Number(in_words[0]), tokens[in_words[1] :]
        return
    for place in range(len(tokens), 0, -1):
        if place < len(tokens) and not _may_begin_unit(tokens, place):
            continue
        found = readings(tokens[:place])
        if found and not free_symbols(found[0]):
            ending = numerals.ordinal_ending(tokens[place:])
            yield found[0], tokens[place + ending :]


def _may_begin_unit(tokens: Tokens, place: int) -> bool:
    token = tokens[place]
    is_like_one = token.kind in (TEXT, LETTERS) or token.text in (
        r"\Omega",
        r"\mu",
        "%",
        "¢",
        "(",
        "^",
        r"\frac",
        "/",
    )
    return (
        is_like_one
        or token.text in units.CURRENCIES
        or (token.text == "{" and tokens[place - 1].kind == NUMBER)
    )


# Words with a value.


def _labelled(tokens: Tokens) -> Reading:
    """`at least 5`, and `Minimum 1`: words before a value."""
    texts = words_of(tokens)
    for words, operator in _BOUNDING.items():
        if texts[: len(words)] == list(words) and len(tokens) > len(words):
            node = _only_formula(tokens[len(words) :])
            return () if node is None else (_ray(operator, node),)
    place = next((i for i, token in enumerate(tokens) if not is_word(token)), len(tokens))
    if not 0 < place < len(tokens) or not all(word in _LABELS for word in texts[:place]):
        return ()
    value = _read(tokens[place:])
    return () if isinstance(value[0], Words) else (Named(" ".join(texts[:place]), value),)


_BOUNDING = {
    ("at", "least"): ">=",
    ("at", "most"): "<=",
    ("no", "less", "than"): ">=",
    ("no", "more", "than"): "<=",
    ("less", "than"): "<",
    ("more", "than"): ">",
    ("greater", "than"): ">",
    ("fewer", "than"): "<",
}
_LABELS = frozenset(
    "minimum maximum min max area perimeter volume length width height radius mean median mode range sum "
    "product probability distance speed time cost price profit number angle side base smallest largest least "
    "greatest first second third point vertex center slope".split()
)
"""Words that say what a value is the value of."""

_READERS: tuple[Callable[[Tokens], Reading], ...] = (
    _moment,
    _system,
    _list,
    _relation,
    _set,
    _congruence,
    _numeral,
    _ratio,
    _signs,
    _brackets,
    _number,
    _labelled,
)
"""In this order; the first that knows the tokens decides."""
