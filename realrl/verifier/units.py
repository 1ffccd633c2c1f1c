"""Reads the units after numbers, and multiplies and compares them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from realrl.verifier.functions import CONSTANTS, FUNCTIONS, GREEK
from realrl.verifier.lexicon import COUNTED_STOP, NUMBER_WORDS, QUALIFIERS, SCALES
from realrl.verifier.tokens import COMMAND, LETTERS, NUMBER, SIGN, TEXT, Token, Tokens
from realrl.verifier.tree import Unit
from realrl.verifier.unit_table import LOWER_CASE, UNITS

_TEMPERATURES = {"c": "celsius", "f": "fahrenheit", "celsius": "celsius", "fahrenheit": "fahrenheit"}
_POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3, "squared": 2, "cubed": 3}
_MOST_WORDS = 5
"""The largest number of words of a thing that is counted."""
_MOST_TOKENS = 16
"""The largest number of tokens of a unit."""
_NO_THINGS = (SCALES, NUMBER_WORDS, CONSTANTS, GREEK, FUNCTIONS, COUNTED_STOP, QUALIFIERS)
"""Collections of words that are not a part of a thing that is counted."""


def unit_of_word(word: str) -> Unit | None:
    """Return the unit that a word is; a long word may be in upper case, too."""
    bare = word.strip(".")
    unit = UNITS.get(bare)
    return unit or LOWER_CASE.get(bare.lower())


def unit_name(unit: Unit) -> str:
    """Return a short name of a unit, as `cm`; an empty one if the unit has no name of its own."""
    for name, other in UNITS.items():
        if other == unit:
            return name
    return ""


def read_unit(tokens: Tokens) -> Unit | None:
    r"""Return the unit that all tokens together are: `cm^2`, `km/h`, `\frac{m}{s}`, `square feet`."""
    if not 0 < len(tokens) <= _MOST_TOKENS:
        return None
    words = [_as_word(token) for token in tokens]
    return _Reader(words).read()


def counted_thing(tokens: Tokens) -> Unit | None:
    """Return the thing that a number counts; None for words that change what the number says."""
    if not 0 < len(tokens) <= _MOST_WORDS:
        return None
    words: list[str] = []
    for token in tokens:
        if token.kind not in (TEXT, LETTERS):
            return None
        words.append(token.text.lower())
    for word in words:
        is_single_letter = len(word) <= 1 and word != "a"
        if is_single_letter or _changes_the_number(word):
            return None
    return Unit(" ".join(words), is_known=False)


def _changes_the_number(word: str) -> bool:
    """Return whether a word after a number changes the number's meaning, so that it names no thing."""
    # In Japanese and Chinese, a word that begins so says a part of the number: "its half".
    if word[0] in "の的":
        return True
    return any(word in words for words in _NO_THINGS)


def _as_word(token: Token) -> Token:
    """Return a token of letters, or the command of a letter in units, as text."""
    if token.kind == LETTERS:
        return token._replace(kind=TEXT)
    if token.kind == COMMAND and token.text in (r"\Omega", r"\mu"):
        return token._replace(kind=TEXT)
    return token


class _Reader:
    """Reads a product of powers of units."""

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._at = 0

    def read(self) -> Unit | None:
        """Return the unit of all tokens; None if a token is left over."""
        unit = self._product()
        is_at_end = self._at == len(self._tokens)
        return unit if is_at_end else None

    def _peek(self) -> Token | None:
        if self._at < len(self._tokens):
            return self._tokens[self._at]
        return None

    def _take(self, *texts: str) -> bool:
        token = self._peek()
        if token is not None and token.text in texts:
            self._at += 1
            return True
        return False

    def _product(self) -> Unit | None:
        total = self._power()
        while total is not None and not self._is_at_end_of_group():
            divides = self._take("/", "per", "a", "an", "each")
            self._take(r"\cdot", "*")
            more = self._power()
            if more is None:
                return None
            total = multiplied(total, more, -1 if divides else 1)
        return total

    def _is_at_end_of_group(self) -> bool:
        token = self._peek()
        if token is None:
            return True
        return token.text in ("}", ")")

    def _power(self) -> Unit | None:
        token = self._peek()
        if token is None:
            return None
        word = token.text.lower()
        if word in ("square", "sq", "cubic", "cu"):
            self._at += 1
            self._take(".")
            inner = self._single()
            if inner is None:
                return None
            return _raised(inner, _POWERS[word])
        unit = self._single()
        if unit is None:
            return None
        if self._take("^"):
            exponent = self._exponent()
            if exponent is None:
                return None
            return _raised(unit, exponent)
        after = self._peek()
        if after is not None and after.text in ("squared", "cubed"):
            self._at += 1
            return _raised(unit, _POWERS[after.text])
        return unit

    def _exponent(self) -> int | None:
        grouped = self._take("{")
        sign = -1 if self._take("-") else 1
        token = self._peek()
        if token is None or token.kind != NUMBER:
            return None
        if not token.text.isdigit():
            return None
        if len(token.text) > 1:
            return None
        self._at += 1
        if grouped and not self._take("}"):
            return None
        return sign * int(token.text)

    def _single(self) -> Unit | None:
        if self._take(r"\frac"):
            return self._fraction()
        if self._take("{"):
            unit = self._product()
            return unit if self._take("}") else None
        if self._take("("):
            unit = self._product()
            return unit if self._take(")") else None
        if self._take(r"\Omega"):
            return UNITS["Ω"]
        prefix = "μ" if self._take(r"\mu") else ""
        token = self._peek()
        if token is None or token.kind not in (TEXT, SIGN):
            return None
        unit = unit_of_word(prefix + token.text)
        if unit is not None:
            self._at += 1
            self._take(".")
        return unit

    def _fraction(self) -> Unit | None:
        top = self._group()
        bottom = self._group()
        if top is None or bottom is None:
            return None
        return multiplied(top, bottom, -1)

    def _group(self) -> Unit | None:
        if not self._take("{"):
            return self._single()
        unit = self._product()
        return unit if self._take("}") else None


def multiplied(left: Unit, right: Unit, sign: int) -> Unit:
    """Return the product of two units, with the right one to the power `sign`, which is 1 or -1."""
    other = _raised(right, sign)
    kinds = [*_parts(left), *_parts(other)]
    return Unit(_joined(kinds), left.factor * other.factor)


def _raised(unit: Unit, exponent: int) -> Unit:
    kinds = [(kind, power * exponent) for kind, power in _parts(unit)]
    return Unit(_joined(kinds), unit.factor**exponent)


def _parts(unit: Unit) -> Iterator[tuple[str, int]]:
    for part in unit.kind.split(" * "):
        kind, _, power = part.partition("^")
        yield kind, int(power or 1)


def _joined(kinds: Sequence[tuple[str, int]]) -> str:
    powers: dict[str, int] = {}
    for kind, power in kinds:
        powers[kind] = powers.get(kind, 0) + power
    shown: list[str] = []
    for kind, power in sorted(powers.items()):
        if power == 1:
            shown.append(kind)
        elif power:
            shown.append(f"{kind}^{power}")
    return " * ".join(shown)


def degrees_of(letter: str) -> Unit | None:
    """Return the scale of temperature that a letter names; no scale is converted to another."""
    kind = _TEMPERATURES.get(letter.lower())
    if kind:
        return Unit(f"temperature {kind}")
    return None


def same_kind(left: Unit, right: Unit) -> bool:
    """Return whether a number of one unit can be converted to the other."""
    return left.kind == right.kind and left.is_known == right.is_known
