"""The answer in a solution that a data set gives."""

from __future__ import annotations

from realrl.verifier.boxed import boxed_answer
from realrl.verifier.extract import extract_answer
from realrl.verifier.formula_spans import bare, formulas, is_prose

MAX_PLAIN_CHARS = 200
"""The largest number of characters of an answer in prose; a longer text states its answer somewhere."""
MAX_STATED_CHARS = 2_000
"""The largest number of characters of an answer that a text states."""


def solution_answer(solution: str) -> str:
    """Return a solution's answer: of a whole text the one that it states, else the solution as it is.

    A text is told by a box, by GSM8K's "####", or by its length. A unit outside of the box is left out.
    """
    boxed = boxed_answer(solution)
    if boxed:
        return boxed
    _, hashes, stated = solution.rpartition("####")
    if hashes:
        line = stated.strip().partition("\n")[0]
        return bare(line[:MAX_STATED_CHARS]) or solution
    whole = solution.strip()
    if len(whole) <= MAX_STATED_CHARS:
        found = formulas(whole)
        if found and (found[0].begin, found[0].end) == (0, len(whole)):
            return found[0].inside.strip()
    if len(solution) > MAX_PLAIN_CHARS and is_prose(solution[:MAX_STATED_CHARS]):
        return extract_answer(solution) or solution
    return solution
