"""The names of functions and constants in formulas, in LaTeX and in plain text."""

from __future__ import annotations

UNARY = {
    **{name: name for name in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "coth")},
    **{name: name for name in ("sech", "csch", "arcsin", "arccos", "arctan", "arccot", "arcsec", "arccsc")},
    **{"asin": "arcsin", "acos": "arccos", "atan": "arctan", "acot": "arccot"},
    **{"arsinh": "arcsinh", "arcosh": "arccosh", "artanh": "arctanh", "asinh": "arcsinh", "acosh": "arccosh"},
    **{"atanh": "arctanh", "arcsinh": "arcsinh", "arccosh": "arccosh", "arctanh": "arctanh"},
    **{"ln": "ln", "lg": "lg", "exp": "exp", "sqrt": "sqrt", "cbrt": "cbrt", "abs": "abs", "cis": "cis"},
    **{"floor": "floor", "ceil": "ceiling", "sgn": "sign", "sign": "sign", "arg": "arg", "Arg": "arg"},
    **{"Re": "real", "Im": "imaginary", "det": "determinant", "log": "log"},
}
"""The operation of each function of one number, by its spellings."""
ANY_NUMBER = {
    "max": "maximum",
    "min": "minimum",
    "gcd": "gcd",
    "lcm": "lcm",
    "hcf": "gcd",
    "GCD": "gcd",
    "LCM": "lcm",
}
"""Functions of one or more numbers in parentheses."""
FUNCTIONS = {**UNARY, **ANY_NUMBER}

INVERSES = {
    **{name: f"arc{name}" for name in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh")},
}
r"""The inverse of each function: `\sin^{-1}` is the arcsine."""

GREEK = frozenset(
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron rho sigma tau upsilon "
    "phi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega Alpha Beta".split()
)
CONSTANTS = {
    "pi": "pi",
    "infty": "infinity",
    "infinity": "infinity",
    "inf": "infinity",
    "Infinity": "infinity",
}
UNKNOWN_FUNCTIONS = frozenset("f g h F G H y u v w p q P Q N T S V".split())
"""Letters that name a function if parentheses follow."""
UNIT_VECTORS = ("i", "j", "k")
BRACKETED = frozenset("floor ceil sgn sign abs arg Arg Re Im det exp cbrt".split())
"""Functions that need brackets in plain text: `floor x/2` could mean two things, and nobody writes it."""
