"""Explains a verdict: how both sides were read, and the rule that decided.

    texts ─▶ rule (same.py) ─▶ the same meaning ─▶ agreements.py  ┐
                            ├▶ no such meaning  ─▶ differences.py ┼▶ a sentence
                            └▶ any other rule ────────────────────┘

Two formulas are explained by formula_reasons.py. The code that judges decides at every level whether values
are the same; these modules only word it. An answer can do to them what it can do to a comparison, so they run
in the same processes.
"""

from __future__ import annotations

from typing import NamedTuple

from realrl.verifier.agreements import why_same
from realrl.verifier.describing import described
from realrl.verifier.differences import why_not
from realrl.verifier.leniency import USUAL, Leniency
from realrl.verifier.reading import read
from realrl.verifier.same import Rule, rule_of
from realrl.verifier.unconverted import unconverted
from realrl.verifier.writing import shortened

MAX_CHARS = 1200
"""The largest number of characters of each text of an explanation."""


class PairExplanation(NamedTuple):
    """How two texts were read, and why they mean the same or not."""

    answer: str
    solution: str
    why: str


def explained(answer: str, solution: str, leniency: Leniency = USUAL) -> PairExplanation:
    """Explain what `same_answer` says of an answer and a solution."""
    rule = rule_of(answer, solution, leniency)
    if rule is Rule.LENGTH:
        return PairExplanation("a text that is too long to read", "a text", rule.value)
    found = read(answer.strip())
    expected = read(solution.strip())
    if not leniency.convert_units:
        found = unconverted(found)
        expected = unconverted(expected)
    if rule is Rule.MEANING:
        why = why_same(found, expected)
    elif rule is Rule.NONE:
        why = why_not(found, expected)
    else:
        why = rule.value
    return PairExplanation(
        shortened(described(found), MAX_CHARS),
        shortened(described(expected), MAX_CHARS),
        shortened(why, MAX_CHARS),
    )
