"""Compares LaTeX expressions by their values, as latex2sympy2-extended reads them.

Two expressions are equal if they agree at points drawn at random, which different ones do with no chance
worth naming (Schwartz 1980, "Fast probabilistic algorithms for verification of polynomial identities").
sympy's `simplify` is asked only where there are no values.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import sympy
from latex2sympy2_extended import latex2sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig

from realrl.rewards.arithmetic import Arithmetic, Number, Undefined
from realrl.rewards.evaluate import Point, evaluate
from realrl.rewards.number import rounds_to

NUM_POINTS = 4
"""All positive; as many more have signs of either kind, and count where both values are real."""

_CONVERSION = ConversionConfig(lowercase_symbols=False)
_FACTOR = re.compile(r"(?<![_^A-Za-z\d.])(\d+(?:\.\d+)?)\(")
"""The parser takes `2(1/3)` for a mixed number."""
_DEGREES = re.compile(r"(\d+(?:\.\d+)?)\^\\circ")
_UNEVALUATED = (sympy.Sum, sympy.Product, sympy.Integral, sympy.Derivative, sympy.Limit)


class SympyExpressions:
    """See `compare.Expressions`. What cannot be read equals nothing.

    Raises: TooLarge where a value would take too long.
    """

    def __init__(self) -> None:
        self._arithmetic = Arithmetic()

    def equal(self, left: str, right: str) -> bool:
        first, second = parse(left), parse(right)
        if first is None or second is None:
            return False
        if isinstance(first, sympy.MatrixBase) and isinstance(second, sympy.MatrixBase):
            return first.shape == second.shape and all(map(self._equal, first, second))
        return _is_scalar(first) and _is_scalar(second) and self._equal(first, second)

    def rounds_to(self, expression: str, decimal: str) -> bool:
        parsed = parse(expression)
        if not _is_scalar(parsed) or _symbols(parsed):
            return False
        try:
            return rounds_to(self._arithmetic.rational(evaluate(parsed, {}, self._arithmetic)), decimal)
        except Undefined:
            return False

    def proportional(self, left: tuple[str, ...], right: tuple[str, ...]) -> bool:
        first, second = _difference(left), _difference(right)
        if first is None or second is None:
            return False
        try:
            ratios = [self._arithmetic.ratio(a, b) for a, b in self._values(first, second)]
        except Undefined:
            return False
        return bool(ratios) and ratios[0] != 0 and all(self._arithmetic.same(r, ratios[0]) for r in ratios)

    def _equal(self, first: sympy.Expr, second: sympy.Expr) -> bool:
        if first == second:
            return True
        pairs = list(self._values(first, second))
        if pairs:
            return all(self._arithmetic.same(a, b) for a, b in pairs)
        return bool(sympy.simplify(first - second) == 0)

    def _values(self, first: sympy.Expr, second: sympy.Expr) -> Iterator[tuple[Number, Number]]:
        """Of both expressions at the points where both have one."""
        for positive, point in _points(_symbols(first) | _symbols(second)):
            try:
                pair = tuple(evaluate(each, point, self._arithmetic) for each in (first, second))
            except Undefined:
                continue
            if positive or all(map(self._arithmetic.is_real, pair)):
                yield pair


def parse(latex: str) -> Any:
    """A tree of sympy, evaluated only in sums, integrals, derivatives and matrices; None if it is none."""
    spelled = _DEGREES.sub(r"(\\frac{\1\\pi}{180})", _FACTOR.sub(r"\1\\cdot(", latex))
    try:
        parsed = latex2sympy(spelled, conversion_config=_CONVERSION)
        if isinstance(parsed, sympy.MatrixExpr):
            parsed = parsed.doit()
        if isinstance(parsed, sympy.MatrixBase):
            return parsed.as_immutable()
        is_unevaluated = isinstance(parsed, sympy.Expr) and parsed.has(*_UNEVALUATED)
        return parsed.doit() if is_unevaluated else parsed
    except (MemoryError, RecursionError):
        raise
    except Exception:  # the parser raises bare ones, and this is the only reading that we have
        return None


def _is_scalar(parsed: Any) -> bool:
    return isinstance(parsed, sympy.Expr) and not isinstance(parsed, (sympy.MatrixBase, sympy.MatrixExpr))


def _difference(sides: tuple[str, ...]) -> sympy.Expr | None:
    """The first side less the last."""
    first, last = parse(sides[0]), parse(sides[-1])
    if not (_is_scalar(first) and _is_scalar(last)):
        return None
    return sympy.Add(first, sympy.Mul(-1, last, evaluate=False), evaluate=False)


def _symbols(expression: sympy.Basic) -> set[sympy.Symbol]:
    return {symbol for symbol in expression.free_symbols if symbol.name != "i"}


def _points(symbols: set[sympy.Symbol]) -> Iterator[tuple[bool, Point]]:
    """`(all values are positive, point)`, the same for the same symbols; one where there are none."""
    draw = random.Random(20)
    names = sorted(symbols, key=lambda symbol: symbol.name)
    for index in range(2 * NUM_POINTS if names else 1):
        signs = (1,) if index < NUM_POINTS else (-1, 1)
        yield len(signs) == 1, {s: draw.choice(signs) * Fraction(draw.randint(20, 300), 101) for s in names}
