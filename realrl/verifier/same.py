"""Whether an answer means what a solution does: the one question that the verifier answers."""

from __future__ import annotations

import re
from enum import Enum

from realrl.verifier import choices
from realrl.verifier.comparison import same
from realrl.verifier.limits import MAX_CHARS
from realrl.verifier.reading import read, read_tokens
from realrl.verifier.tokens import Tokens, tokenized
from realrl.verifier.tree import Items, Named, Reading, RealSet, Relation, Words
from realrl.verifier.unconverted import unconverted
from realrl.verifier.words import canonical_words

_DECIMAL_COMMA = re.compile(r"(?<![\d.,])(\d+(?:(?:\\,|\\ |[ ~'])\d{3})*),(\d+)(?![\d,.])")
_CAPITALS = {"T": "true", "F": "false"}
_YES_OR_NO = {"yes it is": "yes", "no it is not": "no"}


def same_answer(answer: str, solution: str, *, convert_units: bool = True) -> bool:
    """Whether an answer means what a solution does. A pure function of the two texts.

    Without `convert_units`, 100 cm are not 1 m.

    Raises:
        RecursionError: a text is nested too deeply.
    """
    return rule_of(answer, solution, convert_units=convert_units).is_same


class Rule(Enum):
    """The first rule that decides about two texts, in the order in which they are tried."""

    TEXT = "the same text"
    LENGTH = f"texts that differ, one of more than {MAX_CHARS} characters"
    NOTHING = "both say nothing"
    ONE_SAYS_NOTHING = "only one of them says anything"
    CHOICE = "the same choice"
    WORDS = "the same words"
    MEANING = "the same meaning"
    VALUE_OF_CHOICE = "the value behind the letter of a choice"
    LETTERS = "the same letters of choices"
    DECIMAL_COMMA = "the same number, where a comma stands before decimals"
    UNGROUPED = "the same list, where a comma separates members rather than digits"
    NONE = "no meaning of one is one of the other"

    @property
    def is_same(self) -> bool:
        return self not in (Rule.LENGTH, Rule.ONE_SAYS_NOTHING, Rule.NONE)


def rule_of(answer: str, solution: str, *, convert_units: bool = True) -> Rule:
    """The rule that decides whether an answer means what a solution does.

    Raises:
        RecursionError: a text is nested too deeply.
    """
    answer, solution = answer.strip(), solution.strip()
    if answer == solution:
        return Rule.TEXT
    if max(len(answer), len(solution)) > MAX_CHARS:
        return Rule.LENGTH
    mine, wanted = tokenized(answer), tokenized(solution)
    if not mine or not wanted:
        return Rule.ONE_SAYS_NOTHING if mine or wanted else Rule.NOTHING
    letter = choices.solution_choice(wanted)
    if letter is not None and choices.picks(mine, letter):
        return Rule.CHOICE
    readings = _Readings(convert_units)
    found, expected = readings.of(answer), readings.of(solution)
    if _same_words(mine, expected):
        return Rule.WORDS
    if same(found, expected):
        return Rule.MEANING
    behind = choices.value_of_choice(mine)
    if behind and letter is None and same(readings.of_tokens(behind), expected):
        return Rule.VALUE_OF_CHOICE
    if _same_letters(mine, wanted, expected):
        return Rule.LETTERS
    if _same_decimal(answer, found, expected, readings):
        return Rule.DECIMAL_COMMA
    return Rule.UNGROUPED if _same_ungrouped(answer, expected, readings) else Rule.NONE


class _Readings:
    """Reads texts, with units that are converted or not."""

    def __init__(self, convert_units: bool) -> None:
        self._converts = convert_units

    def of(self, text: str, *, groups: bool = True) -> Reading:
        return self._told(read(text, groups=groups))

    def of_tokens(self, tokens: Tokens) -> Reading:
        return self._told(read_tokens(tokens))

    def _told(self, reading: Reading) -> Reading:
        return reading if self._converts else unconverted(reading)


def _same_words(mine: Tokens, expected: Reading) -> bool:
    """A solution in words is compared with all words of an answer, whatever else they might be."""
    value = expected[0]
    if not isinstance(value, Words):
        return False
    words = Words(tuple(token.text.casefold() for token in mine if token.text not in ("{", "}")))
    if len(mine) == 1 and mine[0].text in _CAPITALS:
        words = Words((_CAPITALS[mine[0].text],))
    text = canonical_words(words).replace(" ,", "").removeprefix("both ")
    return _YES_OR_NO.get(text, text) == canonical_words(value) != ""


def _same_letters(mine: Tokens, wanted: Tokens, expected: Reading) -> bool:
    """`CD` for `C, D`."""
    letters = choices.chosen_letters(wanted)
    is_list = isinstance(expected[0], Items) and len(letters) > 1
    return is_list and letters == choices.chosen_letters(mine)


def _same_decimal(answer: str, found: Reading, expected: Reading, readings: _Readings) -> bool:
    """`10,50 €` for 10.5, where the solution has no list."""
    is_list = isinstance(found[0], Items) and found[0].kind == "," and not isinstance(expected[0], Items)
    with_point, count = _DECIMAL_COMMA.subn(r"\1.\2", answer)
    # `2,0` are two roots, of which one is 0.
    is_decimal = count == 1 and not re.search(r",0+(?!\d)", answer)
    return is_list and is_decimal and same(readings.of(with_point), expected)


def _same_ungrouped(answer: str, expected: Reading, readings: _Readings) -> bool:
    """`100,200` for the list `100, 200`: a comma is no group of digits where the solution has a list."""
    has_members = isinstance(expected[0], (Items, RealSet, Named, Relation))
    return has_members and "," in answer and same(readings.of(answer, groups=False), expected)
