"""Provides a place in a list of tokens, from which they are read one by one."""

from __future__ import annotations

from realrl.verifier.tokens import CLOSE, COMMAND, OPEN, SIGN, Token

MAX_NESTED = 120
"""The largest number of quotients, powers and factorials, which may be in each other without brackets."""


class Unreadable(Exception):
    """The tokens are no formula."""


class Cursor:
    """A place in tokens that moves from left to right."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.at = 0
        self._nested = 0

    def peek(self, ahead: int = 0) -> Token | None:
        """Return the next token, or the one `ahead` tokens after it; None after the end."""
        place = self.at + ahead
        if place < len(self.tokens):
            return self.tokens[place]
        return None

    def current(self) -> Token:
        """Return the next token, of which the caller knows that it exists."""
        return self.tokens[self.at]

    def read(self) -> Token:
        """Return the next token, of which the caller knows that it exists, and move behind it."""
        token = self.tokens[self.at]
        self.at += 1
        return token

    def next_is(self, *signs: str) -> bool:
        """Return whether the next token is one of these signs, commands or brackets."""
        token = self.peek()
        if token is None:
            return False
        if token.kind not in (SIGN, COMMAND, OPEN, CLOSE):
            return False
        return token.text in signs

    def take(self, *signs: str) -> bool:
        """Read the next token if it is one of these signs; return whether it is."""
        if self.next_is(*signs):
            self.at += 1
            return True
        return False

    def expect(self, *signs: str) -> None:
        """Read the next token, which must be one of these signs.

        Raises:
            Unreadable: It is another token.
        """
        if not self.take(*signs):
            raise Unreadable(f"no {signs[0]}")

    def nest(self) -> None:
        """Count an operator that may nest a node in a node without brackets.

        Raises:
            Unreadable: There are more than `MAX_NESTED` of them.
        """
        self._nested += 1
        if self._nested > MAX_NESTED:
            raise Unreadable("too deep")
