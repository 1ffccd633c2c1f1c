r"""Names that are given a value: `x`, `f(2)`, `|AB|`, `\frac{dy}{dx}`, `(p, q)`, `\text{mean}`, `x + y`."""

from __future__ import annotations

from realrl.verifier.functions import FUNCTIONS, GREEK
from realrl.verifier.lexicon import NEGATING
from realrl.verifier.slices import text_of, with_depth
from realrl.verifier.tokens import CLOSE, COMMAND, LETTERS, NUMBER, OPEN, SIGN, TEXT, Token, Tokens

MAX_TOKENS = 14
MAX_WORDS = 5
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
_NO_NAMES = frozenset((r"\pi", r"\infty", "e", "i"))
_SIGNS = frozenset(("|", "_", "^", "'", "(", ")", "{", "}", ",", "+", "-", "/", r"\cdot", "*", ":"))


def name_of(tokens: Tokens) -> tuple[str, bool] | None:
    """Return `(name, whether it may be omitted before a value)`, if the tokens are a name; else None.

    A name with a known function in it, as `\\log x`, may not be omitted.
    """
    if not 0 < len(tokens) <= MAX_TOKENS or tokens[0].text in ("-", "+", "^", "/"):
        return None
    if len(tokens) == 1 and tokens[0].text in _NO_NAMES:
        return None
    if sum(token.kind == TEXT for token in tokens) > MAX_WORDS:
        return None
    may_be_dropped = True
    for place, (token, depth) in enumerate(with_depth(tokens)):
        if not _belongs(token, depth, tokens[place - 1] if place else None):
            return None
        may_be_dropped &= not _is_known_function(token)
    if _has_number_in_fraction(tokens):
        return None
    has_letter = any(token.kind in (LETTERS, TEXT) or _is_greek(token) for token in tokens)
    return (spelled_name(tokens), may_be_dropped) if has_letter else None


def is_one_thing(name: str) -> bool:
    """Return whether a name has no sum and no power in it."""
    spaced = f" {name} "
    return not any(sign in spaced for sign in (" + ", " - ", " ^ "))


def spelled_name(tokens: Tokens) -> str:
    """Return one spelling of a name."""
    return text_of(tokens).replace("\\text ", "")


def is_variable(name: str) -> bool:
    """Return whether a name is one letter, with a subscript or primes."""
    letter = without_subscript(name).rstrip("' ")
    return len(letter) == 1 or name.startswith("\\")


def without_subscript(name: str) -> str:
    """Return a name without its subscript."""
    return name.partition(" _ ")[0]


def _belongs(token: Token, depth: int, before: Token | None) -> bool:
    """Return whether a token may be part of a name, after the token before it."""
    if depth > 0 and token.kind != TEXT:
        return True
    if token.kind in (LETTERS, TEXT, OPEN, CLOSE):
        return token.text.lower() not in NEGATING
    if token.kind == NUMBER:
        return depth > 0 or (before is not None and before.text in ("_", "^"))
    if token.kind == COMMAND:
        is_sign = token.text in _MARKS or token.text in _SIGNS
        return is_sign or _is_greek(token) or _is_known_function(token)
    return token.kind == SIGN and token.text in _SIGNS


def _has_number_in_fraction(tokens: Tokens) -> bool:
    r"""Return whether a fraction has a number: `\frac{x}{2}` is no name, `\frac{dy}{dx}` is one."""
    has_fraction = any(token.text in (r"\frac", "/") for token in tokens)
    return has_fraction and any(token.kind == NUMBER for token in tokens)


def _is_greek(token: Token) -> bool:
    return token.kind == COMMAND and token.text.removeprefix("\\") in (*GREEK, "pi")


def _is_known_function(token: Token) -> bool:
    bare = token.text.removeprefix("\\")
    is_function = bare in FUNCTIONS and bare not in ("max", "min", "arg", "det")
    return is_function and (token.kind == COMMAND or (token.kind == LETTERS and len(bare) > 1))
