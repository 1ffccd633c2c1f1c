"""A place in a list of tokens, and what can be done there."""

from __future__ import annotations

from realrl.verifier.tokens import CLOSE, COMMAND, OPEN, SIGN, Token

MAX_NESTED = 120
"""The largest number of quotients, powers and factorials, which may be in each other without brackets."""


class Unreadable(Exception):
    """The tokens are no formula."""


class Cursor:
    """A place in tokens that moves from left to right."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens, self.at, self._nested = tokens, 0, 0

    def peek(self, ahead: int = 0) -> Token | None:
        place = self.at + ahead
        return self.tokens[place] if place < len(self.tokens) else None

    def next_is(self, *signs: str) -> bool:
        token = self.peek()
        return token is not None and token.kind in (SIGN, COMMAND, OPEN, CLOSE) and token.text in signs

    def take(self, *signs: str) -> bool:
        if self.next_is(*signs):
            self.at += 1
            return True
        return False

    def expect(self, *signs: str) -> None:
        if not self.take(*signs):
            raise Unreadable(f"no {signs[0]}")

    def nest(self) -> None:
        """Count what may put a node into a node without brackets."""
        self._nested += 1
        if self._nested > MAX_NESTED:
            raise Unreadable("too deep")
