"""Decides whether an answer means what a solution does, which is the purpose of the verifier."""

from __future__ import annotations

import re
from enum import Enum

from realrl.verifier import choices
from realrl.verifier.comparison import same
from realrl.verifier.leniency import USUAL, Leniency
from realrl.verifier.limits import MAX_CHARS
from realrl.verifier.readers.common import as_words
from realrl.verifier.reading import read, read_tokens
from realrl.verifier.renaming import renamed
from realrl.verifier.rounded import with_exact_numbers
from realrl.verifier.slices import has_text
from realrl.verifier.tokens import Tokens, tokenized
from realrl.verifier.tree import Items, Named, Reading, RealSet, Relation, Words
from realrl.verifier.unconverted import unconverted
from realrl.verifier.words import canonical_words

_DECIMAL_COMMA = re.compile(r"(?<![\d.,])(\d+(?:(?:\\,|\\ |[ ~'])\d{3})*),(\d+)(?![\d,.])")
_ORDER_SIGNS = ("<", ">", r"\le", r"\ge")
_CAPITALS = {"T": "true", "F": "false"}
_YES_OR_NO = {"yes it is": "yes", "no it is not": "no"}


def same_answer(answer: str, solution: str, leniency: Leniency = USUAL) -> bool:
    """Return whether an answer means what a solution does; a pure function of the two texts.

    Raises:
        RecursionError: a text is nested too deeply.
    """
    return rule_of(answer, solution, leniency).is_same


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
    ORDER = "an order is not the set that it describes, as the settings say"
    ROUNDED = "the same, with fewer digits for a number that has more, as the settings allow"
    RENAMED = "the same, with another letter for a variable, as the settings allow"
    NONE = "no meaning of one is one of the other"

    @property
    def is_same(self) -> bool:
        """Whether the rule accepts the answer."""
        return self not in (Rule.LENGTH, Rule.ONE_SAYS_NOTHING, Rule.ORDER, Rule.NONE)


def rule_of(answer: str, solution: str, leniency: Leniency = USUAL) -> Rule:
    """Return the rule that decides whether an answer means what a solution does.

    Raises:
        RecursionError: a text is nested too deeply.
    """
    answer = answer.strip()
    solution = solution.strip()
    if answer == solution:
        return Rule.TEXT
    if max(len(answer), len(solution)) > MAX_CHARS:
        return Rule.LENGTH
    mine = tokenized(answer)
    wanted = tokenized(solution)
    if not mine or not wanted:
        if mine or wanted:
            return Rule.ONE_SAYS_NOTHING
        return Rule.NOTHING
    letter = choices.solution_choice(wanted)
    if letter is not None and choices.picks(mine, letter):
        return Rule.CHOICE
    readings = _Readings(leniency.convert_units)
    found = readings.of(answer)
    expected = readings.of(solution)
    if _same_words(mine, expected):
        return Rule.WORDS
    if same(found, expected):
        return _rule_of_meaning(mine, wanted, leniency)
    behind = choices.value_of_choice(mine)
    if behind and letter is None and same(readings.of_tokens(behind), expected):
        return Rule.VALUE_OF_CHOICE
    if _same_letters(mine, wanted, expected):
        return Rule.LETTERS
    if _same_decimal(answer, found, expected, readings):
        return Rule.DECIMAL_COMMA
    if _same_ungrouped(answer, expected, readings):
        return Rule.UNGROUPED
    if leniency == USUAL:
        return Rule.NONE
    return _rule_of_settings(mine, wanted, readings, leniency)


def _rule_of_settings(mine: Tokens, wanted: Tokens, readings: _Readings, leniency: Leniency) -> Rule:
    """Return the setting that accepts an answer which is wrong without it; `NONE` without one."""
    expected = readings.of_tokens(wanted)
    if leniency.rounds and _same_rounded(readings.of_tokens(mine), expected, leniency):
        return Rule.ROUNDED
    with_its_letter = renamed(mine, wanted) if leniency.rename else ()
    if with_its_letter and same(readings.of_tokens(with_its_letter), expected):
        return Rule.RENAMED
    return Rule.NONE


def _rule_of_meaning(mine: Tokens, wanted: Tokens, leniency: Leniency) -> Rule:
    """Return the rule of two texts that mean the same: one may be an order, and the other a set."""
    if leniency.orders_as_sets:
        return Rule.MEANING
    is_order = has_text(mine, *_ORDER_SIGNS)
    if is_order and not has_text(wanted, *_ORDER_SIGNS):
        return Rule.ORDER
    return Rule.MEANING


def _same_rounded(found: Reading, expected: Reading, leniency: Leniency) -> bool:
    """Return whether readings are the same, where decimals of fewer digits than usual stand for numbers."""
    exact = with_exact_numbers(found, expected, leniency.answer_digits)
    if same(exact, expected):
        return True
    wanted = with_exact_numbers(expected, exact, leniency.solution_digits)
    return same(exact, wanted)


class _Readings:
    """Reads texts; `convert_units` says whether quantities of different units can be equal."""

    def __init__(self, convert_units: bool) -> None:
        self._converts = convert_units

    def of(self, text: str, *, groups: bool = True) -> Reading:
        """Return the reading of a text; with `groups`, `1,234` is one number."""
        return self._in_units(read(text, groups=groups))

    def of_tokens(self, tokens: Tokens) -> Reading:
        """Return the reading of tokens."""
        return self._in_units(read_tokens(tokens))

    def _in_units(self, reading: Reading) -> Reading:
        if self._converts:
            return reading
        return unconverted(reading)


def _same_words(mine: Tokens, expected: Reading) -> bool:
    """Return whether a solution in words has all words of an answer, whatever else the answer might mean."""
    value = expected[0]
    if not isinstance(value, Words):
        return False
    wanted = canonical_words(value)
    said = canonical_words(_words_of_answer(mine))
    said = said.replace(" ,", "").removeprefix("both ")
    said = _YES_OR_NO.get(said, said)
    return said == wanted and wanted != ""


def _words_of_answer(tokens: Tokens) -> Words:
    """Return the tokens of an answer as words; a single T or F is true or false."""
    if len(tokens) == 1 and tokens[0].text in _CAPITALS:
        return Words((_CAPITALS[tokens[0].text],))
    return as_words(tokens)


def _same_letters(mine: Tokens, wanted: Tokens, expected: Reading) -> bool:
    """Return whether both choose the same letters, as `CD` for `C, D`."""
    if not isinstance(expected[0], Items):
        return False
    letters = choices.chosen_letters(wanted)
    if len(letters) < 2:
        return False
    return letters == choices.chosen_letters(mine)


def _same_decimal(answer: str, found: Reading, expected: Reading, readings: _Readings) -> bool:
    """Return whether an answer with a decimal comma is the solution, as `10,50 €` for 10.5.

    It never is where the solution is a list.
    """
    if isinstance(expected[0], Items):
        return False
    value = found[0]
    if not isinstance(value, Items) or value.kind != ",":
        return False
    with_point, count = _DECIMAL_COMMA.subn(r"\1.\2", answer)
    # `2,0` are two roots, of which one is 0.
    has_zero_member = re.search(r",0+(?!\d)", answer)
    if count != 1 or has_zero_member:
        return False
    return same(readings.of(with_point), expected)


def _same_ungrouped(answer: str, expected: Reading, readings: _Readings) -> bool:
    """Return whether an answer is the list that a solution is, as `100,200` for `100, 200`.

    A comma separates no groups of digits where the solution has members.
    """
    has_members = isinstance(expected[0], (Items, RealSet, Named, Relation))
    if not has_members or "," not in answer:
        return False
    return same(readings.of(answer, groups=False), expected)
