"""The table of all units, by their names.

The list is closed: a word that is not in it is a counted thing, never a unit. Factors are exact.
Source: BIPM, The International System of Units, 9th edition, 2019; NIST Special Publication 811, appendix B.
"""

from __future__ import annotations

from fractions import Fraction

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


def _table() -> dict[str, Unit]:
    """Return every unit by each of its names."""
    table: dict[str, Unit] = {}
    for kind, size, symbols, words in _PREFIXED:
        base = Fraction(size)
        short_names = symbols.split()
        long_names = words.split()
        for name in (*short_names, *long_names):
            table[name] = Unit(kind, base)
        for short, (power, long) in _PREFIXES.items():
            unit = Unit(kind, Fraction(10) ** power * base)
            for name in short_names:
                table.setdefault(short + name, unit)
            for name in long_names:
                table.setdefault(long + name, unit)
    for kind, units in _OTHERS.items():
        for size, spellings in units:
            for name in spellings.split():
                table[name] = Unit(kind, Fraction(size))
    return table


UNITS = _table()
"""Every unit by its names."""
LOWER_CASE = {name.lower(): unit for name, unit in UNITS.items() if len(name) > 3}
"""The units by their long names, in lower case."""
CURRENCIES = {sign: UNITS[sign] for sign in "$€£¥₹"}
