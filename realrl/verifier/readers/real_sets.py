"""Reads sets of real numbers: the line, unions, intersections, differences, and open intervals."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from realrl.verifier import lexicon, sets
from realrl.verifier.names import name_of
from realrl.verifier.nodes import Constant, Node, Number, Operation
from realrl.verifier.readers.common import Read, as_words, only_formula
from realrl.verifier.slices import cut, enclosed, is_balanced, words_of
from realrl.verifier.tokens import CLOSE, OPEN, Token, Tokens
from realrl.verifier.tree import Formula, Items, Named, Reading, RealSet, Value, Words


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
        found = sets.bounded(low_end(nodes[0]), high_end(nodes[1]), closed=(False, False))
        # A tuple whose second number is not the larger one is no interval.
        return found if sets.merged(found).parts else None
    if value.kind == "{}":
        points = (sets.bounded(node, node, closed=(True, True)).parts[0] for node in nodes)
        return RealSet(tuple(points))
    return None


def low_end(node: Node) -> Node | None:
    """A lower bound, or None where it is minus infinity."""
    return None if infinity_sign(node) < 0 else node


def high_end(node: Node) -> Node | None:
    """An upper bound, or None where it is infinity."""
    return None if infinity_sign(node) > 0 else node


def infinity_sign(node: Node) -> int:
    """1 of infinity, -1 of minus infinity, 0 of anything else."""
    match node:
        case Constant("infinity"):
            return 1
        case Operation("negative", (Constant("infinity"),)):
            return -1
    return 0


def named_set(value: Value) -> tuple[str, RealSet] | None:
    if isinstance(value, RealSet):
        return "", value
    if isinstance(value, Named) and isinstance(value.value[0], RealSet):
        return value.name, value.value[0]
    return None


def read_set(tokens: Tokens, read: Read) -> Reading:
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
    return _set_operation(tokens, read)


def _set_operation(tokens: Tokens, read: Read) -> Reading:
    parts, joints = cut(tokens, lambda token: token.text in (r"\cup", r"\cap", r"\setminus"))
    if not joints and tokens and tokens[0].text == r"\mathbb R":
        parts, joints = cut(tokens, lambda token: token.text == "-")
    if not joints or not all(parts):
        return ()
    found = [as_real_set(read(_in_braces(part))[0]) for part in parts]
    if any(each is None for each in found):
        return _of_names(parts, {joint.text for joint in joints})
    total = found[0]
    for joint, each in zip(joints, found[1:], strict=True):
        total = _combined(joint.text, total, each)
        if total is None:
            return ()
    return (total,)


def _in_braces(tokens: Tokens) -> Tokens:
    """A part in bare braces, as `{1, 2}` of plain text, as the set that it is."""
    around = enclosed(tokens)
    if around is None or around[0] != "{":
        return tokens
    return (Token(OPEN, r"\{"), *around[1], Token(CLOSE, r"\}"))


def _of_names(parts: Sequence[Tokens], joints: set[str]) -> Reading:
    r"""`A \cup B`, which is `B \cup A`."""
    if not all(map(name_of, parts)) or joints not in ({r"\cup"}, {r"\cap"}):
        return ()
    names = sorted(" ".join(as_words(part).words) for part in parts)
    return (Words((*joints, *names)),)


def _combined(sign: str, left: RealSet, right: RealSet) -> RealSet | None:
    if sign == r"\cup":
        return RealSet((*left.parts, *right.parts))
    if sign == r"\cap":
        return sets.intersection((left, right))
    outside = sets.complement(right)
    return None if outside is None else sets.intersection((left, outside))


def read_open_interval(tokens: Tokens, read: Read) -> Reading:
    """`]1, 2[` and `[1, 2[`, whose brackets have no partners."""
    if len(tokens) < 4 or tokens[0].text not in ("]", "[", "(") or tokens[-1].text not in ("[", "]", ")"):
        return ()
    if {tokens[0].text, tokens[-1].text} <= {"(", ")"}:
        return ()
    parts, _ = cut(tokens[1:-1], lambda token: token.text in (",", ";"))
    if len(parts) != 2 or not all(map(is_balanced, parts)):
        return ()
    low, high = (only_formula(part, read) for part in parts)
    if low is None or high is None:
        return ()
    closed = (tokens[0].text == "[", tokens[-1].text == "]")
    return (sets.bounded(low_end(low), high_end(high), closed=closed),)
