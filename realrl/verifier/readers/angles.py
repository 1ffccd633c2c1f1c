r"""Reads angles and temperatures: `60^\circ`, `45^\circ 30'`, `30^\circ north`, `20^\circ C`."""

from __future__ import annotations

from fractions import Fraction

from realrl.verifier import units
from realrl.verifier.equality import equal
from realrl.verifier.grammar import readings
from realrl.verifier.nodes import Node, Number, operation
from realrl.verifier.slices import first_place_of, has_text, texts_of
from realrl.verifier.tokens import Tokens
from realrl.verifier.tree import Quantity, Reading, Unit


def read_angle(tokens: Tokens) -> Reading:
    r"""Return an angle or a temperature, with all values that its number may have."""
    around = _around_degree_sign(tokens)
    if around is None:
        return ()
    before, rest = around
    sign_end = len(tokens) - len(rest)
    values = _values(before, tokens[:sign_end])
    if not values or has_text(before, r"\circ"):
        return ()
    if not rest:
        return _quantities(values, Unit("angle"))
    if len(rest) == 1:
        scale = units.degrees_of(rest[0].text)
        if scale is not None:
            return _quantities(values, scale)
    usual = values[0]
    return _minutes_of_arc(usual, rest) or _directed(usual, rest)


def _quantities(nodes: list[Node], unit: Unit) -> Reading:
    return tuple(Quantity(node, unit) for node in nodes)


def _around_degree_sign(tokens: Tokens) -> tuple[Tokens, Tokens] | None:
    r"""Return the tokens before and after `\circ`, `^\circ` or `^{\circ}`."""
    place = first_place_of(tokens, r"\circ")
    if place is not None:
        rest = tokens[place + 1 :]
        is_raised = tokens[place - 1].text == "^"
        return tokens[: place - is_raised], rest
    for place, token in enumerate(tokens):
        if token.text != r"\circ" or tokens[place - 1].text != "{":
            continue
        if tokens[place - 2].text != "^":
            return None
        rest = tokens[place + 2 :]
        return tokens[: place - 2], rest
    return None


def _values(before: Tokens, with_sign: Tokens) -> list[Node]:
    r"""Return the values of the tokens before `^\circ`: none in `1 + 70^\circ`, which adds a number."""
    wholes = readings(with_sign)
    found: list[Node] = []
    for node in readings(before):
        in_degrees = operation("degrees", node)
        if any(equal(whole, in_degrees) for whole in wholes):
            found.append(node)
    return found


def _directed(node: Node, rest: Tokens) -> Reading:
    """Return an angle with words that say its direction or its kind."""
    thing = units.counted_thing(rest)
    if thing is None:
        return ()
    unit = Unit(f"angle {thing.kind}", is_known=False)
    return (Quantity(node, unit),)


def _minutes_of_arc(node: Node, rest: Tokens) -> Reading:
    """Return an angle with the minutes and seconds after its degrees."""
    text = "".join(texts_of(rest))
    minutes, mark, seconds = text.partition("'")
    seconds = seconds.strip("'\"") or "0"
    if not mark or not minutes.isdigit():
        return ()
    if not seconds.isdigit():
        return ()
    num_seconds = 60 * int(minutes) + int(seconds)
    part = Number(Fraction(num_seconds, 3600))
    total = operation("add", node, part)
    return (Quantity(total, Unit("angle")),)
