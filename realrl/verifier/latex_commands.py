"""Tables of LaTeX: commands that change only the looks, commands that contain text, and synonyms."""

from __future__ import annotations

SILENT_COMMANDS = frozenset(
    "displaystyle textstyle scriptstyle limits nolimits mathstrut strut hline noindent centering "
    "left right middle big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr bigm Bigm "
    "large Large LARGE small normalsize huge Huge tiny boldmath bf it rm checkmark therefore because "
    "blacksquare square Box".split()
)
"""Commands without a meaning, which are dropped."""
SPACES = frozenset("quad qquad enspace thinspace medspace thickspace hspace space nobreakspace".split())
ESCAPED_SPACES = frozenset(("\\,", "\\;", "\\:", "\\ ", "\\!", "\\\n", "\\/"))
FONTS = frozenset(
    "mathbf boldsymbol bm mathit mathcal mathscr mathfrak mathtt mathsf texttt textsf pmb underline uline "
    "boxed fbox ensuremath hbox".split()
)
"""Commands that show their argument in another font."""
TEXTS = frozenset(
    "text textbf textit textrm textnormal textup textsc emph mbox mathrm operatorname mathop".split()
)
"""Commands whose argument is words."""
COLORS = frozenset(("textcolor", "colorbox"))
"""Commands that show their second argument in a colour, which is the first."""

BRACKETS = {
    "(": ")",
    "[": "]",
    "{": "}",
    r"\{": r"\}",
    r"\langle": r"\rangle",
    r"\lfloor": r"\rfloor",
    r"\lceil": r"\rceil",
}
"""The closing bracket of each opening one."""

SYNONYMS = {
    # Fractions and binomial coefficients.
    **dict.fromkeys(("dfrac", "tfrac", "cfrac", "sfrac", "nicefrac", "xfrac"), "frac"),
    **dict.fromkeys(("dbinom", "tbinom"), "binom"),
    # Relations.
    **dict.fromkeys(("leq", "leqslant", "leqq"), "le"),
    **dict.fromkeys(("geq", "geqslant", "geqq"), "ge"),
    "neq": "ne",
    "implies": "Rightarrow",
    "iff": "Leftrightarrow",
    "wedge": "land",
    "vee": "lor",
    "lnot": "neg",
    # Signs.
    "ast": "*",
    "star": "*",
    "colon": ":",
    "lt": "<",
    "gt": ">",
    **dict.fromkeys(("lvert", "rvert", "vert", "mid"), "|"),
    # Brackets.
    "lbrack": "[",
    "rbrack": "]",
    "lbrace": "{",
    "rbrace": "}",
    "lang": "langle",
    "rang": "rangle",
    # Functions.
    "arctg": "arctan",
    "tg": "tan",
    "ctg": "cot",
    "cotg": "cot",
    "cosec": "csc",
    "th": "tanh",
    "sh": "sinh",
    "ch": "cosh",
    "bmod": "mod",
    "surd": "sqrt",
    # Letters.
    "varphi": "phi",
    "varepsilon": "epsilon",
    "vartheta": "theta",
    "varrho": "rho",
    "bar": "overline",
    "widehat": "hat",
    # Dots, sets and the rest.
    **dict.fromkeys(("dots", "dotsc", "dotso"), "ldots"),
    **dict.fromkeys(("dotsb", "dotsm"), "cdots"),
    "varnothing": "emptyset",
    "empty": "emptyset",
    "smallsetminus": "setminus",
    "backslash": "setminus",
    "degree": "circ",
    "infin": "infty",
}
"""The command, sign or bracket that each of these commands is a synonym of."""
SIGNS = frozenset(("*", ":", "<", ">", "|"))
"""Signs that have a command as a synonym."""
ASCII_SIGNS = {"**": "^", "<=": r"\le", ">=": r"\ge", "!=": r"\ne", "<>": r"\ne", "==": "="}
"""The sign or command that two characters mean."""
