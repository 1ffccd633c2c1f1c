r"""Answers that nobody would write, drawn from a seed: what an optimizer might find by chance.

a solution ─▶ changed by a few tokens ──┐
two solutions ─▶ joined ────────────────┤
a grammar of formulas ──────────────────┼─▶ wrapped, decorated, repeated ─▶ at most 1,000 characters
a grammar of lists, sets, statements ───┤
tokens in any order ────────────────────┘
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

from benchmarks.adversary_vocabulary import (
    BINARY,
    CLOSINGS,
    COMMANDS,
    INVISIBLE,
    JOINERS,
    NUMBERS,
    OPENINGS,
    SEPARATORS,
    SYMBOLS,
    UNARY,
    UNDEFINED,
    UNITS,
    WORDS,
    WRAPPERS,
)

MAX_CHARS = 1000
"""Of an answer that the verifier reads; a longer one is compared as a text."""

_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|\d+|[A-Za-z]+|\s+|.", re.DOTALL)


class Writer:
    """Draws answers from a seed."""

    def __init__(self, seed: int, solutions: Sequence[str]) -> None:
        self._draw = random.Random(seed)
        self._solutions = solutions
        self._origin = solutions[0]
        self._vocabulary = (*NUMBERS, *UNDEFINED, *SYMBOLS, *UNARY, *BINARY, *WORDS, *UNITS, *COMMANDS)
        self._ways: dict[str, tuple[int, Callable[[], str]]] = {
            "changed": (8, self._changed),
            "joined": (6, self._joined),
            "formula": (5, lambda: self._formula(self._draw.randint(1, 4))),
            "collection": (3, self._collection),
            "quantity": (3, self._quantity),
            "tokens": (3, self._tokens),
            "repeated": (0.3, self._repeated),
        }

    def answer(self) -> str:
        """One answer."""
        weights = [weight for weight, _ in self._ways.values()]
        (name,) = self._draw.choices(list(self._ways), weights)
        text = self._ways[name][1]()
        if name != "repeated" and self._draw.random() < 0.25:
            text = self._wrapped(text)
        if self._draw.random() < 0.1:
            text = self._decorated(text)
        return text[:MAX_CHARS]

    def pair(self) -> tuple[str, str]:
        """One answer, and the solution that it was made of, if of any."""
        self._solution()
        return self.answer(), self._origin

    def _solution(self) -> str:
        self._origin = self._draw.choice(self._solutions)
        return self._origin

    def _pick(self, *choices: Sequence[str]) -> str:
        return self._draw.choice(self._draw.choice(choices))

    # Solutions that are changed or joined.

    def _changed(self) -> str:
        """A solution with one to three tokens inserted, left out, replaced, moved or doubled."""
        tokens = _TOKEN.findall(self._solution())
        for _ in range(self._draw.choice((1, 1, 1, 2, 3))):
            self._change(tokens)
        return "".join(tokens)

    def _change(self, tokens: list[str]) -> None:
        place = self._draw.randint(0, len(tokens))
        match self._draw.randrange(6):
            case 0 | 1:
                tokens.insert(place, self._spaced(self._draw.choice(self._vocabulary)))
            case 2:
                del tokens[place : place + 1]
            case 3:
                tokens[place : place + 1] = [self._spaced(self._draw.choice(self._vocabulary))]
            case 4:
                tokens[place:place] = tokens[place : place + self._draw.randint(1, 4)]
            case 5:
                self._draw.shuffle(tokens) if len(tokens) < 4 else tokens.insert(place, tokens.pop(0))

    def _spaced(self, token: str) -> str:
        return self._draw.choice((token, f" {token} ", f"{token} ", f" {token}"))

    def _joined(self) -> str:
        """Two solutions, or a solution and something else, with anything between."""
        first = self._solution()
        other = self._solution() if self._draw.random() < 0.8 else self._formula(1)
        parts = [first, other] if self._draw.random() < 0.8 else [other, first]
        joiner = (
            self._draw.choice(JOINERS) if self._draw.random() < 0.8 else self._pick(WORDS, BINARY, COMMANDS)
        )
        return self._spaced(joiner).join(parts)

    # Grammars.

    def _atom(self) -> str:
        if self._draw.random() < 0.15:
            return self._solution()
        return self._pick(NUMBERS, NUMBERS, SYMBOLS, UNDEFINED)

    def _formula(self, depth: int) -> str:
        if depth == 0 or self._draw.random() < 0.2:
            return self._atom()
        inner = self._formula(depth - 1)
        match self._draw.randrange(9):
            case 0 | 1:
                return f"{inner} {self._draw.choice(('+', '-', '*', '/', ''))} {self._formula(depth - 1)}"
            case 2:
                return f"({inner})^{{{self._formula(depth - 1)}}}"
            case 3:
                return rf"\frac{{{inner}}}{{{self._formula(depth - 1)}}}"
            case 4:
                return f"{self._draw.choice(UNARY)}({inner})"
            case 5:
                return f"{self._draw.choice(UNARY)} {inner}"
            case 6:
                return self._wrapped(inner)
            case 7:
                return f"{inner}{self._draw.choice(BINARY)}{self._formula(depth - 1)}"
            case _:
                name = self._draw.choice((r"\sum", r"\prod"))
                return f"{name}_{{k={self._atom()}}}^{{{self._atom()}}} {inner}"

    def _collection(self) -> str:
        """A list, a tuple, a set, an interval, a matrix, a chain of relations, or a case distinction."""
        members = [self._formula(self._draw.randint(0, 1)) for _ in range(self._draw.randint(0, 4))]
        between = self._draw.choice(SEPARATORS)
        opening, closing = self._draw.choice(OPENINGS), self._draw.choice(CLOSINGS)
        return opening + between.join(members) + closing

    def _quantity(self) -> str:
        """Numbers, units and words in any order, more often than not a number first."""
        parts = [self._pick(NUMBERS, self._solutions)] if self._draw.random() < 0.8 else []
        for _ in range(self._draw.randint(1, 4)):
            part = self._pick(UNITS, UNITS, WORDS, WORDS, NUMBERS, SYMBOLS, BINARY, UNARY)
            parts.append(rf"\text{{ {part} }}" if self._draw.random() < 0.2 else part)
        return self._draw.choice((" ", " ", "", "~")).join(parts)

    def _tokens(self) -> str:
        number = self._draw.randint(1, 12)
        return self._draw.choice(("", " ")).join(self._draw.choices(self._vocabulary, k=number))

    def _repeated(self) -> str:
        """A short piece, or brackets in brackets, as often as it fits: time must not grow faster."""
        if self._draw.random() < 0.3:
            return self._nested()
        piece = self._pick(self._vocabulary, WRAPPERS, JOINERS).replace("%", "1") or "("
        if self._draw.random() < 0.3:
            piece = self._solution()
        if self._draw.random() < 0.5:
            piece += self._pick(self._vocabulary, JOINERS)
        times = self._draw.randint(2, MAX_CHARS // len(piece) + 1)
        return self._draw.choice(("", self._solution())) + piece * times

    def _nested(self) -> str:
        wrapper = self._draw.choice(WRAPPERS)
        text = self._atom()
        while len(inner := wrapper.replace("%", text)) <= MAX_CHARS and inner != text:
            text = inner
        return text

    # What is put around and between.

    def _wrapped(self, text: str) -> str:
        return self._draw.choice(WRAPPERS).replace("%", text)

    def _decorated(self, text: str) -> str:
        """With a sign that is not seen, another form of a character, or a command in it."""
        place = self._draw.randint(0, len(text))
        match self._draw.randrange(3):
            case 0:
                return text[:place] + self._draw.choice(INVISIBLE) + text[place:]
            case 1:
                return text[:place] + self._draw.choice(COMMANDS) + text[place:]
            case _:
                return text[:place] + _other_form(text[place : place + 1]) + text[place + 1 :]


def _other_form(character: str) -> str:
    """A digit, a letter or a sign as Unicode has it a second time, in full width."""
    return chr(ord(character) + 0xFEE0) if "!" <= character <= "~" else character
