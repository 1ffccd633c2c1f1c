"""Finds the answer in a data set's solution."""

from __future__ import annotations

from realrl.verifier.boxed import boxed_answer, cut_off_box
from realrl.verifier.extract import extract_answer
from realrl.verifier.formula_spans import bare, formulas, is_prose

MAX_PLAIN_CHARS = 200
"""The largest number of characters of an answer in prose; a longer text has the answer somewhere in it."""
MAX_STATED_CHARS = 2_000
"""The largest number of characters of an answer that a text states."""


def solution_answer(solution: str) -> str:
    """Return the answer that a solution states, if it is a whole text; else the solution as it is.

    A box, GSM8K's "####" or its length show that it is a whole text. A unit outside of the box is left out. A
    box that never closes ends with the text: a solution is not cut off, but may lack a brace.
    """
    boxed = boxed_answer(solution) or cut_off_box(solution)
    if boxed:
        return boxed
    _, hashes, stated = solution.rpartition("####")
    if hashes:
        line = stated.strip().partition("\n")[0]
        return bare(line[:MAX_STATED_CHARS]) or solution
    inside = _only_formula(solution.strip())
    if inside is not None:
        return inside
    is_long = len(solution) > MAX_PLAIN_CHARS
    if is_long and is_prose(solution[:MAX_STATED_CHARS]):
        return extract_answer(solution) or solution
    return solution


def _only_formula(text: str) -> str | None:
    """Return the inside of the formula that a text is; None if it is anything else."""
    if len(text) > MAX_STATED_CHARS:
        return None
    found = formulas(text)
    if not found:
        return None
    begin, end, inside = found[0]
    if begin != 0 or end != len(text):
        return None
    return inside.strip()
