"""Reads times, ratios, numerals, expressions with two signs, and values with a label."""

from __future__ import annotations

from realrl.verifier import numerals
from realrl.verifier.names import is_one_thing, name_of
from realrl.verifier.nodes import Number
from realrl.verifier.readers.common import Read, only_formula
from realrl.verifier.readers.relations import ray
from realrl.verifier.slices import cut, enclosed, is_word, words_of
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
_LABELS = frozenset(
    "minimum maximum min max area perimeter volume length width height radius mean median mode range sum "
    "product probability distance speed time cost price profit number angle side base smallest largest least "
    "greatest first second third point vertex center slope".split()
)


def read_moment(tokens: Tokens, read: Read) -> Reading:
    found = numerals.moment(tokens)
    if found is None:
        return ()
    ratio = read_ratio(tokens, read) if found.minutes is not None and not found.half else ()
    return (*ratio, found)


def read_number_in_words(tokens: Tokens, _: Read) -> Reading:
    """`three hundred and seven`, in which "and" joins no list."""
    found = numerals.number_in_words(tokens)
    return (Formula(Number(found[0])),) if found is not None and found[1] == len(tokens) else ()


def read_numeral(tokens: Tokens, _: Read) -> Reading:
    found = numerals.numeral(tokens)
    return () if found is None else (found,)


def read_ratio(tokens: Tokens, read: Read) -> Reading:
    parts, joints = cut(tokens, lambda token: token.text == ":" or (is_word(token) and token.text == "to"))
    if not joints or not all(parts):
        return ()
    named = name_of(parts[0]) if len(parts) == 2 and joints[0].text == ":" else None
    if named and is_one_thing(named[0]) and named[1] and not name_of(parts[1]):
        return (Named(named[0], read(parts[1])),)
    return (Items(":", tuple(map(read, parts))),)


def read_signs(tokens: Tokens, read: Read) -> Reading:
    r"""Both values of an expression with `\pm`: every `\pm` has one sign, every `\mp` the other."""
    around = enclosed(tokens)
    is_set = around is not None and around[0] == r"\{"
    if is_set or not any(token.text in (r"\pm", r"\mp") for token in tokens):
        return ()
    plus, minus = Token(SIGN, "+"), Token(SIGN, "-")
    upper = tuple({r"\pm": plus, r"\mp": minus}.get(token.text, token) for token in tokens)
    lower = tuple({r"\pm": minus, r"\mp": plus}.get(token.text, token) for token in tokens)
    members = tuple(map(read, (upper, lower)))
    if any(isinstance(member[0], Words) for member in members):
        return ()
    return (Items(",", members),)


def read_labelled(tokens: Tokens, read: Read) -> Reading:
    """`at least 5`, and `Minimum 1`: words before a value."""
    texts = words_of(tokens)
    for words, operator in _BOUNDING.items():
        if texts[: len(words)] == list(words) and len(tokens) > len(words):
            node = only_formula(tokens[len(words) :], read)
            return () if node is None else (ray(operator, node),)
    place = next((i for i, token in enumerate(tokens) if not is_word(token)), len(tokens))
    if not 0 < place < len(tokens) or not all(word in _LABELS for word in texts[:place]):
        return ()
    value = read(tokens[place:])
    return () if isinstance(value[0], Words) else (Named(" ".join(texts[:place]), value),)
