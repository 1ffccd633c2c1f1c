"""Units after an answer: taken off it, and known enough to tell a metre from a centimetre."""

from __future__ import annotations

import re

_SYNONYMS = {
    "metre": "m meter meters metre metres",
    "centimetre": "cm centimeter centimeters centimetre centimetres",
    "millimetre": "mm millimeter millimeters millimetre millimetres",
    "kilometre": "km kilometer kilometers kilometre kilometres",
    "inch": "in inch inches",
    "foot": "ft foot feet",
    "yard": "yd yard yards",
    "mile": "mi mile miles",
    "second": "s sec second seconds",
    "minute": "min minute minutes",
    "hour": "h hr hrs hour hours",
    "day": "day days",
    "week": "week weeks",
    "year": "yr year years",
    "dollar": "dollar dollars usd",
    "cent": "cent cents ¢",
    "degree": "degree degrees",
    "radian": "rad radian radians",
    "gram": "g gram grams",
    "kilogram": "kg kilogram kilograms",
    "pound": "lb lbs pound pounds",
    "litre": "l liter liters litre litres",
}
_CANONICAL = {word: unit for unit, words in _SYNONYMS.items() for word in words.split()}
_POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}

_POWER = r"(?:\^(?P<power>[23]|\{[23]\}))?"
_TRAILING = re.compile(
    rf"^(?P<rest>.*[\d}})\]A-Za-z.])(?:(?P<degree>\^\\circ)\s*[CF]?|\s?\\text\{{(?P<text>[^{{}}]*)\}}{_POWER})$"
)
_PLAIN = re.compile(rf"^(?P<rest>.*[\d}})\]])\s?(?P<text>[A-Za-z]{{2,}}(?: ?[A-Za-z/]+)*){_POWER}$")
_HEDGE = re.compile(r"[\d;,]|\b(?:or|and|not)\b", re.IGNORECASE)
_ANGLES = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)")


def split_unit(expression: str) -> tuple[str, str]:
    """`(expression without its unit, the unit's canonical name)`, which is empty if we know none."""
    match = _TRAILING.fullmatch(expression) or _plain_words(expression)
    if not match or expression.startswith("\\text"):
        return expression, ""
    if match.groupdict().get("degree"):
        return (expression, "") if _ANGLES.search(expression) else (match["rest"], "degree")
    if _HEDGE.search(match["text"]):
        return expression, ""
    return match["rest"].strip(), _canonical(match["text"], match["power"])


def _plain_words(expression: str) -> re.Match[str] | None:
    """`35 cm` and `3 cups`, but not `2xy` or `3ab`: a word must be known, or long, or stand apart."""
    match = _PLAIN.fullmatch(expression)
    if not match or match["rest"].count("{") != match["rest"].count("}"):
        return None
    words = match["text"].lower().split()
    apart = expression[len(match["rest"])] == " "
    long = any(len(word) > 3 - apart for word in words)
    return match if long or any(len(word) > 1 and word in _CANONICAL for word in words) else None


def _canonical(text: str, power: str | None) -> str:
    words = text.lower().strip(" .").split()
    exponent = int((power or "1").strip("{}"))
    if len(words) == 2 and words[0] in _POWERS:
        exponent, words = _POWERS[words[0]], words[1:]
    unit = _CANONICAL.get(words[0], "") if len(words) == 1 else ""
    return f"{unit}^{exponent}" if unit and exponent > 1 else unit
