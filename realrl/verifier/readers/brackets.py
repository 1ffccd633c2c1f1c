"""Reads what brackets hold: tuples, intervals, sets, points."""

from __future__ import annotations

from collections.abc import Sequence

from realrl.verifier import sets
from realrl.verifier.grammar import readings
from realrl.verifier.names import name_of
from realrl.verifier.nodes import Array
from realrl.verifier.readers.common import Read
from realrl.verifier.readers.lists import is_dots, members_of, read_progression
from realrl.verifier.readers.real_sets import high_end, low_end, named_set
from realrl.verifier.slices import cut, enclosed, first_place, with_depth
from realrl.verifier.tokens import CLOSE, LETTERS, OPEN, SIGN, Token, Tokens
from realrl.verifier.tree import Formula, Items, Named, Reading, Words


def read_brackets(tokens: Tokens, read: Read) -> Reading:
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
    parts, joints = cut(inside, lambda token: token.text in (",", ";", "|"))
    if not joints:
        return _alone(opening, inside, closing, read)
    if any(joint.text == "|" for joint in joints) and len(joints) > 1:
        return ()
    if any(is_dots(part) for part in parts):
        return read_progression(parts, "()", read)
    return _tuple(opening, closing, parts, tokens, read)


def _tuple(opening: str, closing: str, parts: Sequence[Tokens], tokens: Tokens, read: Read) -> Reading:
    members = tuple(map(read, parts))
    arrays = tuple(Formula(node) for node in readings(tokens) if isinstance(node, Array))
    is_interval = (opening, closing) in (("[", "]"), ("[", ")"), ("(", "]")) and len(members) == 2
    if is_interval and all(isinstance(member[0], Formula) for member in members):
        low, high = low_end(members[0][0].node), high_end(members[1][0].node)
        return (sets.bounded(low, high, closed=(opening == "[", closing == "]")),)
    if (opening, closing) in (("(", ")"), (r"\langle", r"\rangle"), ("[", "]")):
        matrices = [array for array in arrays if len(array.node.rows) > 1]
        return (Items("[]" if opening == "[" else "()", members), *matrices)
    return ()


def _alone(opening: str, inside: Tokens, closing: str, read: Read) -> Reading:
    if (opening, closing) not in (("(", ")"), ("[", "]")):
        return ()
    return read(inside)


def _braces(inside: Tokens, read: Read) -> Reading:
    """A set, by its members or by a condition."""
    if not inside:
        return (Items("{}", ()),)
    place = first_place(inside, lambda token: token.text in ("|", ":"))
    if place:
        return _set_by_condition(inside[:place], inside[place + 1 :], read)
    parts, _ = cut(inside, lambda token: token.text in (",", ";"))
    if any(is_dots(part) for part in parts):
        return read_progression(parts, "{}", read)
    members = [member for part in parts if part for member in members_of(read(part))]
    return (Items("{}", tuple(members)),)


def _set_by_condition(head: Tokens, condition: Tokens, read: Read) -> Reading:
    r"""`\{x : x > 2\}`, and the family `\{2k : k \in \mathbb{Z}\}`."""
    found = read(condition)
    named = named_set(found[0])
    if named is not None:
        return found if _is_variable(head, named[0]) else ()
    is_family = name_of(head) is None and isinstance(found[0], Named) and isinstance(found[0].value[0], Words)
    return read((*head, Token(SIGN, ","), *condition)) if is_family else ()


def _is_variable(head: Tokens, name: str) -> bool:
    r"""Whether a set is made of the variable that its condition is about: `x`, or `x \in \mathbb{R}`."""
    sides, joints = cut(head, lambda token: token.text == r"\in")
    in_line = not joints or [token.text for token in sides[-1]] == [r"\mathbb R"]
    found = name_of(sides[0])
    return len(joints) < 2 and in_line and found is not None and found[0] == name


def _point(tokens: Tokens, read: Read) -> Reading:
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
    return (Named(tokens[0].text, read(tokens[1:])), *formulas)


def _juxtaposed(tokens: Tokens, read: Read) -> Reading:
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
    members = [read_brackets(group, read) for group in groups]
    are_tuples = all(member and isinstance(member[0], Items) and member[0].kind == "()" for member in members)
    return (Items(",", tuple(members)),) if len(groups) > 1 and are_tuples else ()
