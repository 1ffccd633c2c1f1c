"""Removes the surroundings of a value: signs at its edges, lead-ins, qualifiers and remarks."""

from __future__ import annotations

from realrl.verifier import lexicon, units
from realrl.verifier.slices import cut, enclosed, first_place, has_text, is_separator, is_word
from realrl.verifier.tokens import LETTERS, NUMBER, SIGN, Token, Tokens

_IN_PARENTHESES_ONLY = {"units", "unit", "root", "double", "roots"}
"""Remarks that count only in parentheses: at the end without them, they belong to the value."""
_CONDITIONS = frozenset(("=", "<", ">", r"\le", r"\ge", r"\ne", r"\in", r"\to"))
_EDGES = frozenset((".", ",", ";", ":", '"', "`"))


def stripped(tokens: Tokens) -> Tokens:
    """Return tokens without signs at the edges, braces around everything, lead-ins and remarks."""
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
    start = 0
    end = len(tokens)
    while start < end and _is_edge_before(tokens[start]):
        start += 1
    while start < end and tokens[end - 1].text in _EDGES:
        end -= 1
    return tokens[start:end]


def _is_edge_before(token: Token) -> bool:
    if token.text in _EDGES:
        return True
    return token.is_sign("=", r"\approx", r"\sim")


def _without_lead_in(tokens: Tokens) -> Tokens:
    start = 0
    while start < len(tokens) - 1 and is_word(tokens[start]):
        word = tokens[start].text.lower()
        if word not in lexicon.LEAD_INS and word not in lexicon.APPROXIMATELY:
            break
        start += 1
    return tokens[start:]


def _is_qualifier(token: Token) -> bool:
    if not is_word(token):
        return False
    return token.text.lower() in lexicon.QUALIFIERS


def _without_qualifier(tokens: Tokens) -> Tokens:
    """Return tokens without a clause about the value: `for all real x`, `where k is whole`."""
    place = first_place(tokens, _is_qualifier)
    if not place:
        return tokens
    opening = tokens[place].text.lower()
    value = tokens[:place]
    clause = tokens[place + 1 :]
    if _only_qualifies(opening, clause, value):
        return value
    return tokens


def _only_qualifies(opening: str, clause: Tokens, value: Tokens) -> bool:
    """Return whether a clause says when a value holds, and no more.

    A clause as `with remainder 2` belongs to the value.
    """
    words = _words_in(clause)
    if _has_other_cases(clause) or _excepts(words):
        return False
    if _has_another_value(clause) or _sets_variable(clause, value):
        return False
    if opening not in lexicon.PREPOSITIONS:
        return True
    if has_text(clause, *_CONDITIONS) and not is_word(clause[0]):
        return True
    if not words:
        return False
    return words[0] in lexicon.REQUIRED


def _words_in(clause: Tokens) -> list[str]:
    """Return the words of a clause in lower case."""
    words = filter(is_word, clause)
    return [word.text.lower() for word in words]


def _excepts(words: list[str]) -> bool:
    """Return whether words make an exception; the "not" of `x not equal to 3` makes none."""
    for word, after in zip(words, [*words[1:], ""]):
        if word in lexicon.EXCEPTING and (word, after) != ("not", "equal"):
            return True
    return False


def _has_another_value(clause: Tokens) -> bool:
    """Return whether a clause continues with a number that is in no condition: `for n = 2 and 7`."""
    parts, _ = cut(clause, is_separator)
    return any(_is_bare_number(part) for part in parts[1:])


def _is_bare_number(part: Tokens) -> bool:
    has_number = False
    for token in part:
        if token.text in _CONDITIONS or is_word(token):
            return False
        if token.kind == NUMBER:
            has_number = True
    return has_number


def _sets_variable(clause: Tokens, value: Tokens) -> bool:
    """Return whether a clause gives a number to a variable of the value: `2n where n = 3`."""
    if len(clause) < 3:
        return False
    variable, sign = clause[:2]
    if variable.kind != LETTERS or sign.text != "=":
        return False
    return has_text(value, variable.text)


def _has_other_cases(clause: Tokens) -> bool:
    """Return whether a clause continues with another value: `5 when x > 0, 7 otherwise`."""
    words = _words_in(clause)
    if not lexicon.OTHER_CASES.isdisjoint(words):
        return True
    if not any(map(is_separator, clause)):
        return False
    return not lexicon.QUALIFIERS.isdisjoint(words)


def _without_remark(tokens: Tokens) -> Tokens:
    r"""Return tokens without words in parentheses, or at the end, that add nothing to a value.

    A range in parentheses, as `(n \in \mathbb{Z})`, becomes a member of a list.
    """
    if tokens and tokens[-1].text == ")":
        return _without_parentheses(tokens)
    end = len(tokens)
    while end > 1 and _is_last_remark(tokens[end - 1]):
        end -= 1
    has_value = not all(map(is_word, tokens[:end]))
    if has_value:
        return tokens[:end]
    return tokens


def _without_parentheses(tokens: Tokens) -> Tokens:
    """Return tokens that end with parentheses, without the remark or the unit in them."""
    start = _last_opening(tokens)
    if not start:
        return tokens
    inside = tokens[start + 1 : -1]
    if has_text(inside, r"\in"):
        return (*tokens[:start], Token(SIGN, ","), *inside)
    before = tokens[:start]
    words = [token for token in inside if token.text != "."]
    if words and all(map(_is_remark, words)):
        return before
    if inside and _is_unit(inside):
        return before
    return tokens


def _last_opening(tokens: Tokens) -> int:
    """Return the place of the last opening parenthesis; 0 if it is the first token or there is none."""
    for place in range(len(tokens) - 2, 0, -1):
        if tokens[place].text == "(":
            return place
    return 0


def _is_remark(token: Token) -> bool:
    if not is_word(token):
        return False
    return token.text.lower() in lexicon.REMARKS


def _is_last_remark(token: Token) -> bool:
    if not _is_remark(token):
        return False
    return token.text.lower() not in _IN_PARENTHESES_ONLY


def _is_unit(tokens: Tokens) -> bool:
    """Return whether words are a unit; a single letter may be a choice."""
    for token in tokens:
        if not is_word(token) or len(token.text) == 1:
            return False
    return units.read_unit(tokens) is not None
