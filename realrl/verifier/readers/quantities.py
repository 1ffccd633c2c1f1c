"""Reads formulas, percentages, and numbers with a unit or a counted thing."""

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
from realrl.verifier.slices import enclosed, first_place_of, has_text, words_of
from realrl.verifier.tokens import LETTERS, NUMBER, TEXT, Tokens
from realrl.verifier.tree import Formula, Percentage, Quantity, Reading, Unit, Value

_LONGEST_UNIT = 18
"""The largest number of tokens of a unit together with the tokens around it."""
_SPOKEN = re.compile("[b-df-hj-np-tv-xz][aeiou][b-df-hj-np-tv-xz]")
"""A word of three letters that can be pronounced."""
_CURRENCY_CODES = ("rs", "usd", "eur", "inr", "gbp")
_RATE_WORDS = ("per", "a", "an", "each", "/", "every")
_PERCENT_WORDS = ("%", "percent", "pct", "percentage")
_UNIT_STARTS = (r"\Omega", r"\mu", "%", "¢", "(", "^", r"\frac", "/")
"""Signs that a unit may begin with; `^` begins the ending of an ordinal, too."""


def read_number(tokens: Tokens, _: Read) -> Reading:
    """Return a formula, a percentage, or a number with a unit, the usual meaning first."""
    if not tokens:
        return ()
    repeating = numerals.repeating_decimal(tokens)
    if repeating is not None:
        return (Formula(Number(repeating)),)
    angle = _angle(tokens)
    formulas = [Formula(node) for node in _formulas(tokens)]
    measured = [] if angle else list(_measured(tokens))
    has_words = any(token.kind == TEXT for token in tokens)
    if formulas and has_words:
        measured = [value for value in measured if not _is_count(value)]
    if any(isinstance(value, Percentage) for value in measured):
        formulas = []
    first_is_measure = bool(angle) or not formulas
    found = (*angle, *measured, *formulas) if first_is_measure else (*formulas, *measured)
    # A dictionary drops repeated meanings and keeps the order.
    return tuple(dict.fromkeys(found))


def _is_count(value: Value) -> bool:
    """Return whether a value is a number of things, which have no unit."""
    return isinstance(value, Quantity) and not value.unit.is_known


def _formulas(tokens: Tokens) -> list[Node]:
    are_letters = all(token.kind == LETTERS for token in tokens)
    if are_letters and _is_short_word(tokens):
        return []
    return [summed(written_out(node)) for node in readings(tokens)]


def _is_short_word(tokens: Tokens) -> bool:
    """Return whether a word is known or can be pronounced: `bob`, but not `abc`, `mgh`, `xyz`."""
    for token in tokens:
        word = token.text
        if word in FUNCTIONS:
            continue
        if word.lower() in lexicon.SHORT_WORDS or _SPOKEN.fullmatch(word):
            return True
    return False


def _angle(tokens: Tokens) -> Reading:
    r"""Return an angle or a temperature, as `60^\circ`, `45^\circ 30'` and `20^\circ C`."""
    around = _around_degree_sign(tokens)
    if around is None:
        return ()
    before, rest = around
    with_sign = tokens[: len(tokens) - len(rest)]
    found = _angles(before, with_sign)
    if not found or has_text(before, r"\circ"):
        return ()
    if not rest:
        return tuple(Quantity(node, Unit("angle")) for node in found)
    scale = units.degrees_of(rest[0].text) if len(rest) == 1 else None
    if scale is not None:
        return tuple(Quantity(node, scale) for node in found)
    return _minutes_of_arc(found[0], rest) or _directed(found[0], rest)


def _around_degree_sign(tokens: Tokens) -> tuple[Tokens, Tokens] | None:
    r"""Return the tokens before and after `\circ`, `^\circ` or `^{\circ}`."""
    place = first_place_of(tokens, r"\circ")
    if place is not None:
        start = place
        if tokens[place - 1].text == "^":
            start -= 1
        return tokens[:start], tokens[place + 1 :]
    for place, token in enumerate(tokens):
        if token.text == r"\circ" and tokens[place - 1].text == "{":
            if tokens[place - 2].text != "^":
                return None
            return tokens[: place - 2], tokens[place + 2 :]
    return None


def _angles(before: Tokens, with_sign: Tokens) -> list[Node]:
    r"""Return the values of the tokens before `^\circ`: not in `1 + 70^\circ`."""
    wholes = readings(with_sign)
    found = []
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
    text = "".join(token.text for token in rest)
    minutes, mark, seconds = text.partition("'")
    seconds = seconds.strip("'\"")
    if not mark or not minutes.isdigit():
        return ()
    if seconds and not seconds.isdigit():
        return ()
    num_seconds = 60 * int(minutes) + int(seconds or 0)
    part = Number(Fraction(num_seconds, 3600))
    return (Quantity(operation("add", node, part), Unit("angle")),)


def _measured(tokens: Tokens) -> Iterator[Value]:
    """Yield the readings as a number with words, signs or units around it."""
    first = tokens[0].text
    second = tokens[1].text if len(tokens) > 1 else ""
    if first in units.CURRENCIES:
        yield from _after_number(tokens[1:], units.CURRENCIES[first])
    elif first == "-" and len(tokens) > 2 and second in units.CURRENCIES:
        negative_amount = (tokens[0], *tokens[2:])
        yield from _after_number(negative_amount, units.CURRENCIES[second])
    elif first.lower() in _CURRENCY_CODES:
        currency = units.unit_of_word(first.lower())
        amount = tokens[2:] if second == "." else tokens[1:]
        yield from _after_number(amount, currency)
    else:
        yield from _after_number(tokens, None)


def _after_number(tokens: Tokens, currency: Unit | None) -> Iterator[Value]:
    """Yield the readings for the longest number at the start whose rest can be read."""
    for node, rest in _numbers_at_start(tokens):
        is_sum = not _is_one_number(tokens, rest)
        if is_sum and rest and rest[0].text == "%":
            continue
        factor = Fraction(1)
        taken = 0
        if not is_sum:
            factor, taken = numerals.scales(rest)
        found = list(_with_rest(scaled(node, factor), rest[taken:], currency))
        if found:
            yield from found
            return


def _is_one_number(tokens: Tokens, rest: Tokens) -> bool:
    """Return whether no sum precedes a rest: a scale would apply to its last term alone."""
    number = tokens[1 : len(tokens) - len(rest)]
    return not has_text(number, "+", "-")


def _with_rest(node: Node, rest: Tokens, currency: Unit | None) -> Iterator[Value]:
    """Yield the readings of a number with the tokens after it."""
    if not rest:
        yield Formula(node) if currency is None else Quantity(node, currency)
        return
    texts = words_of(rest)
    is_two_words = texts[:2] == ["per", "cent"]
    if is_two_words or texts[0] in _PERCENT_WORDS:
        if len(rest) == 1 or texts == ["per", "cent"]:
            yield Percentage(node)
        return
    if texts[0] in ("in", "of", "out"):
        chance = _chance(node, rest)
        if chance is not None:
            yield Formula(chance)
    if currency is not None:
        rate = _money_rate(currency, rest)
        if rate is not None:
            yield Quantity(node, rate)
        return
    for unit in _units(rest):
        yield Quantity(node, unit)


def _money_rate(currency: Unit, rest: Tokens) -> Unit | None:
    """Return the unit of an amount of money: the currency written again, or a rate as `per hour`."""
    again = units.read_unit(rest)
    if again is not None and units.same_kind(again, currency):
        return currency
    first = rest[0].text
    thing = None
    if first in _RATE_WORDS and len(rest) > 1:
        thing = units.read_unit(rest[1:]) or units.counted_thing(rest[1:])
    if thing is not None:
        return units.multiplied(currency, thing, -1)
    return currency if first == "each" else None


def _units(rest: Tokens) -> Iterator[Unit]:
    """Yield the units that the tokens after a number may mean."""
    around = enclosed(rest)
    if around is not None and _is_letter_of_choice(around[1]):
        return
    unit = units.read_unit(rest)
    if unit is None and rest[-1].text == "old":
        unit = units.read_unit(rest[:-1])
    if unit is not None:
        yield unit
        # A pound is a unit of mass and of money.
        if words_of(rest) in (["pound"], ["pounds"]):
            yield units.CURRENCIES["£"]
        return
    if around is not None and around[0] == "(":
        rest = around[1]
    if not rest:
        return
    if rest[0].text in ("per", "/", "of") and len(rest) > 1:
        rest = rest[1:]
    thing = units.counted_thing(rest) or _unit_of_thing(rest)
    if thing is not None:
        yield thing


def _is_letter_of_choice(inside: Tokens) -> bool:
    return len(inside) == 1 and inside[0].text in LETTERS_OF_CHOICES


def _unit_of_thing(rest: Tokens) -> Unit | None:
    """Return a unit that words after it describe, as `litres of water`; the longest unit counts."""
    for place in range(len(rest) - 1, 0, -1):
        unit = units.read_unit(rest[:place])
        if unit is None:
            continue
        label = units.counted_thing(rest[place:]) or _rate(rest[place:])
        if label is not None:
            return Unit(f"{unit.kind} {label.kind}", unit.factor, is_known=False)
    return None


def _rate(rest: Tokens) -> Unit | None:
    """Return the counted thing of a rate, as in `per person`."""
    if rest[0].text not in ("per", "each", "/", "every", "a"):
        return None
    return units.counted_thing(rest[1:])


def _chance(node: Node, rest: Tokens) -> Node | None:
    """Return a chance, as `1 in 4` and `1 out of 4`, as a fraction."""
    texts = words_of(rest)
    if texts[:2] == ["out", "of"]:
        start = 2
    elif texts[0] == "in":
        start = 1
    else:
        return None
    if len(rest) != start + 1 or rest[start].kind != NUMBER:
        return None
    found = readings(rest[start:])
    return operation("divide", node, found[0]) if found else None


def _numbers_at_start(tokens: Tokens) -> Iterator[tuple[Node, Tokens]]:
    """Yield each number at the start of tokens, and the rest, which is empty or may be a unit.

    The longest number comes first.
    """
    in_words = numerals.number_in_words(tokens)
    if in_words is not None:
        value, taken = in_words
        yield Number(value), tokens[taken:]
        return
    shortest = max(0, len(tokens) - _LONGEST_UNIT)
    for place in range(len(tokens), shortest, -1):
        if tokens[place - 1].text == "%":
            continue
        if place < len(tokens) and not _may_begin_unit(tokens, place):
            continue
        found = readings(tokens[:place])
        if found and not free_symbols(found[0]):
            ending = numerals.ordinal_ending(tokens[place:])
            yield found[0], tokens[place + ending :]


def _may_begin_unit(tokens: Tokens, place: int) -> bool:
    token = tokens[place]
    if token.kind in (TEXT, LETTERS) or token.text in _UNIT_STARTS:
        return True
    if token.text in units.CURRENCIES:
        return True
    return token.text == "{" and tokens[place - 1].kind == NUMBER
