r"""Reads tokens as a formula. Tokens that it does not know it does not read: nothing is dropped.

    sum      := product (("+" | "-") product)*
    product  := run (("*" | "/" | "\angle" | next to each other) run)*
    run      := whole number and fraction | power (next to each other power)* where these bind closer than "/"
    power    := atom ("^" exponent | "!" | "%" | "'")*
    exponent := ("-" | "+") exponent | (group | atom) ("^" exponent)?
    atom     := number | letter | command or word | brackets | bars, by the reader in _ATOMS

Atoms and mixed numbers have modules of their own, which ask the parser for the formulas inside:

    grammar ─▶ commands ─▶ applied_functions, calls, environments ─┐
            └▶ enclosures, mixed_numbers, calls ───────────────────┴▶ parser ─▶ digits ─▶ cursor

`1/2x` and `\sin x/2` are written for two formulas each; `readings` gives both.
"""

from __future__ import annotations

from collections.abc import Callable

from realrl.verifier.calls import read_letter, read_primed
from realrl.verifier.commands import is_factor, read_command, read_word
from realrl.verifier.cursor import Unreadable
from realrl.verifier.digits import read_digits
from realrl.verifier.enclosures import OPENINGS, read_bars, read_bracketed
from realrl.verifier.functions import FUNCTIONS
from realrl.verifier.letters import separated
from realrl.verifier.mixed_numbers import fraction_after
from realrl.verifier.nodes import (
    Constant,
    Node,
    Symbol,
    free_symbols,
    negative,
    operation,
    substituted,
    times,
    whole,
)
from realrl.verifier.parser import Parser
from realrl.verifier.tokens import CLOSE, COMMAND, LETTERS, NUMBER, OPEN, SIGN, TEXT, Token, Tokens

MAX_TOKENS = 600
"""The largest number of tokens of a formula."""
MAX_DEPTH = 60
"""The largest depth of brackets, arguments and functions in each other."""

_TIMES = ("*", r"\cdot", r"\times")
_OVER = ("/", r"\div")
_TRANSPOSES = (["T"], [r"\top"], ["{", "T", "}"], ["{", r"\top", "}"])
_BEFORE_DIGITS = ("i", r"\pi", "plain pi", "!")
"""Factors that digits may follow, without a sign of multiplication."""

_ATOMS: dict[str, Callable[[Parser], Node]] = {
    NUMBER: read_digits,
    LETTERS: read_letter,
    TEXT: read_word,
    COMMAND: read_command,
    OPEN: read_bracketed,
    SIGN: read_bars,
}
"""The reader of an atom, by the kind of its first token."""


def readings(tokens: Tokens) -> tuple[Node, ...]:
    """Return all formulas that the tokens may mean, the usual one first; none if they mean no formula."""
    found: dict[Node, None] = {}
    for tight in (False, True):
        if tight and not any(token.is_sign("/") for token in tokens):
            break
        try:
            found[formula(tokens, tight=tight)] = None
        except Unreadable:
            continue
    return tuple(found)


def formula(tokens: Tokens, *, tight: bool = False) -> Node:
    """Return the tree of a formula; with `tight`, adjacent factors bind closer than `/`.

    Raises:
        Unreadable: The tokens are not a formula.
    """
    if len(tokens) > MAX_TOKENS:
        raise Unreadable("too long")
    grammar = _Grammar(separated(tokens), tight=tight)
    return _with_constants(grammar.formula())


def _with_constants(node: Node) -> Node:
    """Return a formula with `e` and `i` as numbers, except where a sum binds them."""
    names: dict[str, Node] = {"e": Constant("e"), "i": Constant("i")}
    has_names = free_symbols(node) & names.keys()
    if has_names:
        return substituted(node, names)
    return node


class _Grammar(Parser):
    """The rules for sums, products, powers and atoms."""

    def __init__(self, tokens: list[Token], *, tight: bool) -> None:
        super().__init__(tokens, tight=tight)
        self._depth = 0

    def formula(self) -> Node:
        """Return the formula that all tokens are."""
        node = self.perhaps_over(self.sum())
        rest = self.peek()
        if rest is not None:
            raise Unreadable(f"more after a formula: {rest.text}")
        return node

    def sum(self) -> Node:
        """Read products that are added or subtracted."""
        terms = [self._signed_product()]
        while self.next_is("+", "-"):
            terms.append(self._signed_product())
        if len(terms) == 1:
            return terms[0]
        return operation("add", *terms)

    def _signed_product(self) -> Node:
        is_negative = False
        while self.next_is("+", "-"):
            is_negative ^= self.next_is("-")
            self.at += 1
        node = self.product()
        return negative(node) if is_negative else node

    def product(self) -> Node:
        """Read factors that are multiplied or divided."""
        node = self._run()
        while True:
            if self.take(*_TIMES) or self._take_x():
                node = times(node, self._signed_run())
            elif self.take(*_OVER):
                self.nest()
                node = operation("divide", node, self._signed_run())
            elif self.take(r"\angle"):
                node = times(node, operation("cis", self._signed_run()))
            elif self.starts_factor():
                node = times(node, self._run())
            else:
                return node

    def _take_x(self) -> bool:
        """Take an `x` between two numbers, which is a sign of multiplication."""
        token = self.peek()
        if token is None:
            return False
        if token.kind not in (LETTERS, TEXT) or token.text not in ("x", "X"):
            return False
        after = self.peek(1)
        if not self.at or after is None:
            return False
        before = self.tokens[self.at - 1]
        if before.kind != NUMBER or after.kind != NUMBER:
            return False
        self.at += 1
        return True

    def _signed_run(self) -> Node:
        if self.take("-"):
            return negative(self._signed_run())
        if self.take("+"):
            return self._signed_run()
        return self._run()

    def _run(self) -> Node:
        """Read adjacent factors if they bind closer than `/`; else a single factor."""
        node = self.power()
        if (fraction := fraction_after(self, node)) is not None:
            return operation("add", node, fraction)
        while self.tight and self.starts_factor():
            node = times(node, self.power())
        return node

    def starts_factor(self) -> bool:
        """Return whether the next token begins a factor that needs no sign of multiplication."""
        token = self.peek()
        if token is None:
            return False
        if token.kind == NUMBER:
            before = self.tokens[self.at - 1]
            if before.kind == CLOSE:
                return True
            return before.text in _BEFORE_DIGITS
        if token.kind == TEXT:
            if token.text in ("e", "i"):
                return True
            return token.text in FUNCTIONS
        if token.kind == OPEN:
            return token.text in OPENINGS
        if token.kind == SIGN:
            return token.text == "|" and not self.has_open_bar
        if token.kind == LETTERS:
            return True
        return is_factor(token.text)

    def power(self) -> Node:
        """Read an atom with its exponents, factorials, percent signs and primes."""
        node = self.atom()
        while True:
            if self.next_is("^", "!", "%"):
                self.nest()
            if self.take("^"):
                node = self._raised(node)
            elif self.take("!"):
                node = operation("double_factorial" if self.take("!") else "factorial", node)
            elif self.take("%"):
                node = operation("divide", node, whole(100))
            elif self.next_is("'") and isinstance(node, Symbol):
                node = read_primed(self, node)
            else:
                return node

    def _raised(self, base: Node) -> Node:
        """Return a base with its exponent, degrees or transpose, after `^`."""
        if self.take(r"\circ"):
            return operation("degrees", base)
        if self._next_is_degrees_in_braces():
            self.at += 2
            self.expect("}")
            return operation("degrees", base)
        if self._take_transpose():
            return operation("transpose", base)
        if self.next_is("'"):
            raise Unreadable("a raised prime")
        return operation("power", base, self.exponent())

    def _next_is_degrees_in_braces(self) -> bool:
        if not self.next_is("{"):
            return False
        inside = self.peek(1)
        return inside is not None and inside.is_sign(r"\circ")

    def _take_transpose(self) -> bool:
        """Take a raised T after a bracket."""
        if self.tokens[self.at - 2].kind != CLOSE:
            return False
        for mark in _TRANSPOSES:
            end = self.at + len(mark)
            texts = [token.text for token in self.tokens[self.at : end]]
            if texts == mark:
                self.at = end
                return True
        return False

    def exponent(self) -> Node:
        """Read an exponent, after its `^`."""
        self.nest()
        if self.take("-"):
            return negative(self.exponent())
        if self.take("+"):
            return self.exponent()
        base = self.group() if self.next_is("{") else self.atom()
        if self.take("^"):
            return self._raised(base)
        return base

    def atom(self) -> Node:
        """Read a number, a letter, a command, or a formula in brackets or bars."""
        token = self.peek()
        if token is None:
            raise Unreadable("a formula that ends too early")
        if token.kind not in _ATOMS:
            raise Unreadable(token.text)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Unreadable("too deep")
        node = _ATOMS[token.kind](self)
        self._depth -= 1
        return node
