"""Reads times, ratios, numerals, expressions with two signs, and values with a label."""

from __future__ import annotations

from realrl.verifier import numerals
from realrl.verifier.names import Name, is_one_thing, name_of
from realrl.verifier.nodes import Number
from realrl.verifier.readers.common import Read, only_formula, read_each
from realrl.verifier.readers.orders import ray
from realrl.verifier.slices import cut, enclosed, has_text, is_word, words_of
from realrl.verifier.tokens import SIGN, Token, Tokens
from realrl.verifier.tree import Formula, Items, Named, Reading, Words

_BOUNDING = {
    ("at", "least"): ">=",
    ("at", "most"): "<=",
    ("no", "less", "than"): ">=",
    ("no", "more", "than"): "<=",
    ("less", "than"): "<",
    ("more", "than"): ">",
    ("greater", "than"): ">",
    ("fewer", "than"): "<",
}
"""Words before a bound, and the order that they mean."""
_LABELS = frozenset(
    "minimum maximum min max area perimeter volume length width height radius mean median mode range sum "
    "product probability distance speed time cost price profit number angle side base smallest largest least "
    "greatest first second third point vertex center slope".split()
)
"""Words that may be a label before a value."""
_PLUS = Token(SIGN, "+")
_MINUS = Token(SIGN, "-")
_UPPER_SIGNS = {r"\pm": _PLUS, r"\mp": _MINUS}
_LOWER_SIGNS = {r"\pm": _MINUS, r"\mp": _PLUS}


def read_moment(tokens: Tokens, read: Read) -> Reading:
    """Return a time or a date; a time without am or pm may be a ratio, which comes first."""
    found = numerals.moment(tokens)
    if found is None:
        return ()
    may_be_ratio = found.minutes is not None and not found.half
    ratio = read_ratio(tokens, read) if may_be_ratio else ()
    return (*ratio, found)


def read_number_in_words(tokens: Tokens, _: Read) -> Reading:
    """Return a number in words, as `three hundred and seven`, in which "and" joins no list."""
    found = numerals.number_in_words(tokens)
    if found is None:
        return ()
    value, taken = found
    if taken < len(tokens):
        return ()
    return (Formula(Number(value)),)


def read_numeral(tokens: Tokens, _: Read) -> Reading:
    """Return digits with a base, as `52_8`."""
    found = numerals.numeral(tokens)
    if found is None:
        return ()
    return (found,)


def read_ratio(tokens: Tokens, read: Read) -> Reading:
    """Return a ratio, as `3 : 4` and `3 to 4`, or a named value that is written with a colon, as `x: 4`."""
    parts, joints = cut(tokens, _joins_ratio)
    if not joints or not all(parts):
        return ()
    if len(parts) == 2 and joints[0].text == ":":
        label, value = parts
        name = name_of(label)
        if name is not None and _labels(name) and name_of(value) is None:
            return (Named(name.text, read(value)),)
    return (Items(":", read_each(parts, read)),)


def _labels(name: Name) -> bool:
    return name.may_be_dropped and is_one_thing(name.text)


def _joins_ratio(token: Token) -> bool:
    if token.text == ":":
        return True
    return is_word(token) and token.text == "to"


def read_signs(tokens: Tokens, read: Read) -> Reading:
    r"""Return both values of an expression with `\pm`: every `\pm` has one sign, every `\mp` the other."""
    around = enclosed(tokens)
    is_set = around is not None and around[0] == r"\{"
    if is_set or not has_text(tokens, r"\pm", r"\mp"):
        return ()
    upper = read(_with_signs(tokens, _UPPER_SIGNS))
    lower = read(_with_signs(tokens, _LOWER_SIGNS))
    if isinstance(upper[0], Words):
        return ()
    if isinstance(lower[0], Words):
        return ()
    return (Items(",", (upper, lower)),)


def _with_signs(tokens: Tokens, signs: dict[str, Token]) -> Tokens:
    return tuple(signs.get(token.text, token) for token in tokens)


def read_labelled(tokens: Tokens, read: Read) -> Reading:
    """Return a value with words before it: a bound, as `at least 5`, or a label, as `Minimum 1`."""
    texts = words_of(tokens)
    for words, operator in _BOUNDING.items():
        rest = tokens[len(words) :]
        if rest and texts[: len(words)] == list(words):
            node = only_formula(rest, read)
            if node is None:
                return ()
            return (ray(operator, node),)
    place = _num_words_at_start(tokens)
    if not 0 < place < len(tokens):
        return ()
    label = texts[:place]
    if not _LABELS.issuperset(label):
        return ()
    value = read(tokens[place:])
    if isinstance(value[0], Words):
        return ()
    return (Named(" ".join(label), value),)


def _num_words_at_start(tokens: Tokens) -> int:
    for place, token in enumerate(tokens):
        if not is_word(token):
            return place
    return len(tokens)
