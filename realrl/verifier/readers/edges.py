"""Takes off what is around a value: signs at its edges, lead-ins, qualifiers and remarks."""

from __future__ import annotations

from realrl.verifier import lexicon, units
from realrl.verifier.slices import cut, enclosed, first_place, is_separator, is_word
from realrl.verifier.tokens import LETTERS, NUMBER, SIGN, Token, Tokens

_IN_PARENTHESES_ONLY = {"units", "unit", "root", "double", "roots"}
_CONDITIONS = frozenset(("=", "<", ">", r"\le", r"\ge", r"\ne", r"\in", r"\to"))
_EDGES = frozenset((".", ",", ";", ":", '"', "`"))


def stripped(tokens: Tokens) -> Tokens:
    """Without signs at the edges, braces around everything, lead-ins, qualifiers and remarks."""
    before = None
    while tokens != before:
        before = tokens
        tokens = _without_edges(tokens)
        tokens = _without_lead_in(tokens)
        tokens = _without_qualifier(tokens)
        tokens = _without_remark(tokens)
        around = enclosed(tokens)
        if around is not None and around[0] == "{":
            tokens = around[1]
    return tokens


def _without_edges(tokens: Tokens) -> Tokens:
    start, end = 0, len(tokens)
    while start < end and (tokens[start].text in _EDGES or tokens[start].is_sign("=", r"\approx", r"\sim")):
        start += 1
    while start < end and tokens[end - 1].text in _EDGES:
        end -= 1
    return tokens[start:end]


def _without_lead_in(tokens: Tokens) -> Tokens:
    start = 0
    while start < len(tokens) - 1 and is_word(tokens[start]):
        word = tokens[start].text.lower()
        if word not in lexicon.LEAD_INS and word not in lexicon.APPROXIMATELY:
            break
        start += 1
    return tokens[start:]


def _without_qualifier(tokens: Tokens) -> Tokens:
    """Without what is said about the value: `for all real x`, `where k is whole`."""
    place = first_place(tokens, lambda token: is_word(token) and token.text.lower() in lexicon.QUALIFIERS)
    if not place:
        return tokens
    value, clause = tokens[:place], tokens[place + 1 :]
    return value if _only_qualifies(tokens[place].text.lower(), clause, value) else tokens


def _only_qualifies(opening: str, clause: Tokens, value: Tokens) -> bool:
    """Whether a clause says when a value holds, and no more: `with remainder 2` belongs to the value."""
    words = [token.text.lower() for token in clause if is_word(token)]
    # Of `x not equal to 3` the rest is no exception.
    said = {word for word, after in zip(words, [*words[1:], ""]) if (word, after) != ("not", "equal")}
    if _has_other_cases(clause) or said & lexicon.EXCEPTING or _has_another_value(clause):
        return False
    if _sets(clause, value):
        return False
    if opening not in lexicon.PREPOSITIONS:
        return True
    is_condition = any(token.text in _CONDITIONS for token in clause) and not is_word(clause[0])
    return is_condition or (bool(words) and words[0] in lexicon.REQUIRED)


def _has_another_value(clause: Tokens) -> bool:
    """Whether a clause goes on to a number that no condition is about: `for n = 2 and 7`."""
    parts, joints = cut(clause, is_separator)
    return bool(joints) and any(
        any(token.kind == NUMBER for token in part)
        and not any(token.text in _CONDITIONS or is_word(token) for token in part)
        for part in parts[1:]
    )


def _sets(clause: Tokens, value: Tokens) -> bool:
    """Whether a clause gives a variable of the value a number: `2n where n = 3`."""
    is_equation = len(clause) > 2 and clause[0].kind == LETTERS and clause[1].text == "="
    return is_equation and any(token.text == clause[0].text for token in value)


def _has_other_cases(clause: Tokens) -> bool:
    """Whether a clause goes on to another value: `5 when x > 0, 7 otherwise`."""
    words = {token.text.lower() for token in clause if is_word(token)}
    return bool(words & lexicon.OTHER_CASES) or (
        any(map(is_separator, clause)) and bool(words & lexicon.QUALIFIERS)
    )


def _without_remark(tokens: Tokens) -> Tokens:
    r"""Without words in parentheses, or at the end, that add nothing to a value.

    A range in parentheses, as `(n \in \mathbb{Z})`, becomes a member of a list.
    """
    end = len(tokens)
    if end and tokens[-1].text == ")":
        start = next((i for i in range(end - 2, 0, -1) if tokens[i].text == "("), 0)
        inside = tokens[start + 1 : -1]
        if start and any(token.text == r"\in" for token in inside):
            return (*tokens[:start], Token(SIGN, ","), *inside)
        words = [token for token in inside if token.text != "."]
        is_remark = bool(words) and all(
            is_word(token) and token.text.lower() in lexicon.REMARKS for token in words
        )
        return tokens[:start] if start and inside and (is_remark or _is_unit(inside)) else tokens
    while (
        end > 1
        and is_word(tokens[end - 1])
        and tokens[end - 1].text.lower() in lexicon.REMARKS - _IN_PARENTHESES_ONLY
    ):
        end -= 1
    has_value = end and not all(map(is_word, tokens[:end]))
    return tokens[:end] if has_value else tokens


def _is_unit(tokens: Tokens) -> bool:
    """Whether words are a unit; a single letter may be a choice."""
    are_words = all(is_word(token) and len(token.text) > 1 for token in tokens)
    return are_words and units.read_unit(tokens) is not None
