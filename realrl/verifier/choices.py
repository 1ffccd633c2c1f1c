"""Answers that pick one of the letters of a multiple-choice question."""

from __future__ import annotations

from realrl.verifier.lexicon import HEDGES
from realrl.verifier.tokens import LETTERS, NUMBER, TEXT, Token, Tokens

_FORMULA_BEGINS = frozenset(
    (r"\frac", r"\sqrt", r"\pi", r"\infty", r"\log", r"\ln", "(", "[", r"\{", r"\emptyset")
)
"""How the formula of a choice may begin, behind a space."""
_BEHIND = frozenset(("^", "_", "+", "-", "=", "*", "/", "<", ">", r"\le", r"\ge", r"\cdot", "("))
"""Signs behind the variable that such a formula may begin with."""
LETTERS_OF_CHOICES = "ABCDEFGHIJ"
_INTRODUCING = frozenset("option choice answer".split())


def solution_choice(tokens: Tokens) -> str | None:
    r"""The letter of a solution that is a choice, as `C`, `(C)`, `\text{(C)}`, `C.`"""
    found = _marked(tokens)
    return found[0] if found and not found[1] else None


def picks(tokens: Tokens, letter: str) -> bool:
    """Whether an answer picks one letter, perhaps with the text of that choice behind it: `(B) 12`.

    Any other letter that could be a choice, or a sign behind the letter, makes it something else.
    """
    found = _marked(_without_introduction(tokens), lower=True)
    if found is None or found[0] != letter:
        return False
    return _is_text_of_choice(found[1], found[2])


def value_of_choice(tokens: Tokens) -> Tokens:
    """The tokens behind the letter of `(B) 12`; nothing where there is no such letter."""
    found = _marked(_without_introduction(tokens))
    return found[1] if found and found[2] and _is_text_of_choice(found[1], found[2]) else ()


def chosen_letters(tokens: Tokens) -> frozenset[str]:
    """The letters of `CD` and `C, D`, where there is nothing else."""
    letters: set[str] = set()
    for token in tokens:
        if token.kind in (LETTERS, TEXT) and set(token.text) <= set(LETTERS_OF_CHOICES):
            letters |= set(token.text)
        elif token.text not in (",", ";", "(", ")", "{", "}") and token.text.lower() != "and":
            return frozenset()
    return frozenset(letters)


def _without_introduction(tokens: Tokens) -> Tokens:
    return tokens[1:] if len(tokens) > 1 and tokens[0].text.lower() in _INTRODUCING else tokens


def _marked(tokens: Tokens, lower: bool = False) -> tuple[str, Tokens, bool] | None:
    """`(letter, what is behind it, whether a mark ends the letter)` of tokens that begin with a choice."""
    tokens = tuple(token for token in tokens if token.text not in ("{", "}"))
    texts = [token.text for token in tokens[:3]]
    if len(texts) == 3 and texts[0] in "([" and texts[2] in ")]" and _is_letter(tokens[1], lower):
        return texts[1].upper(), _without_point(tokens[3:]), True
    if tokens and _is_letter(tokens[0], lower):
        if len(tokens) == 1:
            return texts[0].upper(), (), False
        if tokens[1].text in (")", ".", ":") and tokens[0].text.isupper():
            return texts[0].upper(), tokens[2:], True
    return None


def _without_point(tokens: Tokens) -> Tokens:
    return tokens[1:] if tokens and tokens[0].text in (".", ":") else tokens


def _is_letter(token: Token, lower: bool) -> bool:
    letter = token.text.upper() if lower else token.text
    return token.kind in (LETTERS, TEXT) and len(letter) == 1 and letter in LETTERS_OF_CHOICES


def _is_text_of_choice(rest: Tokens, is_marked: bool) -> bool:
    if not rest:
        return True
    if not is_marked or any(_is_other_choice(token) for token in rest):
        return False
    words = {token.text.lower() for token in rest}
    if words & HEDGES:
        return False
    first = rest[0]
    is_word = first.kind == TEXT or (first.kind == LETTERS and len(first.text) > 1)
    is_value = first.kind == NUMBER or is_word or first.text in ("$", "-")
    is_variable = first.kind == LETTERS and first.text.islower() and len(rest) > 1 and rest[1].text in _BEHIND
    return is_value or (first.after_space and (is_variable or first.text in _FORMULA_BEGINS))


def _is_other_choice(token: Token) -> bool:
    return token.kind in (LETTERS, TEXT) and len(token.text) == 1 and token.text in LETTERS_OF_CHOICES
