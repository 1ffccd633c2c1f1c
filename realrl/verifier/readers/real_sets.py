"""Reads sets of real numbers: the line, unions, intersections, differences, and open intervals."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from realrl.verifier import lexicon, sets
from realrl.verifier.names import name_of
from realrl.verifier.nodes import Constant, Node, Number, Operation
from realrl.verifier.readers.common import Read, as_words, only_formula
from realrl.verifier.slices import (
    cut_at,
    enclosed,
    is_balanced,
    texts_of,
    texts_without_braces,
    words_of,
)
from realrl.verifier.tokens import CLOSE, OPEN, Token, Tokens
from realrl.verifier.tree import Formula, Interval, Items, Named, Reading, RealSet, Value, Words

_OPERATIONS = (r"\cup", r"\cap", r"\setminus")


def as_real_set(value: Value) -> RealSet | None:
    """Return the set of real numbers that a value may mean: an interval, or a set of numbers; else None."""
    if isinstance(value, RealSet):
        return value
    if not isinstance(value, Items):
        return None
    nodes: list[Node] = []
    for item in value.items:
        member = item[0]
        if not isinstance(member, Formula):
            return None
        nodes.append(member.node)
    if value.kind == "()" and len(nodes) == 2:
        return _open_interval(*nodes)
    if value.kind == "{}":
        points = [_single_point(node) for node in nodes]
        return RealSet(tuple(points))
    return None


def _open_interval(low: Node, high: Node) -> RealSet | None:
    found = sets.bounded(low_end(low), high_end(high), closed=(False, False))
    # A tuple whose second number is not the larger one is no interval.
    is_interval = bool(sets.merged(found).parts)
    return found if is_interval else None


def _single_point(node: Node) -> Interval:
    return sets.bounded(node, node, closed=(True, True)).parts[0]


def low_end(node: Node) -> Node | None:
    """Return a lower bound, or None if it is minus infinity."""
    if infinity_sign(node) < 0:
        return None
    return node


def high_end(node: Node) -> Node | None:
    """Return an upper bound, or None if it is infinity."""
    if infinity_sign(node) > 0:
        return None
    return node


def infinity_sign(node: Node) -> int:
    """Return 1 for infinity, -1 for minus infinity and 0 for anything else."""
    match node:
        case Constant("infinity"):
            return 1
        case Operation("negative", (Constant("infinity"),)):
            return -1
    return 0


def named_set(value: Value) -> tuple[str, RealSet] | None:
    """Return a set of real numbers with its name, which is empty for a set alone; None for other values."""
    if isinstance(value, RealSet):
        return "", value
    if not isinstance(value, Named):
        return None
    inside = value.value[0]
    if not isinstance(inside, RealSet):
        return None
    return value.name, inside


def sets_of_one_name(found: Sequence[tuple[str, RealSet] | None]) -> tuple[str, list[RealSet]] | None:
    """Return the name that all named sets have, and the sets; None if a name is missing or differs."""
    names: set[str] = set()
    inside: list[RealSet] = []
    for named in found:
        if named is None or not named[0]:
            return None
        names.add(named[0])
        inside.append(named[1])
    if len(names) != 1:
        return None
    return names.pop(), inside


def joined_pieces(found: Sequence[RealSet]) -> RealSet:
    """Return the intervals of several sets as one set, in their order and not merged."""
    pieces: list[Interval] = []
    for each in found:
        pieces.extend(each.parts)
    return RealSet(tuple(pieces))


def read_set(tokens: Tokens, read: Read) -> Reading:
    r"""Return `\mathbb{R}`, its positive or negative half, or the result of operations on intervals."""
    if len(tokens) == 1 and tokens[0].text == r"\mathbb R":
        return (sets.ALL,)
    half = _half_line(tokens)
    if half is not None:
        return (half,)
    words = words_of(tokens)
    if words and " ".join(words) in lexicon.ALL_REALS:
        return (sets.ALL,)
    return _set_operation(tokens, read)


def _half_line(tokens: Tokens) -> RealSet | None:
    r"""Return the numbers that `\mathbb{R}^+` or `\mathbb{R}^-` means."""
    if texts_of(tokens[:2]) != [r"\mathbb R", "^"]:
        return None
    exponent = texts_without_braces(tokens[2:])
    sign = "".join(exponent)
    zero = Number(Fraction(0))
    if sign == "+":
        return sets.bounded(zero, None, closed=(False, False))
    if sign == "-":
        return sets.bounded(None, zero, closed=(False, False))
    return None


def _set_operation(tokens: Tokens, read: Read) -> Reading:
    """Return the result of unions, intersections and differences, from left to right."""
    parts, joints = cut_at(tokens, *_OPERATIONS)
    if not joints and tokens and tokens[0].text == r"\mathbb R":
        parts, joints = cut_at(tokens, "-")
    if not joints or not all(parts):
        return ()
    operands = _operands(parts, read)
    if operands is None:
        return _of_names(parts, set(texts_of(joints)))
    total = operands[0]
    for joint, operand in zip(joints, operands[1:], strict=True):
        combined = _combined(joint.text, total, operand)
        if combined is None:
            return ()
        total = combined
    return (total,)


def _operands(parts: Sequence[Tokens], read: Read) -> list[RealSet] | None:
    """Return the sets that all parts mean; None if one means anything else."""
    values = [read(_in_braces(part))[0] for part in parts]
    found: list[RealSet] = []
    for value in values:
        operand = as_real_set(value)
        if operand is None:
            return None
        found.append(operand)
    return found


def _in_braces(tokens: Tokens) -> Tokens:
    """Return a part in bare braces, as `{1, 2}` of plain text, with the braces of a set."""
    around = enclosed(tokens)
    if around is None or around[0] != "{":
        return tokens
    _, inside, _ = around
    return (Token(OPEN, r"\{"), *inside, Token(CLOSE, r"\}"))


def _of_names(parts: Sequence[Tokens], joints: set[str]) -> Reading:
    r"""Return a union or an intersection of named sets in one order: `A \cup B` is `B \cup A`."""
    if not all(map(name_of, parts)):
        return ()
    if joints not in ({r"\cup"}, {r"\cap"}):
        return ()
    names: list[str] = []
    for part in parts:
        name = as_words(part)
        names.append(" ".join(name.words))
    return (Words((*joints, *sorted(names))),)


def _combined(sign: str, left: RealSet, right: RealSet) -> RealSet | None:
    if sign == r"\cup":
        return RealSet((*left.parts, *right.parts))
    if sign == r"\cap":
        return sets.intersection((left, right))
    outside = sets.complement(right)
    if outside is None:
        return None
    return sets.intersection((left, outside))


def read_open_interval(tokens: Tokens, read: Read) -> Reading:
    """Return an interval as `]1, 2[` or `[1, 2[`, whose brackets have no partners."""
    if len(tokens) < 4:
        return ()
    opening = tokens[0].text
    closing = tokens[-1].text
    if opening not in ("]", "[", "("):
        return ()
    if closing not in ("[", "]", ")"):
        return ()
    if opening == "(" and closing == ")":
        return ()
    inside = tokens[1:-1]
    parts, _ = cut_at(inside, ",", ";")
    if len(parts) != 2:
        return ()
    if not all(map(is_balanced, parts)):
        return ()
    low = only_formula(parts[0], read)
    high = only_formula(parts[1], read)
    if low is None or high is None:
        return ()
    closed = (opening == "[", closing == "]")
    found = sets.bounded(low_end(low), high_end(high), closed=closed)
    return (found,)
