"""The value of a tree of sympy at a point, by arithmetic that never takes long.

sympy's own evaluation of `9^(9^(9^9))` takes all time and memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

import sympy
from sympy.core.function import AppliedUndef

from realrl.rewards.arithmetic import Arithmetic, Number, Undefined

Point = Mapping[sympy.Symbol, Fraction]
Rule = Callable[[Arithmetic, Sequence[Number]], Number]


def evaluate(node: sympy.Basic, point: Point, arithmetic: Arithmetic) -> Number:
    """The value where the symbols have the values of `point`; an `i` that has none is the imaginary unit.

    Raises: TooLarge, Undefined.
    """
    if node.is_Symbol:
        return _symbol(node, point, arithmetic)
    if node.is_Rational:
        return Fraction(int(node.p), int(node.q))
    if node.is_Float:
        return Fraction(str(node))
    rule = _RULES.get(node.func.__name__)
    if rule is None and not isinstance(node, AppliedUndef):
        return _constant(node, arithmetic)
    arguments = [evaluate(argument, point, arithmetic) for argument in node.args]
    try:
        return rule(arithmetic, arguments) if rule else _unknown(node, arguments, arithmetic)
    except (ZeroDivisionError, ValueError, TypeError) as error:
        raise Undefined(str(error)) from None


def _symbol(symbol: sympy.Symbol, point: Point, arithmetic: Arithmetic) -> Number:
    if symbol in point:
        return point[symbol]
    if symbol.name == "i":
        return arithmetic.context.mpc(0, 1)
    raise Undefined(symbol.name)


def _constant(node: sympy.Basic, arithmetic: Arithmetic) -> Number:
    context = arithmetic.context
    constants = {
        sympy.pi: context.pi,
        sympy.E: context.e,
        sympy.EulerGamma: context.euler,
        sympy.GoldenRatio: context.phi,
        sympy.oo: context.inf,
        -sympy.oo: -context.inf,
        sympy.I: context.mpc(0, 1),
    }
    if node not in constants:
        raise Undefined(node.func.__name__)
    return +constants[node]


def _unknown(node: AppliedUndef, arguments: Sequence[Number], arithmetic: Arithmetic) -> Number:
    """Of a function without a meaning: some number that depends on its name and its arguments only."""
    spelled = ",".join(arithmetic.context.nstr(arithmetic.inexact(a), 30) for a in arguments)
    seed = sum(ord(c) * 131**i for i, c in enumerate(f"{node.func.__name__}({spelled})"))
    return Fraction(seed % 1_000_003, 99_991) + 1


def _by(function: str) -> Rule:
    return lambda arithmetic, arguments: arithmetic.call(function, arguments)


_TRIGONOMETRIC = ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh")
_BY_NAME = (
    "gamma",
    "floor",
    "zeta",
    "re",
    "im",
    "binomial",
    *_TRIGONOMETRIC,
    *(f"a{t}" for t in _TRIGONOMETRIC),
)
_RULES: dict[str, Rule] = {
    "Add": Arithmetic.sum,
    "Mul": Arithmetic.product,
    "Pow": lambda arithmetic, arguments: arithmetic.power(*arguments),
    "exp": lambda arithmetic, arguments: arithmetic.power(+arithmetic.context.e, *arguments),
    "log": lambda arithmetic, arguments: arithmetic.log(*arguments),
    "factorial": lambda arithmetic, arguments: arithmetic.factorial(*arguments),
    "UnevaluatedExpr": lambda arithmetic, arguments: arguments[0],
    "Abs": lambda arithmetic, arguments: abs(arguments[0]),
    "Max": lambda arithmetic, arguments: max(arguments, key=arithmetic.inexact),
    "Min": lambda arithmetic, arguments: min(arguments, key=arithmetic.inexact),
    "ceiling": _by("ceil"),
    "conjugate": _by("conj"),
    **{name: _by(name) for name in _BY_NAME},
}
"""By the names of sympy's classes."""
