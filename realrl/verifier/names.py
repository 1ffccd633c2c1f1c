r"""Names that are given a value: `x`, `f(2)`, `|AB|`, `\frac{dy}{dx}`, `(p, q)`, `\text{mean}`, `x + y`."""

from __future__ import annotations

from typing import NamedTuple

from realrl.verifier.functions import FUNCTIONS, GREEK
from realrl.verifier.lexicon import NEGATING
from realrl.verifier.slices import text_of, with_depth
from realrl.verifier.tokens import CLOSE, COMMAND, LETTERS, NUMBER, OPEN, SIGN, TEXT, Token, Tokens

MAX_TOKENS = 14
"""The largest number of tokens of a name."""
MAX_WORDS = 5
"""The largest number of words of a name."""
_MARKS = frozenset(
    (
        r"\overline",
        r"\vec",
        r"\dot",
        r"\ddot",
        r"\hat",
        r"\angle",
        r"\triangle",
        r"\frac",
        r"\ell",
        r"\overrightarrow",
        r"\det",
        r"\max",
        r"\min",
    )
)
_GREEK_LETTERS = GREEK | {"pi"}
_KNOWN_FUNCTIONS = FUNCTIONS.keys() - {"max", "min", "arg", "det"}
"""Functions whose value cannot replace the name: `\\log x = 3` does not say that something is 3."""
_NO_NAMES = frozenset((r"\pi", r"\infty", "e", "i"))
_SIGNS = frozenset(("|", "_", "^", "'", "(", ")", "{", "}", ",", "+", "-", "/", r"\cdot", "*", ":"))


class Name(NamedTuple):
    """A name in its one spelling."""

    text: str
    may_be_dropped: bool
    """Whether the name may be omitted before a value; not if it has a known function, as `\\log x`."""


def name_of(tokens: Tokens) -> Name | None:
    """Return the name that tokens are; None if they are anything else."""
    if not 0 < len(tokens) <= MAX_TOKENS:
        return None
    first = tokens[0].text
    if first in ("-", "+", "^", "/"):
        return None
    if len(tokens) == 1 and first in _NO_NAMES:
        return None
    if sum(token.kind == TEXT for token in tokens) > MAX_WORDS:
        return None
    may_be_dropped = True
    before: Token | None = None
    for token, depth in with_depth(tokens):
        if not _belongs(token, depth, before):
            return None
        if _is_known_function(token):
            may_be_dropped = False
        before = token
    if _has_number_in_fraction(tokens) or not any(map(_is_letter, tokens)):
        return None
    return Name(spelled_name(tokens), may_be_dropped)


def _is_letter(token: Token) -> bool:
    if token.kind in (LETTERS, TEXT):
        return True
    return _is_greek(token)


def is_one_thing(name: str) -> bool:
    """Return whether a name has no sum and no power in it."""
    spaced = f" {name} "
    return not any(sign in spaced for sign in (" + ", " - ", " ^ "))


def spelled_name(tokens: Tokens) -> str:
    """Return one spelling of a name."""
    return text_of(tokens).replace("\\text ", "")


def is_variable(name: str) -> bool:
    """Return whether a name is one letter, with a subscript or primes, or begins with a command."""
    letter = without_subscript(name).rstrip("' ")
    return len(letter) == 1 or name.startswith("\\")


def without_subscript(name: str) -> str:
    """Return a name without its subscript."""
    return name.partition(" _ ")[0]


def _belongs(token: Token, depth: int, before: Token | None) -> bool:
    """Return whether a token may be part of a name, after the token before it."""
    kind = token.kind
    text = token.text
    if depth > 0 and kind != TEXT:
        return True
    if kind in (LETTERS, TEXT, OPEN, CLOSE):
        return text.lower() not in NEGATING
    if kind == NUMBER:
        if before is None:
            return False
        return before.text in ("_", "^")
    if text in _SIGNS and kind in (SIGN, COMMAND):
        return True
    if kind != COMMAND:
        return False
    return text in _MARKS or _is_greek(token) or _is_known_function(token)


def _has_number_in_fraction(tokens: Tokens) -> bool:
    r"""Return whether a fraction has a number: `\frac{x}{2}` is no name, `\frac{dy}{dx}` is one."""
    has_fraction = any(token.text in (r"\frac", "/") for token in tokens)
    if not has_fraction:
        return False
    return any(token.kind == NUMBER for token in tokens)


def _is_greek(token: Token) -> bool:
    if token.kind != COMMAND:
        return False
    return token.text.removeprefix("\\") in _GREEK_LETTERS


def _is_known_function(token: Token) -> bool:
    bare = token.text.removeprefix("\\")
    if bare not in _KNOWN_FUNCTIONS:
        return False
    is_word = token.kind == LETTERS and len(bare) > 1
    return is_word or token.kind == COMMAND
