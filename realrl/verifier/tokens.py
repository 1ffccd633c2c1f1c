r"""Cuts an answer into tokens: numbers, letters, words, commands, signs and brackets.

    text ─▶ characters in one spelling (spelling.py) ─▶ notations in one spelling (rewriting.py) ─▶ tokens

Spaces, sizes of brackets, fonts, dollar signs of formulas and colours are dropped: `latex_commands.py` lists
the commands without a meaning. Everything else is a token, and a reader rejects a text with an unknown token.
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

NUMBER = "number"
LETTERS = "letters"
TEXT = "text"
COMMAND = "command"
SIGN = "sign"
OPEN = "open"
CLOSE = "close"

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
_SPACE = re.compile(r"\s*")
_SINGLE_ARGUMENT = re.compile(r"\\[A-Za-z]+|.", re.DOTALL)
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_MONEY = re.compile(r"\s*-?[\d.]")
MAX_MONEY_GAP = 20
"""The largest number of characters between a dollar and the end of its amount's first digit."""
_CLOSING = frozenset(BRACKETS.values())


class Token(NamedTuple):
    """A piece of an answer."""

    kind: str
    text: str
    after_space: bool = False

    def is_sign(self, *signs: str) -> bool:
        """Return whether this is one of these signs or commands."""
        if self.kind not in (SIGN, COMMAND):
            return False
        return self.text in signs


Tokens = Sequence[Token]


@functools.lru_cache(maxsize=4096)
def tokenized(text: str, *, groups: bool = True) -> tuple[Token, ...]:
    """Return the tokens of an answer; with `groups`, `1,234` is one number, else a list of two."""
    in_ascii = spelled(text).replace("\0", " ")
    notations = rewritten(in_ascii, groups=groups)
    return tuple(_Cutter(notations, groups).tokens())


class _Cutter:
    """Cuts a text into tokens, from left to right."""

    def __init__(self, text: str, groups: bool) -> None:
        self._text = text
        self._groups = groups
        self._at = 0
        self._found: list[Token] = []
        # Whether a space, or a sign without a meaning, is between the last token and the next one.
        self._after_space = False

    def tokens(self) -> list[Token]:
        """Return the tokens of the whole text."""
        # Every character matches: `sign` takes any.
        while match := _TOKEN.match(self._text, self._at):
            kind = match.lastgroup
            assert kind is not None, "a token of no group"
            text = match[kind]
            self._at = match.end()
            if kind == "grouped" and not self._groups:
                # Only the digits before the first comma.
                kind = "number"
                text, _, _ = text.partition(",")
                self._at = match.start() + len(text)
            self._take(kind, text)
        return self._found

    def _take(self, kind: str, text: str) -> None:
        """Add the tokens of one match, and of the arguments that belong to it."""
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
        if not _MONEY.match(self._text, self._at, self._at + MAX_MONEY_GAP):
            return
        has_no_twin = self._text.count("$") % 2 == 1
        if has_no_twin:
            self._add(SIGN, "$")

    def _command(self, name: str) -> None:
        """Add the tokens of a command, given without its backslash."""
        if name in SILENT_COMMANDS:
            self._skip_invisible_bracket(name)
        elif name in SPACES:
            self._space(name)
        elif name in ("begin", "end"):
            self._environment(name)
        elif name in FONTS:
            self._inner(self._argument())
        elif name in TEXTS:
            self._words(self._argument_or_nothing())
        elif name in COLORS:
            self._argument()
            self._inner(self._argument())
        elif name == "color":
            self._argument()
        elif name == "mathbb":
            letter = self._argument_or_nothing().strip()
            self._add(COMMAND, rf"\mathbb {letter}")
        elif name in ("imath", "jmath"):
            self._add(LETTERS, name[0])
        elif name in SIGNS:
            self._add(SIGN, name)
        elif name in ("[", "]"):
            self._add_perhaps_bracket(name, SIGN)
        else:
            self._add_perhaps_bracket("\\" + name, COMMAND)

    def _skip_invisible_bracket(self, name: str) -> None:
        r"""Skip the point of `\left.` and `\right.`, which says that no bracket is shown."""
        if name in ("left", "right") and self._text.startswith(".", self._at):
            self._at += 1

    def _space(self, name: str) -> None:
        self._after_space = True
        if name == "hspace":
            self._argument()

    def _environment(self, name: str) -> None:
        r"""Add `\begin{pmatrix}` as one token; the columns of an array change only the looks."""
        environment = self._argument_or_nothing().strip("*")
        if name == "begin" and environment == "array":
            self._argument()
        self._add(COMMAND, f"\\{name} {environment}")

    def _inner(self, content: str | None) -> None:
        """Add the tokens of a font's argument, in braces if they are not exactly one."""
        if content is None:
            return
        inner = _Cutter(content, self._groups).tokens()
        if len(inner) == 1:
            (token,) = inner
            self._add(token.kind, token.text)
            return
        self._add(OPEN, "{")
        self._found += inner
        self._add(CLOSE, "}")

    def _words(self, content: str) -> None:
        """Add the tokens of a text, whose letters are words."""
        inner = _Cutter(content, self._groups).tokens()
        for index, token in enumerate(inner):
            kind = TEXT if token.kind == LETTERS else token.kind
            is_first_after_space = index == 0 and self._after_space
            self._after_space = token.after_space or is_first_after_space
            self._add(kind, token.text)
        self._after_space = content[-1:].isspace()

    def _argument_or_nothing(self) -> str:
        """Read an argument and return its content; an empty text at the end."""
        return self._argument() or ""

    def _argument(self) -> str | None:
        """Read braces and return their content, or else one character or command; None at the end."""
        space = _SPACE.match(self._text, self._at)
        if space is not None:
            self._at = space.end()
        start = self._at
        single = _SINGLE_ARGUMENT.match(self._text, start)
        if single is None:
            return None
        if single[0] != "{":
            self._at = single.end()
            return single[0]
        end = _after_closing(self._text, start)
        self._at = end
        is_closed = self._text[end - 1] == "}" and end > start + 1
        return self._text[start + 1 : end - is_closed]


def _after_closing(text: str, start: int) -> int:
    """Return the place after the brace that closes the one at `start`, or the text's length if none does.

    An escaped brace closes nothing.
    """
    depth = 0
    for match in _BRACE.finditer(text, start):
        brace = match.group()
        if brace == "{":
            depth += 1
        elif brace == "}":
            depth -= 1
        if depth == 0:
            return match.end()
    return len(text)
