"""Reads answers that pick a letter of a multiple-choice question."""

from __future__ import annotations

from typing import NamedTuple

from realrl.verifier.lexicon import HEDGES
from realrl.verifier.tokens import LETTERS, NUMBER, TEXT, Token, Tokens

_FORMULA_BEGINS = frozenset(
    (r"\frac", r"\sqrt", r"\pi", r"\infty", r"\log", r"\ln", "(", "[", r"\{", r"\emptyset")
)
"""Tokens that may begin the formula of a choice, after a space."""
_AFTER_VARIABLE = frozenset(("^", "_", "+", "-", "=", "*", "/", "<", ">", r"\le", r"\ge", r"\cdot", "("))
"""Signs that follow a variable at the beginning of such a formula."""
LETTERS_OF_CHOICES = "ABCDEFGHIJ"
_INTRODUCING = frozenset("option choice answer".split())
_BETWEEN_LETTERS = (",", ";", "(", ")", "{", "}")
"""Signs that may separate or enclose several chosen letters."""


class _MarkedChoice(NamedTuple):
    """The choice at the beginning of an answer."""

    letter: str
    rest: Tokens
    """The tokens after the letter and its mark."""
    is_marked: bool
    """Whether brackets, a point or a colon mark the letter."""


def solution_choice(tokens: Tokens) -> str | None:
    r"""Return the letter of a solution that is a choice, as `C`, `(C)`, `\text{(C)}`, `C.`; else None."""
    found = _marked_choice(tokens)
    if found is None or found.rest:
        return None
    return found.letter


def picks(tokens: Tokens, letter: str) -> bool:
    """Return whether an answer picks `letter`, perhaps followed by the text of that choice: `(B) 12`.

    An answer with another letter that could be a choice, or with a sign after the letter, picks nothing.
    """
    found = _marked_choice(_without_introduction(tokens), lower=True)
    if found is None or found.letter != letter:
        return False
    return _is_text_of_choice(found)


def value_of_choice(tokens: Tokens) -> Tokens:
    """Return the tokens after the letter of `(B) 12`; no tokens if there is no marked letter."""
    found = _marked_choice(_without_introduction(tokens))
    if found is None or not found.is_marked:
        return ()
    if _is_text_of_choice(found):
        return found.rest
    return ()


def chosen_letters(tokens: Tokens) -> frozenset[str]:
    """Return the letters of `CD` and `C, D`; none if the answer says anything else."""
    choices = set(LETTERS_OF_CHOICES)
    letters: set[str] = set()
    for token in tokens:
        text = token.text
        characters = set(text)
        if token.kind in (LETTERS, TEXT) and characters <= choices:
            letters |= characters
        elif text not in _BETWEEN_LETTERS and text.lower() != "and":
            return frozenset()
    return frozenset(letters)


def _without_introduction(tokens: Tokens) -> Tokens:
    has_introduction = len(tokens) > 1 and tokens[0].text.lower() in _INTRODUCING
    if has_introduction:
        return tokens[1:]
    return tokens


def _marked_choice(tokens: Tokens, lower: bool = False) -> _MarkedChoice | None:
    """Return the choice that the tokens begin with, also in lower case if `lower`; None without one."""
    tokens = tuple(token for token in tokens if token.text not in ("{", "}"))
    if _begins_with_brackets(tokens):
        inside = tokens[1]
        if _is_letter(inside, lower):
            rest = _without_point(tokens[3:])
            return _MarkedChoice(inside.text.upper(), rest, is_marked=True)
    if not tokens or not _is_letter(tokens[0], lower):
        return None
    letter = tokens[0].text
    if len(tokens) == 1:
        return _MarkedChoice(letter.upper(), (), is_marked=False)
    # A mark after a lower-case letter does not make it a choice.
    mark = tokens[1].text
    if mark in (")", ".", ":") and letter.isupper():
        return _MarkedChoice(letter, tokens[2:], is_marked=True)
    return None


def _begins_with_brackets(tokens: Tokens) -> bool:
    """Return whether the first three tokens are one token in brackets."""
    if len(tokens) < 3:
        return False
    if tokens[0].text not in "([":
        return False
    return tokens[2].text in ")]"


def _without_point(tokens: Tokens) -> Tokens:
    has_point = bool(tokens) and tokens[0].text in (".", ":")
    if has_point:
        return tokens[1:]
    return tokens


def _is_letter(token: Token, lower: bool) -> bool:
    letter = token.text.upper() if lower else token.text
    if token.kind not in (LETTERS, TEXT):
        return False
    return len(letter) == 1 and letter in LETTERS_OF_CHOICES


def _is_text_of_choice(choice: _MarkedChoice) -> bool:
    """Return whether the tokens after a letter are nothing or the text of its choice."""
    rest = choice.rest
    if not rest:
        return True
    if not choice.is_marked:
        return False
    if any(_is_other_choice(token) for token in rest):
        return False
    words = {token.text.lower() for token in rest}
    if words & HEDGES:
        return False
    if _is_word_or_number(rest[0]):
        return True
    # Without a space, a formula would be a product with the letter.
    return rest[0].after_space and _begins_formula(rest)


def _is_word_or_number(token: Token) -> bool:
    if token.kind in (TEXT, NUMBER):
        return True
    if token.text in ("$", "-"):
        return True
    return token.kind == LETTERS and len(token.text) > 1


def _begins_formula(tokens: Tokens) -> bool:
    """Return whether tokens begin like a formula: with a variable and a sign, or a known beginning."""
    first = tokens[0]
    if first.text in _FORMULA_BEGINS:
        return True
    is_variable = first.kind == LETTERS and first.text.islower()
    if not is_variable or len(tokens) == 1:
        return False
    return tokens[1].text in _AFTER_VARIABLE


def _is_other_choice(token: Token) -> bool:
    return _is_letter(token, lower=False)
