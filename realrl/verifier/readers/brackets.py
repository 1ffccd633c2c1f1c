"""Reads tuples, intervals, sets and points, all of which are written in brackets."""

from __future__ import annotations

from collections.abc import Sequence

from realrl.verifier import sets
from realrl.verifier.grammar import readings
from realrl.verifier.names import name_of
from realrl.verifier.nodes import Array
from realrl.verifier.readers.common import Read, read_each
from realrl.verifier.readers.lists import is_dots, members_of, read_progression
from realrl.verifier.readers.real_sets import high_end, low_end, named_set
from realrl.verifier.slices import cut_at, enclosed, first_place_of, texts_of, with_depth
from realrl.verifier.tokens import CLOSE, LETTERS, OPEN, SIGN, Token, Tokens
from realrl.verifier.tree import Formula, Items, Named, Reading, Words

_INTERVAL_BRACKETS = (("[", "]"), ("[", ")"), ("(", "]"))
"""Brackets of an interval that is closed at one end or both; in `(1, 2)` a tuple is more usual."""
_TUPLE_BRACKETS = (("(", ")"), (r"\langle", r"\rangle"), ("[", "]"))
_GROUPING_BRACKETS = (("(", ")"), ("[", "]"))
"""Brackets around one value that change nothing."""
_MIN_POINT_TOKENS = 6
"""The number of tokens of the shortest point with a name, `P(3,4)`."""


def read_brackets(tokens: Tokens, read: Read) -> Reading:
    """Return the reading of tokens in one pair of brackets, of a point with a name, or of several tuples."""
    if len(tokens) == 1 and tokens[0].text == r"\emptyset":
        return (Items("{}", ()),)
    around = enclosed(tokens)
    if around is None:
        return _point(tokens, read) or _juxtaposed(tokens, read)
    opening, inside, closing = around
    if opening == r"\{":
        return _braces(inside, read)
    if opening in (r"\lfloor", r"\lceil", "{"):
        return ()
    parts, joints = cut_at(inside, ",", ";", "|")
    if not joints:
        return _alone(opening, inside, closing, read)
    has_bar = "|" in texts_of(joints)
    if has_bar and len(joints) > 1:
        return ()
    if _has_dots(parts):
        return read_progression(parts, "()", read)
    return _tuple((opening, closing), parts, tokens, read)


def _has_dots(parts: Sequence[Tokens]) -> bool:
    return any(is_dots(part) for part in parts)


def _tuple(brackets: tuple[str, str], parts: Sequence[Tokens], tokens: Tokens, read: Read) -> Reading:
    """Return the interval, or else the tuple, that brackets with several parts inside are."""
    members = read_each(parts, read)
    matrices = _matrices(tokens)
    if brackets in _INTERVAL_BRACKETS and len(members) == 2:
        first = members[0][0]
        last = members[1][0]
        if isinstance(first, Formula) and isinstance(last, Formula):
            low = low_end(first.node)
            high = high_end(last.node)
            closed = (brackets[0] == "[", brackets[1] == "]")
            return (sets.bounded(low, high, closed=closed),)
    if brackets not in _TUPLE_BRACKETS:
        return ()
    kind = "[]" if brackets[0] == "[" else "()"
    return (Items(kind, members), *matrices)


def _matrices(tokens: Tokens) -> list[Formula]:
    """Return the readings of tokens as an array of more than one row."""
    found = []
    for node in readings(tokens):
        if isinstance(node, Array) and len(node.rows) > 1:
            found.append(Formula(node))
    return found


def _alone(opening: str, inside: Tokens, closing: str, read: Read) -> Reading:
    """Return the reading of the only value in brackets that change nothing."""
    if (opening, closing) not in _GROUPING_BRACKETS:
        return ()
    return read(inside)


def _braces(inside: Tokens, read: Read) -> Reading:
    """Return a set that is given by its members or by a condition."""
    if not inside:
        return (Items("{}", ()),)
    place = first_place_of(inside, "|", ":")
    if place:
        return _set_by_condition(inside[:place], inside[place + 1 :], read)
    parts, _ = cut_at(inside, ",", ";")
    if _has_dots(parts):
        return read_progression(parts, "{}", read)
    members: list[Reading] = []
    for part in parts:
        if part:
            members.extend(members_of(read(part)))
    return (Items("{}", tuple(members)),)


def _set_by_condition(head: Tokens, condition: Tokens, read: Read) -> Reading:
    r"""Return the set `\{x : x > 2\}`, or the family `\{2k : k \in \mathbb{Z}\}`."""
    found = read(condition)
    named = named_set(found[0])
    if named is not None:
        name = named[0]
        if _is_variable(head, name):
            return found
        return ()
    if name_of(head) is not None:
        return ()
    if not isinstance(found[0], Named):
        return ()
    is_range = isinstance(found[0].value[0], Words)
    if not is_range:
        return ()
    comma = Token(SIGN, ",")
    return read((*head, comma, *condition))


def _is_variable(head: Tokens, name: str) -> bool:
    r"""Return whether the head of a set is the condition's variable: `x`, or `x \in \mathbb{R}`."""
    sides, joints = cut_at(head, r"\in")
    if len(joints) > 1:
        return False
    if joints and texts_of(sides[-1]) != [r"\mathbb R"]:
        return False
    found = name_of(sides[0])
    return found is not None and found.text == name


def _point(tokens: Tokens, read: Read) -> Reading:
    """Return a point with its name, as in `P(3, 4)`."""
    if len(tokens) < _MIN_POINT_TOKENS:
        return ()
    name = tokens[0]
    is_capital = len(name.text) == 1 and name.text.isupper()
    if name.kind != LETTERS or not is_capital:
        return ()
    around = enclosed(tokens[1:])
    if around is None:
        return ()
    opening, inside, _ = around
    if opening != "(" or first_place_of(inside, ",") is None:
        return ()
    # The same text may be a function of several arguments.
    formulas = [Formula(node) for node in readings(tokens)]
    return (Named(name.text, read(tokens[1:])), *formulas)


def _juxtaposed(tokens: Tokens, read: Read) -> Reading:
    """Return tuples that are next to each other, as in `(1,2)(3,4)`."""
    if not tokens or tokens[0].text != "(":
        return ()
    groups: list[Tokens] = []
    start = 0
    for place, (token, depth) in enumerate(with_depth(tokens)):
        if depth != 0:
            continue
        if token.kind == CLOSE:
            groups.append(tokens[start : place + 1])
            start = place + 1
        elif token.kind != OPEN:
            return ()
    members = [read_brackets(group, read) for group in groups]
    if len(groups) < 2:
        return ()
    if not all(map(_is_tuple, members)):
        return ()
    return (Items(",", tuple(members)),)


def _is_tuple(member: Reading) -> bool:
    if not member:
        return False
    value = member[0]
    return isinstance(value, Items) and value.kind == "()"
