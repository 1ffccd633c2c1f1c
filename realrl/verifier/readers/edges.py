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
    return token.text in _EDGES or token.is_sign("=", r"\approx", r"\sim")


def _without_lead_in(tokens: Tokens) -> Tokens:
    start = 0
    while start < len(tokens) - 1 and is_word(tokens[start]):
        word = tokens[start].text.lower()
        if word not in lexicon.LEAD_INS and word not in lexicon.APPROXIMATELY:
            break
        start += 1
    return tokens[start:]


def _is_qualifier(token: Token) -> bool:
    return is_word(token) and token.text.lower() in lexicon.QUALIFIERS


def _without_qualifier(tokens: Tokens) -> Tokens:
    """Return tokens without a clause about the value: `for all real x`, `where k is whole`."""
    place = first_place(tokens, _is_qualifier)
    if not place:
        return tokens
    opening = tokens[place].text.lower()
    value = tokens[:place]
    clause = tokens[place + 1 :]
    return value if _only_qualifies(opening, clause, value) else tokens


def _only_qualifies(opening: str, clause: Tokens, value: Tokens) -> bool:
    """Return whether a clause says when a value holds, and no more.

    A clause as `with remainder 2` belongs to the value.
    """
    words = [token.text.lower() for token in clause if is_word(token)]
    if _has_other_cases(clause) or _excepts(words) or _has_another_value(clause):
        return False
    if _sets_variable(clause, value):
        return False
    if opening not in lexicon.PREPOSITIONS:
        return True
    if has_text(clause, *_CONDITIONS) and not is_word(clause[0]):
        return True
    return bool(words) and words[0] in lexicon.REQUIRED


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
    has_number = any(token.kind == NUMBER for token in part)
    has_condition = any(token.text in _CONDITIONS or is_word(token) for token in part)
    return has_number and not has_condition


def _sets_variable(clause: Tokens, value: Tokens) -> bool:
    """Return whether a clause gives a number to a variable of the value: `2n where n = 3`."""
    if len(clause) < 3:
        return False
    variable, sign = clause[:2]
    is_equation = variable.kind == LETTERS and sign.text == "="
    return is_equation and has_text(value, variable.text)


def _has_other_cases(clause: Tokens) -> bool:
    """Return whether a clause continues with another value: `5 when x > 0, 7 otherwise`."""
    words = {token.text.lower() for token in clause if is_word(token)}
    if words & lexicon.OTHER_CASES:
        return True
    return any(map(is_separator, clause)) and bool(words & lexicon.QUALIFIERS)


def _without_remark(tokens: Tokens) -> Tokens:
    r"""Return tokens without words in parentheses, or at the end, that add nothing to a value.

    A range in parentheses, as `(n \in \mathbb{Z})`, becomes a member of a list.
    """
    if tokens and tokens[-1].text == ")":
        return _without_parentheses(tokens)
    end = len(tokens)
    while end > 1 and _is_last_remark(tokens[end - 1]):
        end -= 1
    has_value = end and not all(map(is_word, tokens[:end]))
    return tokens[:end] if has_value else tokens


def _without_parentheses(tokens: Tokens) -> Tokens:
    """Return tokens that end with parentheses, without the remark or the unit in them."""
    start = _last_opening(tokens)
    if not start:
        return tokens
    inside = tokens[start + 1 : -1]
    if has_text(inside, r"\in"):
        return (*tokens[:start], Token(SIGN, ","), *inside)
    words = [token for token in inside if token.text != "."]
    is_remark = bool(words) and all(map(_is_remark, words))
    is_superfluous = bool(inside) and (is_remark or _is_unit(inside))
    return tokens[:start] if is_superfluous else tokens


def _last_opening(tokens: Tokens) -> int:
    """Return the place of the last opening parenthesis; 0 if it is the first token or there is none."""
    for place in range(len(tokens) - 2, 0, -1):
        if tokens[place].text == "(":
            return place
    return 0


def _is_remark(token: Token) -> bool:
    return is_word(token) and token.text.lower() in lexicon.REMARKS


def _is_last_remark(token: Token) -> bool:
    return _is_remark(token) and token.text.lower() not in _IN_PARENTHESES_ONLY


def _is_unit(tokens: Tokens) -> bool:
    """Return whether words are a unit; a single letter may be a choice."""
    are_words = all(is_word(token) and len(token.text) > 1 for token in tokens)
    return are_words and units.read_unit(tokens) is not None
