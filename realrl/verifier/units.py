"""Reads the units after numbers, and converts between them.

The list is closed: a word that is not in it is a counted thing, never a unit. Factors are exact.
Source: BIPM, The International System of Units, 9th edition, 2019; NIST Special Publication 811, appendix B.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction

from realrl.verifier.functions import CONSTANTS, FUNCTIONS, GREEK
from realrl.verifier.lexicon import COUNTED_STOP, NUMBER_WORDS, QUALIFIERS, SCALES
from realrl.verifier.tokens import COMMAND, LETTERS, NUMBER, SIGN, TEXT, Token, Tokens
from realrl.verifier.tree import Unit

_ENERGY = "length^2 * mass * time^-2"
_POWER = "length^2 * mass * time^-3"
_VOLTAGE = "current^-1 * length^2 * mass * time^-3"
_PREFIXED: tuple[tuple[str, str, str, str], ...] = (
    ("length", "1", "m", "meter meters metre metres"),
    ("mass", "1", "g", "gram grams gramme grammes"),
    ("time", "1", "s", "second seconds sec secs"),
    ("current", "1", "A", "ampere amperes amp amps"),
    ("amount", "1", "mol", "mole moles"),
    ("information", "1", "B", "byte bytes"),
    ("length^3", "1/1000", "L l", "liter liters litre litres"),
    ("time^-1", "1", "Hz", "hertz"),
    ("length * mass * time^-2", "1000", "N", "newton newtons"),
    ("length^-1 * mass * time^-2", "1000", "Pa", "pascal pascals"),
    (_ENERGY, "1000", "J", "joule joules"),
    (_ENERGY, "3600000", "Wh", "watt-hour watt-hours"),
    (_ENERGY, "1.602176634e-16", "eV", "electronvolt electronvolts"),
    (_POWER, "1000", "W", "watt watts"),
    ("current * time", "1", "C", "coulomb coulombs"),
    (_VOLTAGE, "1000", "V", "volt volts"),
    ("current^-2 * length^2 * mass * time^-3", "1000", "Ω", "ohm ohms"),
    ("current^2 * length^-2 * mass^-1 * time^4", "1/1000", "F", "farad farads"),
    ("current^-1 * mass * time^-2", "1000", "T", "tesla teslas"),
)
"""Units of which others are multiples: their kind and their size in metres, grams, seconds and amperes, their
symbols, and their words.
"""
_PREFIXES = {
    **{"k": (3, "kilo"), "c": (-2, "centi"), "m": (-3, "milli"), "M": (6, "mega"), "G": (9, "giga")},
    **{"μ": (-6, "micro"), "n": (-9, "nano"), "p": (-12, "pico"), "d": (-1, "deci"), "h": (2, "hecto")},
    **{"T": (12, "tera")},
}
_OTHERS: dict[str, tuple[tuple[str, str], ...]] = {
    "length": (
        *(("0.0254", "in inch inches"), ("0.3048", "ft foot feet"), ("0.9144", "yd yard yards")),
        ("1609.344", "mi mile miles"),
    ),
    "mass": (
        ("453.59237", "lb lbs pound pounds"),
        ("28.349523125", "oz ounce ounces"),
        ("1000000", "ton tons tonne tonnes"),
    ),
    "time": (
        *(("60", "min mins minute minutes"), ("3600", "h hr hrs hour hours"), ("86400", "day days")),
        ("604800", "week weeks"),
    ),
    "years": (
        ("1", "year years yr yrs"),
        ("1/12", "month months"),
        ("10", "decade decades"),
        ("100", "century centuries"),
    ),
    "length^3": (
        ("0.003785411784", "gal gallon gallons"),
        ("0.000473176473", "pint pints"),
        ("0.000946352946", "quart quarts"),
    ),
    "length^2": (("10000", "ha hectare hectares"), ("4046.8564224", "acre acres")),
    "cups": (("1", "cup cups"),),
    "temperature kelvin": (("1", "kelvin kelvins"),),
    "angle": (("1", "degree degrees deg °"),),
    "radian": (("1", "rad rads radian radians"),),
    "revolution": (("1", "rev revolution revolutions"),),
    "money USD": (("1", "dollar dollars usd USD bucks $"), ("0.01", "cent cents ¢ penny pennies")),
    "money EUR": (("1", "euro euros eur EUR €"),),
    "money GBP": (("1", "gbp GBP £"), ("0.01", "pence")),
    "money JPY": (("1", "yen jpy JPY ¥"),),
    "money INR": (("1", "rupee rupees rs inr INR ₹"),),
    "length * time^-1": (
        *(("0.44704", "mph"), ("5/18", "kph kmh kmph")),
        ("463/900", "knot knots"),
    ),
    "square unit": (("1", "unit² sq.units"),),
    "unit": (("1", "unit units"),),
}
_TEMPERATURES = {"c": "celsius", "f": "fahrenheit", "celsius": "celsius", "fahrenheit": "fahrenheit"}
_POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3, "squared": 2, "cubed": 3}
_MOST_WORDS = 5
"""The largest number of words of a thing that is counted."""
_MOST_TOKENS = 16
"""The largest number of tokens of a unit."""
_NO_THINGS = (SCALES, NUMBER_WORDS, CONSTANTS, GREEK, FUNCTIONS, COUNTED_STOP, QUALIFIERS)
"""Collections of words that are not a part of a thing that is counted."""


def _table() -> dict[str, Unit]:
    table: dict[str, Unit] = {}
    for kind, size, symbols, words in _PREFIXED:
        for name in (*symbols.split(), *words.split()):
            table[name] = Unit(kind, Fraction(size))
        for short, (power, long) in _PREFIXES.items():
            factor = Fraction(10) ** power * Fraction(size)
            names = [short + symbol for symbol in symbols.split()]
            names += [long + word for word in words.split()]
            for name in names:
                table.setdefault(name, Unit(kind, factor))
    for kind, units in _OTHERS.items():
        for size, spellings in units:
            for name in spellings.split():
                table[name] = Unit(kind, Fraction(size))
    return table


_UNITS = _table()
_LOWER = {name.lower(): unit for name, unit in _UNITS.items() if len(name) > 3}
CURRENCIES = {sign: _UNITS[sign] for sign in "$€£¥₹"}


def unit_of_word(word: str) -> Unit | None:
    """Return the unit that a word is; a long word may be in upper case, too."""
    bare = word.strip(".")
    unit = _UNITS.get(bare)
    return unit or _LOWER.get(bare.lower())


def unit_name(unit: Unit) -> str:
    """Return a short name of a unit, as `cm`; an empty one if the unit has no name of its own."""
    for name, other in _UNITS.items():
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
            return _UNITS["Ω"]
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
