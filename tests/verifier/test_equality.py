"""Values against mpmath, exact verdicts against fractions, and what no precision tells."""

from __future__ import annotations

import random
from fractions import Fraction

import mpmath
import pytest
from flint import acb, fmpq
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from realrl.verifier import algebraic
from realrl.verifier.arithmetic import NoValue
from realrl.verifier.cursor import Unreadable
from realrl.verifier.equality import equal
from realrl.verifier.evaluation import evaluated
from realrl.verifier.grammar import formula
from realrl.verifier.nodes import negative, operation
from realrl.verifier.tokens import tokenized

DIGITS = 40


def node(text: str):
    return formula(tokenized(text))


FUNCTIONS = {
    r"\sin": mpmath.sin,
    r"\cos": mpmath.cos,
    r"\tan": mpmath.tan,
    r"\cot": mpmath.cot,
    r"\sec": mpmath.sec,
    r"\csc": mpmath.csc,
    r"\sinh": mpmath.sinh,
    r"\cosh": mpmath.cosh,
    r"\tanh": mpmath.tanh,
    r"\coth": mpmath.coth,
    r"\arcsin": mpmath.asin,
    r"\arccos": mpmath.acos,
    r"\arctan": mpmath.atan,
    "arcsinh": mpmath.asinh,
    "arccosh": mpmath.acosh,
    "arctanh": mpmath.atanh,
    r"\ln": mpmath.log,
    r"\log": lambda x: mpmath.log(x, 10),
    r"\log_3": lambda x: mpmath.log(x, 3),
    r"\exp": mpmath.exp,
    "sqrt": mpmath.sqrt,
    "abs": abs,
    "sgn": mpmath.sign,
    "floor": mpmath.floor,
    "ceil": mpmath.ceil,
    r"\operatorname{Re}": mpmath.re,
    r"\operatorname{cis}": lambda x: mpmath.expj(x),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("value", [Fraction(7, 5), Fraction(-3, 7), Fraction(22, 3), Fraction(1, 1000)])
def test_functions_have_the_values_that_mpmath_gives(name, value):
    """Of complex ones the principal value, too."""
    with mpmath.workdps(DIGITS + 20):
        wanted = FUNCTIONS[name](mpmath.mpf(value.numerator) / value.denominator)
        found = evaluated(node(f"{name}(x)"), {"x": fmpq(value.numerator, value.denominator)}, 256)
        parts = (_mpf(found.real), _mpf(found.imag)) if isinstance(found, acb) else (_mpf(found), 0)
        pairs = zip(parts, (mpmath.re(wanted), mpmath.im(wanted)), strict=True)
        assert all(abs(part - w) < mpmath.mpf(10) ** -DIGITS * (1 + abs(w)) for part, w in pairs)


def _mpf(value) -> mpmath.mpf:
    if isinstance(value, fmpq):
        return mpmath.mpf(int(value.p)) / int(value.q)
    return mpmath.mpf(value.str(DIGITS + 5, radius=False))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("(-27)^{2/3}", 9),
        (r"\sqrt[5]{-32}", -2),
        ("64^{-5/6}", Fraction(1, 32)),
        (r"\binom{-1/2}{3}", Fraction(-5, 16)),
        (r"\binom{12}{9}", 220),
        ("7!!", 105),
        ("(1/2)!/(-1/2)!", Fraction(1, 2)),
        (r"\log_{9} 27", Fraction(3, 2)),
        (r"\log_{1/2} 32", -5),
        (r"\lfloor -7/2 \rfloor", -4),
        (r"\lceil -7/2 \rceil", -3),
        (r"\lcm(4, 6, 10)", 60),
        (r"\max(3, \pi, 4)", 4),
        (r"\prod_{k=2}^{9} \left(1-\frac1{k^2}\right)", Fraction(5, 9)),
        (r"\sum_{k=5}^{4} k", 0),
        (r"\sum_{i=1}^{3}\sum_{j=1}^{i} ij", 25),
        (r"\begin{vmatrix} 1&2&3\\4&5&6\\7&8&10 \end{vmatrix}", -3),
        (r"-2^2", -4),
        ("2^{3^2}", 512),
        (r"\frac1{1+\frac1{1+\frac12}}", Fraction(3, 5)),
        (r"1\frac{3}{4}", Fraction(7, 4)),
        (r"\sin^2 30^\circ", Fraction(1, 4)),
    ],
)
def test_values_that_are_known(text, value):
    assert equal(node(text), node(f"({value.numerator})/({value.denominator})"))


@pytest.mark.parametrize(
    "text",
    ["0^0", "1/0", "0/0", r"\ln 0", r"\infty", r"5^{\infty}", "(-3)!", r"9^{9^{9^9}}", r"\tan 90^\circ"],
)
def test_what_has_no_value_is_equal_to_nothing_but_itself(text):
    with pytest.raises(NoValue):
        evaluated(node(text), {}, 512)
    assert equal(node(text), node(text))
    assert not any(
        equal(node(text), node(other)) for other in ("0", "1", f"{text}+1", rf"\frac{{{text}}}{{2}}")
    )


POSITIVE = st.integers(2, 60)


@settings(deadline=None, max_examples=60)
@given(POSITIVE, POSITIVE, st.integers(20, 200))
def test_nested_roots_are_told_exactly(a, b, digits):
    """A square root of a sum of roots is their sum; ten to the minus two hundred away it is not."""
    assume(a != b)
    nested, flat = rf"\sqrt{{{a + b}+2\sqrt{{{a * b}}}}}", rf"\sqrt{{{a}}}+\sqrt{{{b}}}"
    difference = operation("add", node(nested), negative(node(flat)))
    assert algebraic.is_zero(difference) is True
    moved = operation("add", difference, node(f"10^{{-{digits}}}"))
    assert algebraic.is_zero(moved) is False


def test_a_number_that_is_not_algebraic_is_not_decided_there():
    assert algebraic.is_zero(node(r"\pi - 3")) is None and algebraic.is_zero(node(r"\sqrt2^{\sqrt2}")) is None


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (r"10^{60}+1", r"10^{60}"),
        (r"\pi\cdot 10^{-900}", r"e\cdot 10^{-900}"),
        (r"e^{-10^{8}}", r"e^{-10^{8}-10^{-3}}"),
        (r"e^{\pi\sqrt{163}}", "262537412640768744"),
        (r"\left(1+10^{-20}\right)^{10^{20}}", "e"),
        (r"\sin(2^{400})", r"\sin(2^{400}+10^{-30})"),
        (r"\frac{\sin(10^{-30})}{10^{-30}}", "1"),
    ],
)
def test_close_values_are_told_apart(left, right):
    assert not equal(node(left), node(right)) and equal(node(left), node(left))


TERMS = ("x", "x^2", "xy", "y^2", "1", "x^2y", "y")


@pytest.mark.parametrize("seed", range(20))
def test_products_of_polynomials_are_equal_to_their_expansion_only(seed):
    """The oracle multiplies with Python's fractions at more points than the degree needs."""
    draw = random.Random(seed)
    first, second = ([(draw.randint(-9, 9) or 1, term) for term in draw.sample(TERMS, 3)] for _ in range(2))
    product = "".join(f"({_written(factor)})" for factor in (first, second))
    expanded = [(a * b, f"({s})({t})") for a, s in first for b, t in second]
    assert equal(node(product), node(_written(expanded)))
    place = draw.randrange(len(expanded))
    expanded[place] = (expanded[place][0] + 1, expanded[place][1])
    assert not equal(node(product), node(_written(expanded)))


def _written(terms: list[tuple[int, str]]) -> str:
    return " + ".join(f"({factor}){term}" if term != "1" else f"({factor})" for factor, term in terms)


@pytest.mark.parametrize(
    "text",
    ["", "+", "x+", "(x", r"\frac{1}", r"\unknown{3}", "3 4", r"\lim_{x\to0} x", r"\int x dx", "x_", "a & b"],
)
def test_what_is_no_formula_is_not_read(text):
    """Nothing is left out so that the rest is one."""
    with pytest.raises(Unreadable):
        node(text)
