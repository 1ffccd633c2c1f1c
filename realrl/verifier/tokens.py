r"""Cuts an answer into tokens: numbers, letters, words, commands, signs and brackets.

Only what is listed here as silent is dropped: spaces, sizes of brackets, fonts, dollar signs of formulas,
colours. Everything else is a token, and a reader that does not know a token does not read the text.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import NamedTuple

from realrl.verifier.spelling import spelled

NUMBER, LETTERS, TEXT, COMMAND, SIGN, OPEN, CLOSE = (
    *("number", "letters", "text", "command"),
    *("sign", "open", "close"),
)

SILENT_COMMANDS = frozenset(
    "displaystyle textstyle scriptstyle limits nolimits mathstrut strut hline noindent centering "
    "left right middle big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr bigm Bigm "
    "large Large LARGE small normalsize huge Huge tiny boldmath bf it rm checkmark therefore because "
    "blacksquare square Box".split()
)
"""They change nothing but the looks."""
FONTS = frozenset(
    "mathbf boldsymbol bm mathit mathcal mathscr mathfrak mathtt mathsf texttt textsf pmb underline uline "
    "boxed fbox ensuremath hbox".split()
)
"""They show what they hold in another font."""
TEXTS = frozenset(
    "text textbf textit textrm textnormal textup textsc emph mbox mathrm operatorname mathop".split()
)
"""They hold words."""
_COLORS = frozenset(("textcolor", "colorbox"))
SYNONYMS = {
    **dict.fromkeys(("dfrac", "tfrac", "cfrac", "sfrac", "nicefrac", "xfrac"), "frac"),
    **dict.fromkeys(("dbinom", "tbinom"), "binom"),
    **{"leq": "le", "geq": "ge", "leqslant": "le", "geqslant": "ge", "leqq": "le", "geqq": "ge", "neq": "ne"},
    **{
        "varnothing": "emptyset",
        "empty": "emptyset",
        "degree": "circ",
        "ast": "*",
        "colon": ":",
        "star": "*",
    },
    **{
        "lt": "<",
        "gt": ">",
        "lvert": "|",
        "rvert": "|",
        "vert": "|",
        "mid": "|",
        "lbrack": "[",
        "rbrack": "]",
    },
    **{
        "arctg": "arctan",
        "tg": "tan",
        "ctg": "cot",
        "cotg": "cot",
        "cosec": "csc",
        "th": "tanh",
        "sh": "sinh",
    },
    **{"ch": "cosh", "bmod": "mod", "dots": "ldots", "dotsc": "ldots", "dotsb": "cdots", "dotsm": "cdots"},
    **{"dotso": "ldots", "varphi": "phi", "varepsilon": "epsilon", "vartheta": "theta", "varrho": "rho"},
    **{
        "surd": "sqrt",
        "bar": "overline",
        "lnot": "neg",
        "smallsetminus": "setminus",
        "backslash": "setminus",
        "infin": "infty",
    },
    **{"widehat": "hat", "rang": "rangle", "lang": "langle", "wedge": "land", "vee": "lor"},
    **{"lbrace": "{", "rbrace": "}", "iff": "Leftrightarrow", "implies": "Rightarrow"},
}
_AS_SIGN = {"*", ":", "<", ">", "|", "&"}
_SPACES = {
    "quad",
    "qquad",
    "enspace",
    "thinspace",
    "medspace",
    "thickspace",
    "hspace",
    "space",
    "nobreakspace",
}

_TOKEN = re.compile(
    r"""
    (?P<grouped>(?<![\d.])(?<!(?<!\\),)(?:[1-9]\d{0,2}(?:,\d{3})+|[1-9]\d{0,2}(?:,\d\d)+,\d{3})(?:\.\d+)?(?![\d]|,\d|\.\d))
    |(?P<number>\d+(?:\.\d+)?|\.\d+)
    |(?P<letters>[^\W\d_]+)
    |\\(?P<command>[A-Za-z]+)\*?
    |(?P<escaped>\\.)
    |(?P<space>\s+)
    |(?P<dots>\.\.\.+)
    |(?P<sign>\*\*|<=|>=|!=|<>|==|=>|->|.)
    """,
    re.VERBOSE | re.DOTALL,
)
_EXPONENT_NUMBER = re.compile(r"(\d+(?:\.\d+)?|\.\d+)[eE]([+-]?\d+)(?![\w.])")
_FINE_GROUPS = re.compile(
    r"(?<![\d.])(?<!(?<!\\),)([1-9]\d{0,2})"
    r"((?:(?:\\,|\\ |\s*\{,\s*\}\s*|\{\\,\}|,\s*\\!\s*|\\;| |'|~)\d{3})+)(?!\d|,\d)"
)
_DOTTED_GROUPS = re.compile(
    r"(?<![\d.])(?<!(?<!\\),)(\d{1,3}(?:\.\d{3})+),(\d+)(?![\d.,])|(?<![\d.])(?<!(?<!\\),)(\d{1,3}(?:\.\d{3}){2,})(?![\d.,])"
)
_SLANTED_FRACTION = re.compile(r"(?:\{\})?\^\{?(\d+)\}?/_\{?(\d+)\}?")
_COMBINATIONS = re.compile(r"(?:\{\})?[_^](?:\{(\w{1,3})\}|(\w))\{?C\}?_(?:\{(\w{1,3})\}|(\w))")
_COMBINATIONS_BELOW = re.compile(r"(?<![A-Za-z\\])C_\{?(\d+|n)\}?\^\{?(\d+|[a-z])\}?")
_GROUP_SIGNS = re.compile(r"\\[,; !]|[{}]|[\s,'~]")
_GLUED_SPACE = re.compile(r"(\\q?quad)(?=[A-Za-z])")
_BRACED_SIGN = re.compile(r"\{\s*([,:=;.])\s*\}")
_ESCAPED_BREAK = re.compile(r"\\\\(?=[A-Za-z{}(),;!])")

_OPENING = {"(": ")", "[": "]", "{": "}", r"\{": r"\}", r"\langle": r"\rangle", r"\lfloor": r"\rfloor"}
_OPENING[r"\lceil"] = r"\rceil"
_CLOSING = frozenset(_OPENING.values())


class Token(NamedTuple):
    """A piece of an answer."""

    kind: str
    text: str
    after_space: bool = False

    def is_sign(self, *signs: str) -> bool:
        return self.kind in (SIGN, COMMAND) and self.text in signs


Tokens = Sequence[Token]


@functools.lru_cache(maxsize=4096)
def tokenized(text: str, *, groups: bool = True) -> tuple[Token, ...]:
    """The tokens of an answer; with `groups`, `1,234` is one number, else a list of two."""
    text = spelled(text).replace("\0", " ")
    if r"\begin" not in text:
        text = _ESCAPED_BREAK.sub(r"\\", text)
    text = _GLUED_SPACE.sub(r"\1 ", text)
    if groups:
        text = _FINE_GROUPS.sub(_joined, text)
        text = _DOTTED_GROUPS.sub(_without_points, text)
    text = _SLANTED_FRACTION.sub(r"\\frac{\1}{\2}", text)
    text = _COMBINATIONS.sub(r"\\binom{\1\2}{\3\4}", text)
    text = _COMBINATIONS_BELOW.sub(r"\\binom{\1}{\2}", text)
    text = _BRACED_SIGN.sub(r"\1", text)
    text = _EXPONENT_NUMBER.sub(_scientific, text)
    return tuple(_Cutter(text, groups).tokens())


def _joined(match: re.Match[str]) -> str:
    return match[1] + _GROUP_SIGNS.sub("", match[2])


def _without_points(match: re.Match[str]) -> str:
    """`1.234,5` and `1.234.567`, with points between groups and a comma before decimals."""
    return match[1].replace(".", "") + f".{match[2]}" if match[1] else match[3].replace(".", "")


def _scientific(match: re.Match[str]) -> str:
    r"""`1.5e3` as `{1.5\cdot10^{3}}`."""
    return rf"{{{match[1]}\cdot 10^{{{int(match[2])}}}}}" if len(match[2]) < 8 else match[0]


class _Cutter:
    """Walks over a text once."""

    def __init__(self, text: str, groups: bool) -> None:
        self._text, self._groups, self._at = text, groups, 0
        self._found: list[Token] = []
        self._after_space = False

    def tokens(self) -> list[Token]:
        while self._at < len(self._text):
            match = _TOKEN.match(self._text, self._at)
            self._at = match.end()
            kind, text = match.lastgroup, match[match.lastgroup]
            if kind == "grouped" and not self._groups:
                match = re.compile(r"\d+").match(self._text, match.start())
                self._at, kind, text = match.end(), "number", match[0]
            self._take(kind, text)
        return self._found

    def _take(self, kind: str, text: str) -> None:
        if kind == "space" or (
            kind == "escaped" and text in ("\\,", "\\;", "\\:", "\\ ", "\\!", "\\\n", "\\/")
        ):
            self._after_space = self._after_space or text != "\\!"
        elif kind == "grouped":
            self._add(NUMBER, text.replace(",", ""))
        elif kind == "number":
            self._add(NUMBER, text)
        elif kind == "letters":
            self._add(LETTERS, text)
        elif kind == "command":
            self._command(text)
        elif kind == "dots":
            self._add(COMMAND, r"\ldots")
        elif kind == "escaped":
            self._escaped(text)
        else:
            self._sign(text)

    def _add(self, kind: str, text: str) -> None:
        self._found.append(Token(kind, text, self._after_space))
        self._after_space = False

    def _escaped(self, text: str) -> None:
        sign = text[1]
        if text in _OPENING or text in _CLOSING:
            self._add(OPEN if text in _OPENING else CLOSE, text)
        elif sign in "$%&#_":
            self._add(SIGN, sign)
        elif text == r"\\":
            self._add(SIGN, r"\\")
        elif sign in "()[]":
            self._after_space = True
        elif sign == "|":
            self._add(SIGN, r"\|")
        else:
            self._add(SIGN, text)

    def _sign(self, text: str) -> None:
        text = {"**": "^", "<=": r"\le", ">=": r"\ge", "!=": r"\ne", "<>": r"\ne", "==": "="}.get(text, text)
        if text in ("=>", "->"):
            self._add(COMMAND, r"\to")
        elif text == "$":
            self._dollar()
        elif text in ("~", "\\"):  # a lone backslash is what is left of a space
            self._after_space = True
        elif text in _OPENING:
            self._add(OPEN, text)
        elif text in _CLOSING:
            self._add(CLOSE, text)
        elif text.startswith("\\"):
            self._add(COMMAND, text)
        else:
            self._add(SIGN, text)

    def _dollar(self) -> None:
        """Money before a number where no formula begins: a formula's sign has a twin."""
        is_money = re.match(r"\s*-?[\d.]", self._text[self._at :][:20]) and self._text.count("$") % 2
        if is_money:
            self._add(SIGN, "$")

    def _command(self, name: str) -> None:
        name = SYNONYMS.get(name, name)
        if name in SILENT_COMMANDS:
            self._skip_invisible_bracket(name)
        elif name in _SPACES:
            self._after_space = True
            self._skip_argument_of(name)
        elif name == "color":
            self._argument()
        elif name in _COLORS:
            self._argument()
            self._inner(self._argument())
        elif name in FONTS:
            self._inner(self._argument())
        elif name in TEXTS:
            self._words(self._argument())
        elif name in ("imath", "jmath"):
            self._add(LETTERS, name[0])
        elif name == "mathbb":
            self._add(COMMAND, rf"\mathbb {(self._argument() or '').strip()}")
        elif name in ("begin", "end"):
            self._environment(name)
        elif name in _AS_SIGN:
            self._add(SIGN, name)
        elif name in ("{", "}"):
            self._add(OPEN if name == "{" else CLOSE, "\\" + name)
        elif name in ("[", "]"):
            self._add(OPEN if name == "[" else CLOSE, name)
        else:
            text = "\\" + name
            self._add(OPEN if text in _OPENING else CLOSE if text in _CLOSING else COMMAND, text)

    def _words(self, content: str | None) -> None:
        """The tokens of a text, whose letters are words."""
        inner = _Cutter(content or "", self._groups).tokens()
        for index, token in enumerate(inner):
            kind = TEXT if token.kind == LETTERS else token.kind
            self._after_space = token.after_space or (index == 0 and self._after_space)
            self._add(kind, token.text)
        self._after_space = bool(content) and content[-1].isspace()

    def _environment(self, name: str) -> None:
        r"""`\begin{pmatrix}` is one token; the columns of an array are looks."""
        environment = (self._argument() or "").strip("*")
        if (name, environment) == ("begin", "array"):
            self._argument()
        self._add(COMMAND, f"\\{name} {environment}")

    def _skip_invisible_bracket(self, name: str) -> None:
        r"""`\left.` and `\right.` have no bracket to show."""
        if name in ("left", "right") and self._text[self._at : self._at + 1] == ".":
            self._at += 1

    def _skip_argument_of(self, name: str) -> None:
        if name == "hspace":
            self._argument()

    def _argument(self) -> str | None:
        """What the braces at this place hold; a single character or command without any."""
        match = re.compile(r"\s*").match(self._text, self._at)
        start = match.end()
        if start >= len(self._text):
            return None
        if self._text[start] != "{":
            match = re.compile(r"\\[A-Za-z]+|.", re.DOTALL).match(self._text, start)
            self._at = match.end()
            return match[0]
        self._at = closing(self._text, start)
        is_closed = self._text[self._at - 1] == "}" and self._at > start + 1
        return self._text[start + 1 : self._at - is_closed]

    def _inner(self, content: str | None) -> None:
        """The tokens of what a font holds, in braces of their own."""
        if content is None:
            return
        inner = _Cutter(content, self._groups).tokens()
        if len(inner) == 1:
            self._add(inner[0].kind, inner[0].text)
            return
        self._add(OPEN, "{")
        self._found += inner
        self._add(CLOSE, "}")


_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)


def closing(text: str, start: int) -> int:
    """Just after the brace that closes the one at `start`, or the text's end; an escaped one is no brace."""
    depth = 0
    for match in _BRACE.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(match.group(), 0)
        if depth == 0:
            return match.end()
    return len(text)
