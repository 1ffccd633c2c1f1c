r"""Cuts an answer into tokens: numbers, letters, words, commands, signs and brackets.

    text ─▶ characters in one spelling (spelling.py) ─▶ notations in one spelling (rewriting.py) ─▶ tokens

Spaces, sizes of brackets, fonts, dollar signs of formulas and colours are dropped: `latex_commands.py` lists
what is silent. Everything else is a token, and a reader that does not know a token does not read the text.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import NamedTuple

from realrl.verifier.latex_commands import (
    ASCII_SIGNS,
    BRACKETS,
    COLORS,
    ESCAPED_SPACES,
    FONTS,
    SIGNS,
    SILENT_COMMANDS,
    SPACES,
    SYNONYMS,
    TEXTS,
)
from realrl.verifier.rewriting import rewritten
from realrl.verifier.spelling import spelled

NUMBER, LETTERS, TEXT, COMMAND, SIGN, OPEN, CLOSE = (
    *("number", "letters", "text", "command"),
    *("sign", "open", "close"),
)

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
_DIGITS = re.compile(r"\d+")
_SPACE = re.compile(r"\s*")
_SINGLE_ARGUMENT = re.compile(r"\\[A-Za-z]+|.", re.DOTALL)
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_MONEY = re.compile(r"\s*-?[\d.]")
MAX_MONEY_GAP = 20
"""The largest number of characters after a dollar in which its amount begins."""
_CLOSING = frozenset(BRACKETS.values())


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
    return tuple(_Cutter(rewritten(text, groups=groups), groups).tokens())


class _Cutter:
    """Walks over a text once."""

    def __init__(self, text: str, groups: bool) -> None:
        self._text, self._groups, self._at = text, groups, 0
        self._found: list[Token] = []
        self._after_space = False

    def tokens(self) -> list[Token]:
        while self._at < len(self._text):
            match = _TOKEN.match(self._text, self._at)
            kind, text = match.lastgroup, match[match.lastgroup]
            if kind == "grouped" and not self._groups:
                match = _DIGITS.match(self._text, match.start())
                kind, text = "number", match[0]
            self._at = match.end()
            self._take(kind, text)
        return self._found

    def _take(self, kind: str, text: str) -> None:
        if kind == "space":
            self._after_space = True
        elif kind == "grouped":
            self._add(NUMBER, text.replace(",", ""))
        elif kind == "number":
            self._add(NUMBER, text)
        elif kind == "letters":
            self._add(LETTERS, text)
        elif kind == "command":
            self._command(SYNONYMS.get(text, text))
        elif kind == "dots":
            self._add(COMMAND, r"\ldots")
        elif kind == "escaped":
            self._escaped(text)
        else:
            self._sign(ASCII_SIGNS.get(text, text))

    def _add(self, kind: str, text: str) -> None:
        self._found.append(Token(kind, text, self._after_space))
        self._after_space = False

    def _add_perhaps_bracket(self, text: str, kind: str) -> None:
        """Add a bracket, or else a token of a kind."""
        if text in BRACKETS:
            kind = OPEN
        elif text in _CLOSING:
            kind = CLOSE
        self._add(kind, text)

    def _escaped(self, text: str) -> None:
        sign = text[1]
        if text in ESCAPED_SPACES:
            # `\!` is a negative space, which separates nothing.
            self._after_space = self._after_space or sign != "!"
        elif sign in "()[]":
            self._after_space = True
        elif sign in "$%&#_":
            self._add(SIGN, sign)
        else:
            self._add_perhaps_bracket(text, SIGN)

    def _sign(self, text: str) -> None:
        if text in ("=>", "->"):
            self._add(COMMAND, r"\to")
        elif text == "$":
            self._dollar()
        elif text in ("~", "\\"):  # a lone backslash is what is left of a space
            self._after_space = True
        else:
            self._add_perhaps_bracket(text, COMMAND if text.startswith("\\") else SIGN)

    def _dollar(self) -> None:
        """Add money before a number where no formula begins: a formula's sign has a twin."""
        is_before_amount = _MONEY.match(self._text, self._at, self._at + MAX_MONEY_GAP)
        if is_before_amount and self._text.count("$") % 2:
            self._add(SIGN, "$")

    def _command(self, name: str) -> None:
        if name in SILENT_COMMANDS:
            self._skip_invisible_bracket(name)
        elif name in SPACES:
            self._space(name)
        elif name in ("begin", "end"):
            self._environment(name)
        elif name in FONTS:
            self._inner(self._argument())
        elif name in TEXTS:
            self._words(self._argument())
        elif name in COLORS:
            self._argument()
            self._inner(self._argument())
        elif name == "color":
            self._argument()
        elif name == "mathbb":
            self._add(COMMAND, rf"\mathbb {(self._argument() or '').strip()}")
        elif name in ("imath", "jmath"):
            self._add(LETTERS, name[0])
        elif name in SIGNS:
            self._add(SIGN, name)
        elif name in ("[", "]"):
            self._add_perhaps_bracket(name, SIGN)
        else:
            self._add_perhaps_bracket("\\" + name, COMMAND)

    def _skip_invisible_bracket(self, name: str) -> None:
        r"""`\left.` and `\right.` have no bracket to show."""
        if name in ("left", "right") and self._text[self._at : self._at + 1] == ".":
            self._at += 1

    def _space(self, name: str) -> None:
        self._after_space = True
        if name == "hspace":
            self._argument()

    def _environment(self, name: str) -> None:
        r"""`\begin{pmatrix}` is one token; the columns of an array are looks."""
        environment = (self._argument() or "").strip("*")
        if (name, environment) == ("begin", "array"):
            self._argument()
        self._add(COMMAND, f"\\{name} {environment}")

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

    def _words(self, content: str | None) -> None:
        """The tokens of a text, whose letters are words."""
        inner = _Cutter(content or "", self._groups).tokens()
        for index, token in enumerate(inner):
            kind = TEXT if token.kind == LETTERS else token.kind
            self._after_space = token.after_space or (index == 0 and self._after_space)
            self._add(kind, token.text)
        self._after_space = bool(content) and content[-1].isspace()

    def _argument(self) -> str | None:
        """What the braces at this place hold; a single character or command without any."""
        start = _SPACE.match(self._text, self._at).end()
        if start >= len(self._text):
            return None
        if self._text[start] != "{":
            match = _SINGLE_ARGUMENT.match(self._text, start)
            self._at = match.end()
            return match[0]
        self._at = _after_closing(self._text, start)
        is_closed = self._text[self._at - 1] == "}" and self._at > start + 1
        return self._text[start + 1 : self._at - is_closed]


def _after_closing(text: str, start: int) -> int:
    """Just after the brace that closes the one at `start`, or the text's end; an escaped one is no brace."""
    depth = 0
    for match in _BRACE.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(match.group(), 0)
        if depth == 0:
            return match.end()
    return len(text)
