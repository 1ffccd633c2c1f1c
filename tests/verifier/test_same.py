"""What means the same, and what only looks so. Everything runs in this process: the answers are harmless."""

from __future__ import annotations

import random
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realrl.verifier.same import same_answer as same

EQUAL = {
    "expressions": [
        (r"2\sqrt{3}", r"\sqrt{12}"),
        (r"\sqrt3/2", r"\frac{\sqrt{3}}2"),
        ("(x+1)^2", "x^2+2x+1"),
        (r"\sec^2 y", r"\tan^2(y) + 1"),
        ("i^2 + 2i + 7", "6 + 2i"),
        ("e^{i\\pi}", "-1"),
        (r"\sqrt{0.25}", "1/2"),
        (r"\binom{5}{2}", "10"),
        (r"\log_2 8", "3"),
        ("n!", "n(n-1)!"),
        (r"\sqrt[3]{-8}", "-2"),
        (r"6.72 \times 10^{-5}", ".0000672"),
        (r"\sum_{k=1}^{4} k", "10"),
        (r"\frac{2(2/15)}{2}", "2/15"),
        ("2pi", r"2\pi"),
        ("5√12", r"10\sqrt{3}"),
        ("37.699111843", r"12\pi"),
        ("0.333333", r"\frac{1}{3}"),
    ],
    "lists and sets": [
        (r"\{2,1\}", r"\{1,2\}"),
        (r"\{1,1,2\}", r"\{1,2\}"),
        ("7, 3, 5", "3, 5, 7"),
        (r"3 \text{ or } 4", "4, 3"),
        (r"\text{3 and 4}", "3, 4"),
        (r"\pm 3", "-3, 3"),
        (r"\{1-\sqrt5, -2, 1+\sqrt5\}", r"\{1\pm\sqrt{5},-2\}"),
        ("x = 3, x = 4", "3, 4"),
        ("1/2 or 0.5", "0.5"),
        ("3, 5, 7", "(3, 5, 7)"),
        ("(3,4), (1,2), (3,4)", "(1,2), (3,4)"),
    ],
    "tuples, intervals, matrices": [
        (r"(3,\pi/2)", r"\left( 3, \frac{\pi}{2} \right)"),
        (r"\langle 1, 2 \rangle", "(1,2)"),
        (r"x\in[-2,14/2]", "[-2,7]"),
        (r"-2 \le x \le 7", r"x \in [-2,7]"),
        ("5 > x", r"(-\infty, 5)"),
        (r"x<1 \text{ or } x>2", r"(2,\infty) \cup (-\infty,1)"),
        (r"\begin{bmatrix}1&\frac{8}{2}\end{bmatrix}", r"\begin{pmatrix} 1 & 4 \end{pmatrix}"),
        (r"\begin{pmatrix} 1/2 \\ 3 \end{pmatrix}", "(0.5, 3)"),
        ("7:32", "S:T = 7:32"),
    ],
    "equations": [
        ("y=2x+3", "3+2x"),
        ("5 = x", "5"),
        ("x = 5 + 6 = 11", "11"),
        ("f(2) = 9", "9"),
        ("= 9", "9"),
        (r"\approx 8.24", "8.24"),
        (r"\frac{3}{2} = 1.5", "1.5"),
        ("(x, y) = (5, 8)", "(5,8)"),
        ("34x+45y-20z+100=0", "-34x-45y+20z-100=0"),
        (r"y=-\frac12x+\frac34", "2x+4y-3=0"),
    ],
    "units, words, choices": [
        (r"3\text{ cm}^2", "3"),
        (r"90^\circ", "90"),
        (r"\frac{270}7\text{ degrees}", r"\frac{270}{7}^\circ"),
        ("864 square inches", r"864 \mbox{ inches}^2"),
        ("42 apples", "42"),
        (r"\frac{3}{4} cup", "3/4"),
        ("option C", "C"),
        (r"\$18.90", "18.90"),
        ("evelyn", r"\text{Evelyn}"),
        ("C", r"\text{(C)}"),
        (r"\textbf{(C)}\ 42", r"\text{(C)}"),
        ("52_{8}", "52_8"),
        ("2,74", "2.74"),
    ],
}

UNEQUAL = {
    "expressions": [
        (r"\sqrt{3}", r"\sqrt{2}"),
        ("p-q", "P-Q"),
        (r"\sqrt{x^2}", "x"),
        (r"\sqrt{0.11}", "0.333"),
        ("0.33", r"\frac{1}{3}"),
        ("326.500001", "326.5"),
        (r"\infty", "1"),
        (r"\infty", r"-\infty"),
        ("2^{99}", "2^{98}"),
        ("10^{70}+1", "10^{70}"),
        (r"\sqrt{2} + 10^{-20}", r"\sqrt{2}"),
        ("the cat", r"\sqrt{2}"),
        ("see (above", r"\pi"),
        ("__import__('os').getpid()", r"\pi"),
        ("", "0"),
        (r"5 \in", r"x \in"),
        (r"\text{-}", r"\text{!}"),
    ],
    "lists and sets": [
        (r"\{1,2,3\}", "1,2"),
        (r"\{1,1\}", "1,2"),
        ("3, 3, 5", "3, 5, 5"),
        (r"3 \text{ or } 4", "3"),
        ("3; 4", "3"),
        (r"\pm 3", "3"),
        ("1,2", "12"),
        ("32, 349", "32349"),
        ("a = 2, b = 1", "a = 1, b = 2"),
        ("2, 1", "a = 1, b = 2"),
    ],
    "tuples, intervals, matrices": [
        ("(1,2)", "(2,1)"),
        ("[1,2)", "(1,2]"),
        ("[1,2)", "[1,2]"),
        ("(1,2)", r"\{1,2\}"),
        ("1,2", "(1,2)"),
        ("x<5", r"x\le 5"),
        ("x>5", "x<5"),
        (r"\begin{pmatrix}1&4\end{pmatrix}", r"\begin{pmatrix}1\\4\end{pmatrix}"),
        ("12:00", "1:00"),
        ("-1", r"\begin{pmatrix} 0 & 3 \\ 0 & -1 \end{pmatrix}"),
        (r"2\begin{pmatrix} 0 & 3 \end{pmatrix}", "x"),
    ],
    "equations": [
        ("2x + 3 = 13", "5"),
        ("2x + 3 = 13", "13"),
        ("2x = 10", "x = 5"),
        ("x + 2 < 9", "x < 7"),
        ("< 6", "6"),
        ("y = 5", "x = 5"),
        ("x + y = 1", "x + y = 2"),
        ("0 = 0", "x + y = 2"),
        ("x = x", "x + y = 2"),
        ("3 = 4", "4"),
        ("1", "2x + z = 1"),
    ],
    "units, words, choices": [
        (r"3\text{ m}", "3 cm"),
        ("3 square feet", r"3\text{ ft}"),
        (r"3\text{ or possibly 4}", "3"),
        (r"3\text{ or four}", "3"),
        ("bob", "obb"),
        ("52", "52_8"),
        ("-37_9", "-37_8"),
        ("B", r"\text{(C)}"),
        ("(B) or (C)", r"\text{(C)}"),
        ("(C) or (B)", r"\text{(C)}"),
        ("C. 4 or B. 5", "C"),
        ("C = 3", "C"),
        (r"\text{(C)} + 1", r"\text{(C)}"),
        ("5", r"\text{Evelyn}"),
        ("1,2", "1.3"),
    ],
}


def rows(table: dict) -> list[tuple[str, str]]:
    return [pair for pairs in table.values() for pair in pairs]


@pytest.mark.parametrize(("answer", "solution"), rows(EQUAL))
def test_equal(answer, solution):
    assert same(answer, solution)


@pytest.mark.parametrize(("answer", "solution"), rows(UNEQUAL))
def test_unequal(answer, solution):
    assert not same(answer, solution)


@pytest.mark.parametrize(
    "latex", ["9^{9^{9^{9}}}", "(10^{10})!", "2^{10^{9}} x", "10^{10^{10}} - 10^{10^{10}}", "e^{e^{e^{9}}} x"]
)
def test_what_is_too_large_is_not_computed(latex):
    """It has no value, and equals only itself."""
    assert not same(latex, "5") and not same(f"{latex}+1", latex) and same(latex, latex)


def test_depth_is_bounded():
    """Deeper than the reader goes, an expression is a text, equal to itself only."""
    deep = "(" * 200 + "1" + ")" * 200
    assert same(deep, deep) and not same(deep, "1")


@st.composite
def constants(draw, depth: int = 3) -> tuple[str, Fraction]:
    """`(LaTeX, value)`, the value by Python's fractions."""
    if depth == 0 or draw(st.booleans()):
        number = draw(st.integers(0, 9))
        return str(number), Fraction(number)
    (a, x), (b, y) = draw(constants(depth=depth - 1)), draw(constants(depth=depth - 1))
    kind = draw(st.sampled_from("+-*/^"))
    if kind == "/" and y:
        return rf"\frac{{{a}}}{{{b}}}", x / y
    if kind == "^":
        return f"({a})^{{2}}", x**2
    return {"+": (f"{a} + {b}", x + y), "-": (f"{a} - ({b})", x - y)}.get(
        kind, (rf"({a}) \cdot ({b})", x * y)
    )


@settings(max_examples=60, deadline=None)
@given(constants(), constants())
def test_constants_are_equal_as_fractions_are(first, second):
    assert same(first[0], second[0]) is (first[1] == second[1])


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(-3, 3), min_size=1, max_size=3), st.lists(st.integers(-3, 3), min_size=1, max_size=3)
)
def test_products_are_equal_to_their_expansion_only(roots, others):
    """Python multiplies the factors out; the coefficients decide."""
    factored = "".join(f"(x - ({root}))" for root in roots)
    expanded = " + ".join(f"({c})x^{{{k}}}" for k, c in enumerate(coefficients(others)))
    assert same(factored, expanded) is (Counter(roots) == Counter(others))


def coefficients(roots: list[int]) -> list[int]:
    product = [1]
    for root in roots:
        shifted = [0, *product]
        product = [shifted[i] - root * (product[i] if i < len(product) else 0) for i in range(len(shifted))]
    return product


VALUES = st.lists(st.integers(0, 3), min_size=2, max_size=4)


@settings(deadline=None)
@given(VALUES, VALUES)
def test_lists_are_equal_as_multisets_sets_as_sets_and_tuples_as_tuples(a, b):
    first, second = (", ".join(map(str, values)) for values in (a, b))
    assert same(first, second) is (Counter(a) == Counter(b))
    assert same(rf"\{{{first}\}}", rf"\{{{second}\}}") is (set(a) == set(b))
    assert same(f"({first})", f"({second})") is (a == b)


ENDS = st.tuples(st.sampled_from("(["), st.integers(-2, 2), st.integers(-2, 2), st.sampled_from(")]"))


@settings(deadline=None)
@given(ENDS, ENDS)
def test_intervals_are_equal_if_their_ends_are(a, b):
    first, second = ("{}{},{}{}".format(*ends) for ends in (a, b))
    assert same(first, second) is (a == b)


def test_verdicts_do_not_depend_on_the_order_of_questions():
    """Nothing is kept from one to the next but what was read."""
    cases = [(pair, True) for pair in rows(EQUAL)] + [(pair, False) for pair in rows(UNEQUAL)]
    random.Random(3).shuffle(cases)
    assert all(same(*pair) is expected for pair, expected in cases)
