"""Sixty solutions of every kind, no two of which mean the same.

None is a percentage, a residue or a numeral of another either: `docs/verifier.md` gives these two readings.
"""

from __future__ import annotations

KINDS: dict[str, tuple[str, ...]] = {
    "whole numbers": ("0", "1", "-12", "360", "1000003", "123456789012345678901"),
    "fractions and decimals": (r"\frac{3}{17}", r"-\frac{22}{7}", "2.74", r"5\frac{3}{8}"),
    "roots and constants": (
        r"\sqrt{3}",
        r"5\sqrt{2}-4",
        r"\sqrt[3]{19}",
        r"12\pi",
        r"\frac{\pi^2}{6}",
        r"\ln 5",
    ),
    "complex numbers": ("3-4i", r"-\frac{1}{2}+\frac{\sqrt{3}}{2}i"),
    "polynomials": ("x^2-5x+6", "2x+9", "x^3y-4xy^2"),
    "functions": (
        "|x-5|",
        r"\ln(x^2+1)",
        r"\sin 2x",
        r"\frac{x+1}{x-2}",
        r"\lfloor x \rfloor",
        "e^{-x}",
        "n!",
        r"\frac{x^4}{4}+C",
    ),
    "intervals": (r"(-\infty, 4)", "[-3, 8)", r"(2, 9] \cup [11, \infty)"),
    "sets and lists": (r"\{2, 5, 13\}", r"\emptyset", "3, 14, 15", r"8 \pm \sqrt{6}"),
    "tuples and matrices": ("(4, -6)", "(1, 2, 10)", r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}"),
    "statements": (
        r"x \ge 21",
        "3x-7y=41",
        "y=6x-17",
        "x^2+y^2=49",
        "x = 26, y = -31",
    ),
    "words and choices": (
        r"\text{Evelyn}",
        r"\text{blue whale}",
        r"\text{yes}",
        r"\text{does not exist}",
        r"\text{(C)}",
    ),
    "quantities": (
        r"35\text{ cm}",
        r"24\text{ square feet}",
        r"70^\circ",
        r"\$18.90",
        r"62\%",
        r"4.2 \text{ million}",
    ),
    "dates, bases, moduli": ("March 5", r"10:45 \text{ am}", "7:32", "2012_3", r"41 \pmod{97}"),
}

PANEL: tuple[str, ...] = tuple(solution for solutions in KINDS.values() for solution in solutions)
