"""Reasons of verdicts, in words that say what decided; formulas are written as they are read."""

from __future__ import annotations

import pytest

from realrl.verifier.describing import described
from realrl.verifier.equality import equal
from realrl.verifier.explaining import MAX_CHARS, explained
from realrl.verifier.reading import read
from realrl.verifier.same import same_answer
from realrl.verifier.tree import Formula
from realrl.verifier.writing import written

READINGS = {
    r"\frac{2}{4}": "number 2/4",
    "-1.50": "number -1.50",
    "[1,2)": "interval [1, 2)",
    r"x \in [1, \infty)": "interval [1, infinity) for x",
    r"(0,1) \cup [2,3]": "union of 2 intervals: (0, 1), [2, 3]",
    r"1.5 \text{ m}": "number 1.5 in m (length)",
    "60 square feet": "number 60 with a unit of length^2, 145161/1562500 of its base units",
    "42 apples": 'number 42 of "apples"',
    "50 percent": "50 percent",
    "1, 2": "list of 2: number 1, number 2",
    "3 or 4": "2 alternatives: number 3, number 4",
    r"\{\}": "empty set",
    "(1, x)": "tuple of 2: number 1, formula in x: x",
    r"1, 2, \ldots, 9": "list with dots: number 1, number 2, number 9",
    "x = 5": "number 5 for x",
    "2x + 4y = 3": "equation 2*x + 4*y = 3",
    r"\begin{pmatrix} 1 & x \\ 3 & 4 \end{pmatrix}": "matrix of 2 by 2: [1, x; 3, 4]",
    "52_8": "digits 52 in base 8",
    r"3 \pmod 7": "3 modulo 7",
    "3:30 pm": "time 3:30 pm",
    "March 5, 2020": "date day 5, month 3, year 2020",
    "no solution": 'words "no solution"',
    r"\sum_{k=1}^n k^2": "formula in n: sum(k^2, k = 1 to n)",
}


@pytest.mark.parametrize("text", READINGS)
def test_a_reading_is_described(text):
    assert READINGS[text] in described(read(text)).split("; or ")


WHY = [
    ("7", " 7 ", "the same text"),
    (r"\frac{2}{4}", "0.5", "equal, exactly: one quotient of polynomials"),
    (r"\sqrt{2}+\sqrt{3}", r"\sqrt{5+2\sqrt{6}}", "equal, exactly: their difference is 0"),
    (r"\sin^2 x + \cos^2 x", "1", "agree at 28 points, to 400 decimals"),
    ("1.41421356", r"\sqrt{2}", "in decimals, rounded or cut off"),
    ("x^2", "x^2 + C", "differ by a constant"),
    ("x = 5", "5", "the name may be left out, and both are read as number 5"),
    ("30 mm", "3 cm", "one amount, told in other units"),
    (r"\{2, 1\}", r"\{1, 2\}", "the members are equal, in some order"),
    ("(A)", "A", "the same choice"),
    ("1 < x < 2", "(1, 2)", "one set of real numbers"),
    ("4x + 6y = 2", "2x + 3y = 1", "one equation is a multiple of the other"),
    ("3", "7", "their values differ: 3 and 7"),
    (r"1.41 + 0x", r"\sqrt{2}", "their values differ"),
    ("|x - 5|", "5 - x", "their values differ at x = "),
    (r"5^{5^\infty}", "3", "infinity in it, which is no number"),
    ("9^{9^{9^9}}", "3", "only the solution has a value that can be computed"),
    ("[1,2)", "[1,2]", "of the upper bounds one is part of the set, and the other is not"),
    ("(1, 2)", "(1, 3)", "member 2: their values differ: 2 and 3"),
    ("(1, 2)", r"\{1, 2\}", "a tuple is not a set"),
    ("1, 2", "1, 3", "the solution has no member that is number 2"),
    ("1, 2, 3", "1, 2", "there are 3 members, and not 2"),
    ("x = 5", "y = 5", "different names, x and y"),
    ("3 cm", "3 kg", "the units differ: number 3 in cm (length) and number 3 in kg (mass)"),
    ("3 cm", "4 cm", "their values differ: 3 and 4"),
    ("2x + 3 = 13", "x + 3y = 13", "nor is one a multiple of the other"),
    ("no solution", "all real x", 'the words differ: words "no solution" and words'),
    (
        r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}",
        r"\begin{pmatrix} 1 \\ 3 \end{pmatrix}",
        "entry 1 of row 2: their values differ: 2 and 3",
    ),
    ("apple", "3", "a text is not a number"),
    ("x" * 1001, "3", "more than 1000 characters"),
    ("", "3", "only one of them says anything"),
]


@pytest.mark.parametrize(("answer", "solution", "reason"), WHY)
def test_what_decided_is_named(answer, solution, reason):
    assert reason in explained(answer, solution).why


PANEL = sorted({*READINGS, *(text for answer, solution, _ in WHY for text in (answer, solution))})


def test_any_two_answers_have_reasons_that_are_short_and_go_with_the_verdict():
    """Of all pairs of a panel of every kind: a reason for one verdict is never given for the other."""
    reasons: dict[bool, set[str]] = {True: set(), False: set()}
    for answer in PANEL:
        for solution in PANEL:
            found = explained(answer, solution)
            assert all(0 < len(text) <= MAX_CHARS for text in found), (answer, solution)
            why = found.why.partition(",")[0].partition(":")[0]
            reasons[same_answer(answer, solution)].add(why)
    assert len(reasons[True]) > 5 and len(reasons[False]) > 15
    assert not reasons[True] & reasons[False]


FORMULAS = [
    *("x - (y - z)", "-x^2", "(-x)^2", "x*(-2)", "x/(y*z)", "(x/y)/z", "x/(y/z)", "-(x+1)", "(-2)^2", "-2^2"),
    *(
        "2^{-x}",
        "(x+1)^{y+1}",
        r"\frac{x+1}{x-1}",
        r"\frac{1}{2}^2",
        "2^{3^4}",
        "(2^3)^4",
        "x-2y",
        "1.50x",
        "n!",
    ),
    *("(n+1)!", r"\sqrt{x+1}", r"\sin^2 x", r"\ln(x+y)", r"|x-1|", r"\pi x", "-0.05", r"-\frac{1}{3}x"),
]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_is_written_as_it_is_read(text):
    """What is written of it is read as an equal formula: no parenthesis is missing."""
    (formula, *_) = read(text)
    again = read(written(formula.node))
    assert any(isinstance(value, Formula) and equal(value.node, formula.node) for value in again)


@pytest.mark.parametrize(
    "answer",
    ["(" * 400 + "x" + ")" * 400, "-" * 900 + "x", r"\sqrt{" * 150 + "x" + "}" * 150, "9" * 900, "1e9999"],
)
def test_what_is_deep_or_large_is_cut_short(answer):
    found = explained(answer, "3")
    assert all(0 < len(text) < 400 for text in found)
