from __future__ import annotations

import json
import os
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realrl.rewards.extract import extract_answer
from realrl.rewards.math import grade, grade_all, normalise, parse_number
from realrl.rewards.verdict import Verdict


def undecided(left: str, right: str) -> Verdict:
    """Stands where sympy would: shows which comparisons get that far."""
    return Verdict.ERROR


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{42}.", "42"),
        (r"\boxed{1}, no, \boxed{\frac{1}{2}} is it", r"\frac{1}{2}"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{x \in \left\{ 1 \right.} done", r"x \in \left\{ 1 \right."),
        (r"\boxed{7} and then \boxed{8", "7"),
        (r"\boxed{ }", None),
        (r"} \boxed{3} }", "3"),
        ("8 + 5 = 13.", "13"),
        ("10-4", "4"),
        ("10 - 4 = -6", "-6"),
        ("It costs $1,234.50 today", "1,234.50"),
        ("1,2345", "2345"),
        ("the set 3, 5, 7", "7"),
        ("a half: 1/2", "1/2"),
        (r"a half is $\frac{1}{2}$", r"\frac{1}{2}"),
        ("p = .25", ".25"),
        ("x = −3", "-3"),
        ("none at all", None),
        ("", None),
    ],
)
def test_the_answer_is_the_last_box_or_else_the_last_number(text, answer):
    assert extract_answer(text) == answer


@given(st.text(alphabet=r"\boxed{}1", max_size=60))
def test_extraction_agrees_with_trying_every_box(text):
    """Brute force: of all `\\boxed{` the last whose brace closes, found by counting."""
    assert extract_answer(text) == slow_extract(text)


def slow_extract(text: str) -> str | None:
    escaped, i = set(), 0
    while i < len(text):
        opens_box = text.startswith("\\boxed{", i)
        if text[i] == "\\" and not opens_box:
            escaped.add(i + 1)
        i += 2 if text[i] == "\\" and not opens_box else len("\\boxed{") if opens_box else 1
    for start in reversed(range(len(text))):
        if text.startswith("\\boxed{", start) and start not in escaped:
            depth = 0
            for i in range(start + len("\\boxed"), len(text)):
                if i not in escaped:
                    depth += {"{": 1, "}": -1}.get(text[i], 0)
                if depth == 0:
                    return text[start + len("\\boxed{") : i].strip() or None
    runs = [run for run in "".join(c if c == "1" else " " for c in text).split()]
    return runs[-1] if runs else None


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("033", 33),
        ("142.0", 142),
        ("-1,234.5", Fraction(-2469, 2)),
        ("3/4", Fraction(3, 4)),
        (r"\frac34", Fraction(3, 4)),
        (r"-\dfrac{3}{4}", Fraction(-3, 4)),
        (r"2\tfrac{1}{2}", Fraction(5, 2)),
        ("-2 1/2", Fraction(-5, 2)),
        (".5", Fraction(1, 2)),
        ("10\\%", 10),
        ("$5", 5),
        ("5^\\circ", 5),
        (r"3\text{ cm}^2", 3),
        ("10,000", 10000),
        ("10{,}000", 10000),
        (r"10\,000", 10000),
        ("x = 7", 7),
        ("3 5", None),
        ("3, 5", None),
        ("1/0", None),
        ("52_8", None),
        ("1e5", None),
        ("9" * 5000, None),
    ],
)
def test_numbers_are_read_exactly(answer, value):
    assert parse_number(normalise(answer)) == value


@given(st.fractions(), st.fractions())
def test_fractions_are_equal_as_fractions_are(a, b):
    text, solution = f"\\boxed{{{a}}}", f"\\frac{{{b.numerator}}}{{{b.denominator}}}"
    assert grade(text, [solution], undecided) is (Verdict.CORRECT if a == b else Verdict.WRONG)


@given(st.integers(-(10**12), 10**12))
def test_thousands_separators_and_zeros_do_not_change_an_integer(number):
    for text in (f"{number:,}", f"{number}.00", f"{number:,}.0"):
        assert grade(f"The answer is {text}.", [str(number)], undecided) is Verdict.CORRECT
        assert grade(f"The answer is {text}.", [str(number + 1)], undecided) is Verdict.WRONG


@pytest.mark.parametrize(
    ("answer", "solution"),
    [
        (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\frac{\pi}{2})"),
        ("evelyn", r"\text{Evelyn}"),
        (r"\dfrac{\pi}{2}", r"\frac{\pi}2".replace("}2", "}{2}")),
        ("3,5,7", "3, 5, 7"),
        ("P - Q", "P-Q"),
    ],
)
def test_spellings_of_one_expression_are_one_string(answer, solution):
    assert grade(f"\\boxed{{{answer}}}", [solution], undecided) is Verdict.CORRECT


@pytest.mark.parametrize(
    ("answer", "solution"),
    [("bob", "obb"), ("52", "52_8"), ("x" * 500 + "+1", "x"), ("the cat", r"\sqrt{2}"), ("5", "Evelyn")],
)
def test_what_sympy_would_misread_is_decided_before_it(answer, solution):
    assert grade(f"\\boxed{{{answer}}}", [solution], undecided) is Verdict.WRONG


def test_one_of_several_solutions_is_enough_and_a_broken_check_is_no_wrong_answer():
    assert grade(r"\boxed{\sqrt{4}}", ["3", "2"], lambda a, b: Verdict.CORRECT) is Verdict.CORRECT
    assert grade(r"\boxed{\sqrt{4}}", ["3", "2"], lambda a, b: Verdict.TIMEOUT) is Verdict.TIMEOUT
    assert grade(r"\boxed{7}", ["x+1", "7"], undecided) is Verdict.CORRECT
    assert grade("I do not know", ["7"], undecided) is Verdict.NO_ANSWER
    assert grade("7", [r"so it is \boxed{7}"], undecided) is Verdict.CORRECT


def test_many_texts_are_graded_in_their_order():
    texts = [f"\\boxed{{{i}}}" for i in range(20)]
    verdicts = grade_all(texts, [[str(i - i % 2)] for i in range(20)], undecided)
    assert verdicts == [Verdict.CORRECT, Verdict.WRONG] * 10


DATA = Path(os.environ.get("REALRL_MATH_DATA", "no-such-folder"))


@pytest.mark.skipif(not DATA.is_dir(), reason="REALRL_MATH_DATA names no folder of problems")
@pytest.mark.parametrize("name", ["gsm8k_test", "math500", "amc23", "aime24"])
def test_every_solution_of_the_benchmarks_is_its_own_answer(name):
    """And the next problem's solution is not, unless it is the same."""
    solutions = [
        json.loads(line)["solutions"][0] for line in (DATA / f"{name}.jsonl").read_text().splitlines()
    ]
    for solution, other in zip(solutions, [*solutions[1:], solutions[0]], strict=True):
        assert grade(f"thus \\boxed{{{solution}}}", [solution], undecided) is Verdict.CORRECT
        if normalise(solution) != normalise(other):
            assert grade(f"thus \\boxed{{{solution}}}", [other], undecided) is not Verdict.CORRECT
