"""Reads formulas, percentages, and numbers with a unit or a counted thing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from realrl.verifier import lexicon, numerals, units
from realrl.verifier.arrays import written_out
from realrl.verifier.choices import LETTERS_OF_CHOICES
from realrl.verifier.functions import FUNCTIONS
from realrl.verifier.grammar import readings
from realrl.verifier.nodes import Node, Number, free_symbols, operation
from realrl.verifier.readers.angles import read_angle
from realrl.verifier.readers.common import Read, scaled
from realrl.verifier.series import summed
from realrl.verifier.slices import cut_at, enclosed, has_text, words_of
from realrl.verifier.tokens import LETTERS, NUMBER, TEXT, Tokens
from realrl.verifier.tree import Formula, Percentage, Quantity, Reading, Unit, Value
from realrl.verifier.unit_table import CURRENCIES

_LONGEST_UNIT = 18
"""The largest number of tokens of a unit together with the tokens around it."""
_MOST_FACTORS = 3
"""The largest number of factors of a product of amounts: a length, a width and a height."""
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
    angle = read_angle(tokens)
    formulas = _formulas(tokens)
    product = () if formulas else _product(tokens)
    if product:
        return product
    if angle:
        return _distinct(angle, formulas)
    measured = list(_measured(tokens))
    has_words = any(token.kind == TEXT for token in tokens)
    if formulas and has_words:
        measured = [value for value in measured if not _is_count(value)]
    if any(isinstance(value, Percentage) for value in measured):
        return _distinct(measured)
    return _distinct(formulas, measured)


def _distinct(*groups: Sequence[Value]) -> Reading:
    """Return the values of all groups, each value once."""
    # A dictionary keeps the order.
    found: dict[Value, None] = {}
    for values in groups:
        found.update(dict.fromkeys(values))
    return tuple(found)


def _is_count(value: Value) -> bool:
    """Return whether a value is a number of things, which have no unit."""
    if not isinstance(value, Quantity):
        return False
    return not value.unit.is_known


def _formulas(tokens: Tokens) -> list[Formula]:
    """Return the formulas that tokens may mean; a word is none."""
    are_letters = all(token.kind == LETTERS for token in tokens)
    if are_letters and _is_short_word(tokens):
        return []
    found: list[Formula] = []
    for node in readings(tokens):
        in_closed_form = summed(written_out(node))
        found.append(Formula(in_closed_form))
    return found


def _is_short_word(tokens: Tokens) -> bool:
    """Return whether a word is known or can be pronounced: `bob`, but not `abc`, `mgh`, `xyz`."""
    for token in tokens:
        word = token.text
        if word in FUNCTIONS:
            continue
        if word.lower() in lexicon.SHORT_WORDS:
            return True
        if _SPOKEN.fullmatch(word):
            return True
    return False


def _measured(tokens: Tokens) -> Iterator[Value]:
    """Yield the readings as a number with words, signs or units around it."""
    currency, amount = _currency_at_start(tokens)
    return _after_number(amount, currency)


def _currency_at_start(tokens: Tokens) -> tuple[Unit | None, Tokens]:
    """Return the currency before an amount, and the other tokens; None and all tokens without one."""
    first = tokens[0].text
    code = first.lower()
    after = tokens[1:]
    second = after[0].text if after else ""
    if first in CURRENCIES:
        return CURRENCIES[first], after
    if first == "-" and len(after) > 1 and second in CURRENCIES:
        return CURRENCIES[second], (tokens[0], *after[1:])
    if code in _CURRENCY_CODES:
        # "Rs." has a point.
        amount = after[1:] if second == "." else after
        return units.unit_of_word(code), amount
    return None, tokens


def _after_number(tokens: Tokens, currency: Unit | None) -> Iterator[Value]:
    """Yield the readings for the longest number at the start whose rest can be read."""
    for node, rest in _numbers_at_start(tokens):
        is_sum = not _is_one_number(tokens, rest)
        if is_sum and rest and rest[0].text == "%":
            continue
        if not is_sum:
            factor, taken = numerals.scales(rest)
            node = scaled(node, factor)
            rest = rest[taken:]
        found = list(_with_rest(node, rest, currency))
        if found:
            yield from found
            return


def _product(tokens: Tokens) -> Reading:
    r"""Return the amount that a product of amounts is: `5 \text{ m} \times 3 \text{ m}`."""
    factors, signs = cut_at(tokens, r"\times", r"\cdot")
    if not signs or len(factors) > _MOST_FACTORS or not all(factors):
        return ()
    nodes: list[Node] = []
    unit: Unit | None = None
    for factor in factors:
        amount = _known_amount(factor)
        if amount is None:
            return ()
        nodes.append(amount.node)
        if isinstance(amount, Quantity):
            unit = amount.unit if unit is None else units.multiplied(unit, amount.unit, 1)
    if unit is None:
        return ()
    return (Quantity(operation("multiply", *nodes), unit),)


def _known_amount(tokens: Tokens) -> Quantity | Formula | None:
    """Return the number, or the number of a known unit, that tokens are; None for anything else."""
    for value in _measured(tokens):
        if isinstance(value, Formula) and not free_symbols(value.node):
            return value
        if isinstance(value, Quantity) and value.unit.is_known:
            return value
    return None


def _is_one_number(tokens: Tokens, rest: Tokens) -> bool:
    """Return whether no sum precedes a rest: a scale would apply to its last term alone."""
    end = len(tokens) - len(rest)
    after_sign = tokens[1:end]
    return not has_text(after_sign, "+", "-")


def _with_rest(node: Node, rest: Tokens, currency: Unit | None) -> Iterator[Value]:
    """Yield the readings of a number with the tokens after it."""
    if not rest:
        if currency is None:
            yield Formula(node)
        else:
            yield Quantity(node, currency)
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
    per = rest[1:]
    if first in _RATE_WORDS and per:
        thing = units.read_unit(per) or units.counted_thing(per)
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
            yield CURRENCIES["£"]
        return
    if around is not None and around[0] == "(":
        rest = around[1]
    if not rest:
        return
    has_preposition = rest[0].text in ("per", "/", "of")
    if has_preposition and len(rest) > 1:
        rest = rest[1:]
    thing = units.counted_thing(rest) or _unit_of_thing(rest)
    if thing is not None:
        yield thing


def _is_letter_of_choice(inside: Tokens) -> bool:
    if len(inside) != 1:
        return False
    return inside[0].text in LETTERS_OF_CHOICES


def _unit_of_thing(rest: Tokens) -> Unit | None:
    """Return a unit that words after it describe, as `litres of water`; the longest unit counts."""
    for place in range(len(rest) - 1, 0, -1):
        unit = units.read_unit(rest[:place])
        if unit is None:
            continue
        words = rest[place:]
        label = units.counted_thing(words) or _rate(words)
        if label is not None:
            kind = f"{unit.kind} {label.kind}"
            return Unit(kind, unit.factor, is_known=False)
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
    total = rest[start:]
    if len(total) != 1 or total[0].kind != NUMBER:
        return None
    found = readings(total)
    if not found:
        return None
    return operation("divide", node, found[0])


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
        if not found or free_symbols(found[0]):
            continue
        rest = tokens[place:]
        ending = numerals.ordinal_ending(rest)
        yield found[0], rest[ending:]


def _may_begin_unit(tokens: Tokens, place: int) -> bool:
    token = tokens[place]
    if token.kind in (TEXT, LETTERS):
        return True
    if token.text in _UNIT_STARTS:
        return True
    if token.text in CURRENCIES:
        return True
    if token.text != "{":
        return False
    return tokens[place - 1].kind == NUMBER
