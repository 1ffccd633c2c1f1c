"""Numbers in words, numbers with scales, dates, times and numerals of other bases."""

from __future__ import annotations

import re
from fractions import Fraction

from realrl.verifier.lexicon import BASES, FRACTIONS, MONTHS, NUMBER_WORDS, ORDINAL_ENDINGS, SCALES
from realrl.verifier.slices import text_of
from realrl.verifier.tokens import COMMAND, LETTERS, NUMBER, TEXT, Token, Tokens
from realrl.verifier.tree import Moment, Numeral

MOST_WORDS = 14
"""The largest number of tokens of a number in words."""
_DIGITS_IN_BASE = re.compile(r"[\dA-Za-z]*\d[\dA-Za-z]*|[A-Fa-f]{2,}")
_MAX_NUMERAL_TOKENS = 12


def number_in_words(tokens: Tokens) -> tuple[Fraction, int] | None:
    """`(number, how many tokens it takes)` where tokens begin with one in words: `two hundred and five`.

    A hyphen may join tens and ones. `half` and `a` before a scale are numbers too.
    """
    total, part, taken = Fraction(0), None, 0
    sign = 1
    if tokens and tokens[0].text.lower() in ("minus", "negative"):
        sign, taken = -1, 1
    end = min(len(tokens), MOST_WORDS)
    while taken < end:
        word = _word(tokens[taken])
        if word in NUMBER_WORDS and not (part and (part % 10 or word in FRACTIONS)):
            part = (part or 0) + NUMBER_WORDS[word]
        elif word == "hundred" and part:
            part *= 100
        elif word in SCALES and part is not None:
            total, part = total + part * SCALES[word], Fraction(0)
        elif not (_joins(tokens, taken) and part is not None):
            break
        taken += 1
    if part is None:
        return _half_or_scale(tokens, taken, sign)
    divisor, more = _fraction_word(tokens, taken)
    return sign * (total + part) / divisor, taken + more


def _half_or_scale(tokens: Tokens, taken: int, sign: int) -> tuple[Fraction, int] | None:
    """`half`, `a third`, `a dozen`."""
    start = taken
    taken += taken < len(tokens) and _word(tokens[taken]) in ("a", "an")
    word = _word(tokens[taken]) if taken < len(tokens) else ""
    if word == "half" or (taken > start and word in FRACTIONS):
        return Fraction(sign, FRACTIONS[word]), taken + 1
    return (sign * SCALES[word], taken + 1) if taken > start and word in SCALES else None


def _fraction_word(tokens: Tokens, taken: int) -> tuple[int, int]:
    """`(divisor, how many tokens)` of the `thirds` of `two thirds`, and of the `-half` of `one-half`."""
    after_hyphen = taken < len(tokens) and tokens[taken].text == "-"
    place = taken + after_hyphen
    word = _word(tokens[place]) if place < len(tokens) else ""
    return (FRACTIONS[word], 1 + after_hyphen) if word in FRACTIONS else (1, 0)


def _word(token: Token) -> str:
    return token.text.lower() if token.kind in (TEXT, LETTERS) else ""


def _joins(tokens: Tokens, place: int) -> bool:
    """A hyphen or an "and" between two words of one number."""
    after = _word(tokens[place + 1]) if place + 1 < len(tokens) else ""
    before = _word(tokens[place - 1]) if place else ""
    if tokens[place].text == "-":
        return after in NUMBER_WORDS and before in NUMBER_WORDS
    return _word(tokens[place]) == "and" and before in SCALES and after in NUMBER_WORDS


def scales(tokens: Tokens) -> tuple[Fraction, int]:
    """`(factor, how many tokens)` of the scale words that tokens begin with: `hundred thousand`."""
    factor, taken = Fraction(1), 0
    while taken < len(tokens) and _word(tokens[taken]) in SCALES:
        factor *= SCALES[_word(tokens[taken])]
        taken += 1
    return factor, taken


def ordinal_ending(tokens: Tokens) -> int:
    """Return how many tokens at the start are the ending of an ordinal, as `rd` or `^{th}`."""
    texts = [token.text for token in tokens[:4]]
    if not texts:
        return 0
    if texts[0] in ORDINAL_ENDINGS and not tokens[0].after_space:
        return 1
    if texts[0] != "^" or len(texts) < 2:
        return 0
    if texts[1] in ORDINAL_ENDINGS:
        return 2
    is_in_braces = len(texts) == 4 and texts[1] == "{" and texts[3] == "}"
    return 4 if is_in_braces and texts[2] in ORDINAL_ENDINGS else 0


def numeral(tokens: Tokens) -> Numeral | None:
    """Return digits with a base, as `52_8`, `(52)_{8}`, `FF_{16}`, `0xFF`; None for anything else."""
    text = "".join(token.text for token in tokens[:20])
    hexadecimal = re.fullmatch(r"0x([\dA-Fa-f]{1,32})", text)
    if hexadecimal:
        return Numeral(hexadecimal[1].upper(), 16)
    binary = re.fullmatch(r"0b([01]{1,64})", text)
    if binary:
        return Numeral(binary[1], 2)
    place = _place_of_subscript(tokens)
    if place is None or not 0 < place <= _MAX_NUMERAL_TOKENS:
        return None
    base = _base(tokens[place + 1 :])
    digits = _digits(tokens[:place])
    if base is None or digits is None:
        return None
    is_valid = all(int(digit, 36) < base for digit in digits)
    return Numeral(digits.upper(), base) if is_valid else None


def _place_of_subscript(tokens: Tokens) -> int | None:
    for place, token in enumerate(tokens):
        if token.text == "_":
            return place
    return None


def _digits(tokens: Tokens) -> str | None:
    """Return the digits before a base, without brackets; None if anything else is there."""
    digits = ""
    for token in tokens:
        if token.kind not in (NUMBER, LETTERS, TEXT) and token.text not in "(){}":
            return None
        if token.text not in ("(", ")", "{", "}"):
            digits += token.text
    return digits if _DIGITS_IN_BASE.fullmatch(digits) else None


def _base(tokens: Tokens) -> int | None:
    texts = [token.text.lower() for token in tokens if token.text not in ("{", "}", "(", ")")]
    if len(texts) != 1:
        return None
    text = texts[0]
    base = BASES.get(text)
    if not base:
        base = int(text) if re.fullmatch(r"\d{1,2}", text) else 0
    return base if 2 <= base <= 36 else None


_CLOCK = re.compile(r"(\d{1,2})(?: ?: ?(\d\d))? ?(?:([ap]) ?\.? ?m\.?)?", re.IGNORECASE)
_ISO = re.compile(r"(\d{4}) ?- ?(\d{1,2}) ?- ?(\d{1,2})")


_MIDDAYS = {
    **dict.fromkeys(("noon", "12 noon", "12 : 00 noon"), Moment(minutes=720, half="pm")),
    **dict.fromkeys(("midnight", "12 midnight", "12 : 00 midnight"), Moment(minutes=720, half="am")),
}


def moment(tokens: Tokens) -> Moment | None:
    """A time of the day with am or pm, or a date with a month's name or in the order of ISO 8601."""
    if not 0 < len(tokens) <= 8:
        return None
    text = text_of(tokens).replace(" . ", ".")
    if match := _ISO.fullmatch(text):
        return Moment(year=int(match[1]), month=int(match[2]), day=int(match[3]))
    return _time(text) or _date(tokens)


def _time(text: str) -> Moment | None:
    """Return a time of the day, as `3:30`, `3 pm` and `noon`."""
    text = text.strip()
    midday = _MIDDAYS.get(text.lower())
    if midday is not None:
        return midday
    match = _CLOCK.fullmatch(text)
    if not match:
        return None
    half = match[3]
    # A number alone is no time.
    if not half and not match[2]:
        return None
    hour = int(match[1])
    minute = int(match[2] or 0)
    if hour > 23 or minute > 59:
        return None
    return Moment(minutes=60 * hour + minute, half=f"{half.lower()}m" if half else "")


def _date(tokens: Tokens) -> Moment | None:
    """`March 5, 2020`, `5 March`, `March 5th`."""
    month = day = year = None
    for token in tokens:
        word = token.text.lower().strip(".")
        if word in MONTHS and month is None and token.kind in (TEXT, LETTERS):
            month = MONTHS[word]
        elif token.kind == NUMBER and token.text.isdigit():
            number = int(token.text)
            if day is None and 1 <= number <= 31:
                day = number
            elif year is None and 1000 <= number <= 2999:
                year = number
            else:
                return None
        elif token.text not in (",", ".", "of", "the", *ORDINAL_ENDINGS):
            return None
    return Moment(day=day, month=month, year=year) if month and (day or year) else None


def repeating_decimal(tokens: Tokens) -> Fraction | None:
    r"""Return the value of `0.333\ldots` or `0.1666...`, whose last digits repeat.

    A single digit repeats if it is written at least three times.
    """
    if len(tokens) != 2:
        return None
    number, dots = tokens
    if number.kind != NUMBER or dots != Token(COMMAND, r"\ldots", dots.after_space):
        return None
    whole, _, digits = number.text.partition(".")
    match = re.fullmatch(r"(\d*?)(\d{1,12}?)\2{1,}", digits)
    if not match or len(digits) > 60:
        return None
    before = match[1]
    period = match[2]
    num_repeated = len(digits) - len(before)
    if len(period) == 1 and num_repeated < 3:
        return None
    shift = 10 ** len(before)
    tail = Fraction(int(period), (10 ** len(period) - 1) * shift)
    start = (whole or "0") + before
    return Fraction(int(start), shift) + tail
