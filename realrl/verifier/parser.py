"""A place in the tokens of a formula, and the parts that can be read from there.

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
    """Reads tokens from left to right; each method takes what it is named after."""

    def __init__(self, tokens: list[Token], *, tight: bool) -> None:
        super().__init__(tokens)
        self.tight = tight
        # How many bars `|` are open, outside of all brackets first, then in each bracket that is open.
        self._open_bars = [0]

    @abstractmethod
    def sum(self) -> Node: ...

    @abstractmethod
    def product(self) -> Node: ...

    @abstractmethod
    def power(self) -> Node: ...

    @abstractmethod
    def exponent(self) -> Node: ...

    @abstractmethod
    def atom(self) -> Node: ...

    @abstractmethod
    def starts_factor(self) -> bool:
        """Whether what comes next can be multiplied without a sign."""

    def between(self, opening: str, closing: str) -> Node:
        """A sum in brackets."""
        self._open(opening)
        node = self.sum()
        self._close(closing)
        return node

    def entries(self, opening: str) -> tuple[Node, ...]:
        """One or more sums in brackets."""
        self._open(opening)
        entries = [self.sum()]
        while self.take(",", ";"):
            entries.append(self.sum())
        self._close(_CLOSING[opening])
        return tuple(entries)

    def arguments(self) -> tuple[Node, ...]:
        r"""One or more sums in parentheses, or in `\{` and `\}`."""
        return self.entries(r"\{" if self.next_is(r"\{") else "(")

    def group(self) -> Node:
        r"""The formula in braces, which may be `{a \over b}`."""
        self._open("{")
        node = self.perhaps_over(self.sum())
        self._close("}")
        return node

    def argument(self) -> Node:
        r"""A command's argument: a group, or one token of which a number gives its first digit."""
        if self.next_is("{"):
            return self.group()
        if self.next_is("("):
            return self.between("(", ")")
        token = self.peek()
        if token is not None and token.kind == NUMBER and len(token.text) > 1 and "." not in token.text:
            return self._first_digit(token.text)
        return self.atom()

    def _first_digit(self, digits: str) -> Node:
        """A number's first digit, with the others left as a token that may be a factor after it."""
        self.tokens[self.at : self.at + 1] = (Token(CLOSE, "}"), Token(NUMBER, digits[1:]))
        self.at += 1
        return decimal_number(digits[0])

    def perhaps_over(self, top: Node) -> Node:
        r"""A sum, or the quotient or binomial coefficient that it is the upper part of."""
        if self.take(r"\over"):
            return operation("divide", top, self.sum())
        return operation("binomial", top, self.sum()) if self.take(r"\choose") else top

    def between_bars(self) -> Node:
        """A sum between two bars `|`."""
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
