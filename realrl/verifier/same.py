"""Whether an answer means what a solution does: the one question that the verifier answers."""

from __future__ import annotations

from realrl.verifier import choices
from realrl.verifier.comparison import canonical_words, same
from realrl.verifier.reading import read, read_tokens
from realrl.verifier.tokens import Tokens, tokenized
from realrl.verifier.tree import Items, Named, Reading, RealSet, Relation, Words

MAX_CHARS = 1000
"""A longer answer is compared as a text only: solutions are short."""
_CAPITALS = {"T": "true", "F": "false"}
_YES_OR_NO = {"yes it is": "yes", "no it is not": "no"}


def same_answer(answer: str, solution: str) -> bool:
    """Whether an answer means what a solution does. A pure function of the two texts.

    Raises:
        RecursionError: a text is nested too deeply.
    """
    answer, solution = answer.strip(), solution.strip()
    if answer == solution:
        return True
    if max(len(answer), len(solution)) > MAX_CHARS:
        return False
    mine, wanted = tokenized(answer), tokenized(solution)
    if not mine or not wanted:
        return not mine and not wanted
    letter = choices.solution_choice(wanted)
    if letter is not None and choices.picks(mine, letter):
        return True
    found, expected = read(answer), read(solution)
    if _same_words(mine, expected) or same(found, expected):
        return True
    behind = choices.value_of_choice(mine)
    if behind and letter is None and same(read_tokens(behind), expected):
        return True
    return _same_letters(mine, wanted, expected) or _same_ungrouped(answer, expected)


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


def _same_ungrouped(answer: str, expected: Reading) -> bool:
    """`100,200` for the list `100, 200`: a comma is no group of digits where the solution has a list."""
    has_members = isinstance(expected[0], (Items, RealSet, Named, Relation))
    return has_members and "," in answer and same(read(answer, groups=False), expected)
