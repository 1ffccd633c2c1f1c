"""Reads formulas, percentages, and numbers of a unit or a thing that is counted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction

from realrl.verifier import lexicon, numerals, units
from realrl.verifier.arrays import written_out
from realrl.verifier.choices import LETTERS_OF_CHOICES
from realrl.verifier.equality import equal
from realrl.verifier.functions import FUNCTIONS
from realrl.verifier.grammar import readings
from realrl.verifier.nodes import Node, Number, free_symbols, operation
from realrl.verifier.readers.common import Read, scaled
from realrl.verifier.series import summed
from realrl.verifier.slices import enclosed, first_place, words_of
from realrl.verifier.tokens import LETTERS, NUMBER, TEXT, Tokens
from realrl.verifier.tree import Formula, Percentage, Quantity, Reading, Unit, Value

_LONGEST_UNIT = 18
"""The largest number of tokens of a unit together with those around it."""
_SPOKEN = re.compile("[b-df-hj-np-tv-xz][aeiou][b-df-hj-np-tv-xz]")


def read_number(tokens: Tokens, _: Read) -> Reading:
    """A formula, a percentage, or a number with a unit."""
    if not tokens:
        return ()
    repeating = numerals.repeating_decimal(tokens)
    if repeating is not None:
        return (Formula(Number(repeating)),)
    angle = _angle(tokens)
    formulas = tuple(Formula(node) for node in _formulas(tokens))
    measured = () if angle else tuple(_measured(tokens))
    if formulas and any(token.kind == TEXT for token in tokens):
        measured = tuple(
            value for value in measured if not isinstance(value, Quantity) or value.unit.is_known
        )
    if any(isinstance(value, Percentage) for value in measured):
        formulas = ()
    first_is_measure = bool(angle) or not formulas
    found = (*angle, *measured, *formulas) if first_is_measure else (*formulas, *measured)
    return tuple(dict.fromkeys(found))


def _formulas(tokens: Tokens) -> tuple[Node, ...]:
    if all(token.kind == LETTERS for token in tokens) and _is_short_word(tokens):
        return ()
    return tuple(summed(written_out(node)) for node in readings(tokens))


def _is_short_word(tokens: Tokens) -> bool:
    """A word that is known, or can be spoken: `bob`, but not `abc`, `mgh`, `xyz`."""
    words = [token.text for token in tokens if token.text not in FUNCTIONS]
    return any(word.lower() in lexicon.SHORT_WORDS or _SPOKEN.fullmatch(word) for word in words)


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
        start = place - (tokens[place - 1].text == "^")
        before, rest = tokens[:start], tokens[place + 1 :]
    found = _angles(before, tokens[: len(tokens) - len(rest)])
    if not found or any(token.text == r"\circ" for token in before):
        return ()
    if not rest:
        return tuple(Quantity(node, Unit("angle")) for node in found)
    scale = units.degrees_of(rest[0].text) if len(rest) == 1 else None
    if scale is not None:
        return tuple(Quantity(node, scale) for node in found)
    return _minutes_of_arc(found[0], rest) or _directed(found[0], rest)


def _angles(before: Tokens, with_sign: Tokens) -> tuple[Node, ...]:
    r"""What `^\circ` is behind, if it is behind all of that: in `1 + 70^\circ` it is not."""
    wholes = readings(with_sign)
    return tuple(node for node in readings(before) if any(equal(whole, _degrees(node)) for whole in wholes))


def _degrees(node: Node) -> Node:
    return operation("degrees", node)


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
    """Readings as the longest number at the start whose rest can be read."""
    for node, rest in _numbers_at_start(tokens):
        is_sum = not _is_one_number(tokens, rest)
        if is_sum and rest and rest[0].text == "%":
            continue
        factor, taken = (Fraction(1), 0) if is_sum else numerals.scales(rest)
        found = list(_with_rest(scaled(node, factor), rest[taken:], currency))
        if found:
            yield from found
            return


def _is_one_number(tokens: Tokens, rest: Tokens) -> bool:
    """Whether no sum is in front of a rest: a scale would count for its last term alone."""
    number = tokens[1 : len(tokens) - len(rest)]
    return not any(token.text in ("+", "-") for token in number)


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
        rate = _money_rate(currency, rest)
        if rate is not None:
            yield Quantity(node, rate)
        return
    for unit in _units(rest):
        yield Quantity(node, unit)


def _money_rate(currency: Unit, rest: Tokens) -> Unit | None:
    """The unit that the rest makes of a currency: the rest is the currency again, or a rate as `per hour`."""
    again = units.read_unit(rest)
    if again is not None and units.same_kind(again, currency):
        return currency
    is_rate = rest[0].text in ("per", "a", "an", "each", "/", "every") and len(rest) > 1
    what = (units.read_unit(rest[1:]) or units.counted_thing(rest[1:])) if is_rate else None
    if what is None:
        return currency if rest[0].text == "each" else None
    return units.multiplied(currency, what, -1)


def _units(rest: Tokens) -> Iterator[Unit]:
    inside = enclosed(rest)
    if inside is not None and len(inside[1]) == 1 and inside[1][0].text in LETTERS_OF_CHOICES:
        return
    unit = units.read_unit(rest)
    if unit is None and rest[-1].text == "old":
        unit = units.read_unit(rest[:-1])
    if unit is not None:
        yield unit
        if words_of(rest) in (["pound"], ["pounds"]):
            yield units.CURRENCIES["£"]
        return
    if inside is not None and inside[0] == "(":
        rest = inside[1]
    if not rest:
        return
    if rest[0].text in ("per", "/", "of") and len(rest) > 1:
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
    for place in range(len(tokens), max(0, len(tokens) - _LONGEST_UNIT), -1):
        ends_in_percent = tokens[place - 1].text == "%"
        if ends_in_percent or (place < len(tokens) and not _may_begin_unit(tokens, place)):
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
