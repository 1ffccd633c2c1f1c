"""Provides the interface between the grammar and the readers of atoms, and reads brackets and arguments.

`grammar.py` has the rules for sums, products, powers and atoms. The readers of atoms are functions in modules
of their own; they take a parser, and ask it for the formulas inside.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from realrl.verifier.cursor import Cursor
from realrl.verifier.digits import decimal_number
from realrl.verifier.nodes import Node, operation
from realrl.verifier.tokens import CLOSE, NUMBER, Token

_CLOSING = {"(": ")", "[": "]", r"\{": r"\}", r"\langle": r"\rangle"}


class Parser(Cursor, ABC):
    """Reads tokens from left to right; each method reads and returns the part that it is named after."""

    def __init__(self, tokens: list[Token], *, tight: bool) -> None:
        super().__init__(tokens)
        self.tight = tight
        # The number of bars `|` that are open: outside of all brackets, then in each bracket that is open.
        self._open_bars = [0]

    @abstractmethod
    def sum(self) -> Node:
        """Read products that are added or subtracted."""

    @abstractmethod
    def product(self) -> Node:
        """Read factors that are multiplied or divided."""

    @abstractmethod
    def power(self) -> Node:
        """Read an atom with its exponents, factorials, percent signs and primes."""

    @abstractmethod
    def exponent(self) -> Node:
        """Read an exponent, after its `^`."""

    @abstractmethod
    def atom(self) -> Node:
        """Read a number, a letter, a command, or a formula in brackets or bars."""

    @abstractmethod
    def starts_factor(self) -> bool:
        """Return whether the next token begins a factor that needs no sign of multiplication."""

    def between(self, opening: str, closing: str) -> Node:
        """Read a sum in brackets."""
        self._open(opening)
        node = self.sum()
        self._close(closing)
        return node

    def entries(self, opening: str) -> tuple[Node, ...]:
        """Read one or more sums in brackets."""
        self._open(opening)
        entries = [self.sum()]
        while self.take(",", ";"):
            entries.append(self.sum())
        self._close(_CLOSING[opening])
        return tuple(entries)

    def arguments(self) -> tuple[Node, ...]:
        r"""Read one or more sums in parentheses, or in `\{` and `\}`."""
        opening = r"\{" if self.next_is(r"\{") else "("
        return self.entries(opening)

    def group(self) -> Node:
        r"""Read a formula in braces, which may be `{a \over b}`."""
        self._open("{")
        node = self.perhaps_over(self.sum())
        self._close("}")
        return node

    def argument(self) -> Node:
        """Read an argument of a command: a group, a sum in parentheses, an atom or the first digit of one."""
        if self.next_is("{"):
            return self.group()
        if self.next_is("("):
            return self.between("(", ")")
        token = self.peek()
        if token is None or token.kind != NUMBER:
            return self.atom()
        has_more_digits = len(token.text) > 1 and "." not in token.text
        return self._first_digit(token.text) if has_more_digits else self.atom()

    def _first_digit(self, digits: str) -> Node:
        """Read a number's first digit; the others become a token that may be a factor after it."""
        rest = Token(NUMBER, digits[1:])
        # A closing brace before the rest makes it a factor: digits after digits are none.
        self.tokens[self.at : self.at + 1] = (Token(CLOSE, "}"), rest)
        self.at += 1
        return decimal_number(digits[0])

    def perhaps_over(self, top: Node) -> Node:
        r"""Return a sum, or the quotient or binomial coefficient whose upper part it is."""
        if self.take(r"\over"):
            return operation("divide", top, self.sum())
        if self.take(r"\choose"):
            return operation("binomial", top, self.sum())
        return top

    def between_bars(self) -> Node:
        """Read a sum between two bars `|`."""
        self.expect("|")
        self._open_bars[-1] += 1
        node = self.sum()
        self._open_bars[-1] -= 1
        self.expect("|")
        return node

    @property
    def has_open_bar(self) -> bool:
        """Whether the next bar closes one, rather than opening one."""
        return self._open_bars[-1] > 0

    def _open(self, opening: str) -> None:
        self.expect(opening)
        self._open_bars.append(0)

    def _close(self, closing: str) -> None:
        self._open_bars.pop()
        self.expect(closing)
