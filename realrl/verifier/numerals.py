"""Reads numbers in words, numbers with scales, dates, times and numerals of other bases."""

from __future__ import annotations

import re
from fractions import Fraction

from realrl.verifier.lexicon import BASES, FRACTIONS, MONTHS, NUMBER_WORDS, ORDINAL_ENDINGS, SCALES
from realrl.verifier.slices import text_of, texts_of
from realrl.verifier.tokens import COMMAND, LETTERS, NUMBER, TEXT, Token, Tokens
from realrl.verifier.tree import Moment, Numeral

MOST_WORDS = 14
"""The largest number of tokens of a number in words."""
_DIGITS_IN_BASE = re.compile(r"[\dA-Za-z]*\d[\dA-Za-z]*|[A-Fa-f]{2,}")
_HEXADECIMAL = re.compile(r"0x([\dA-Fa-f]{1,32})")
_BINARY = re.compile(r"0b([01]{1,64})")
_ONE_OR_TWO_DIGITS = re.compile(r"\d{1,2}")
_BRACKETS = ("(", ")", "{", "}")
_LARGEST_BASE = 36
"""The largest base that has digits: ten figures and 26 letters."""
_MAX_NUMERAL_TOKENS = 12
"""The largest number of tokens of a numeral before its base."""
_MAX_PREFIXED_TOKENS = 20
"""The number of tokens that are searched for a numeral with a prefix, as `0xFF`."""
_MAX_MOMENT_TOKENS = 8
"""The largest number of tokens of a time or a date."""
_CLOCK = re.compile(r"(\d{1,2})(?: ?: ?(\d\d))? ?(?:([ap]) ?\.? ?m\.?)?", re.IGNORECASE)
_ISO = re.compile(r"(\d{4}) ?- ?(\d{1,2}) ?- ?(\d{1,2})")
_MIDDAYS = {
    **dict.fromkeys(("noon", "12 noon", "12 : 00 noon"), Moment(minutes=720, half="pm")),
    **dict.fromkeys(("midnight", "12 midnight", "12 : 00 midnight"), Moment(minutes=720, half="am")),
}
_WORDS_OF_DATE = (",", ".", "of", "the", *ORDINAL_ENDINGS)
"""Signs and words that a date may have next to its numbers and its month."""
_REPEATED_DIGITS = re.compile(r"(\d*?)(\d{1,12}?)\2{1,}")
_MAX_REPEATING_DIGITS = 60
"""The largest number of decimals among which repeating ones are searched."""


def number_in_words(tokens: Tokens) -> tuple[Fraction, int] | None:
    """Return the number in words that tokens begin with, and how many tokens it takes; None without one.

    `two hundred and five` takes four. A hyphen may join tens and ones. `half` and `a` before a scale are
    numbers too.
    """
    sign = 1
    taken = 0
    if _word_at(tokens, 0) in ("minus", "negative"):
        sign = -1
        taken = 1
    # The sum up to the last scale, and the number after it; None before the first word.
    total = Fraction(0)
    part: Fraction | None = None
    end = min(len(tokens), MOST_WORDS)
    while taken < end:
        word = _word_at(tokens, taken)
        if word in NUMBER_WORDS and _may_continue(part, word):
            part = (part or 0) + Fraction(NUMBER_WORDS[word])
        elif part is None:
            break
        elif word == "hundred" and part:
            part *= 100
        elif word in SCALES:
            total += part * SCALES[word]
            part = Fraction(0)
        elif not _joins(tokens, taken):
            break
        taken += 1
    if part is None:
        return _half_or_scale(tokens, taken, sign)
    divisor, num_divisor_tokens = _fraction_word(tokens, taken)
    number = sign * (total + part) / divisor
    return number, taken + num_divisor_tokens


def _may_continue(part: Fraction | None, word: str) -> bool:
    """Return whether a number in words may have this word next: `one` after `twenty`, but not after `two`."""
    if not part:
        return True
    return part % 10 == 0 and word not in FRACTIONS


def _half_or_scale(tokens: Tokens, start: int, sign: int) -> tuple[Fraction, int] | None:
    """Return the number that `half`, `a third` or `a dozen` is, and the tokens taken with it; else None."""
    has_article = _word_at(tokens, start) in ("a", "an")
    place = start + 1 if has_article else start
    word = _word_at(tokens, place)
    if word == "half" or (has_article and word in FRACTIONS):
        return Fraction(sign, FRACTIONS[word]), place + 1
    if has_article and word in SCALES:
        return sign * SCALES[word], place + 1
    return None


def _fraction_word(tokens: Tokens, start: int) -> tuple[int, int]:
    """Return the divisor of `thirds` in `two thirds` or `-half` in `one-half`, and its number of tokens."""
    has_hyphen = start < len(tokens) and tokens[start].text == "-"
    place = start + 1 if has_hyphen else start
    word = _word_at(tokens, place)
    if word not in FRACTIONS:
        return 1, 0
    return FRACTIONS[word], place + 1 - start


def _word(token: Token) -> str:
    """Return a word in lower case; an empty text for any other token."""
    if token.kind in (TEXT, LETTERS):
        return token.text.lower()
    return ""


def _word_at(tokens: Tokens, place: int) -> str:
    """Return the word at a place in lower case; an empty text if none is there."""
    if 0 <= place < len(tokens):
        return _word(tokens[place])
    return ""


def _joins(tokens: Tokens, place: int) -> bool:
    """Return whether a token is a hyphen or an "and" between two words of one number."""
    before = _word_at(tokens, place - 1)
    after = _word_at(tokens, place + 1)
    if after not in NUMBER_WORDS:
        return False
    if tokens[place].text == "-":
        return before in NUMBER_WORDS
    if _word_at(tokens, place) != "and":
        return False
    return before in SCALES


def scales(tokens: Tokens) -> tuple[Fraction, int]:
    """Return the factor of the scale words that tokens begin with, and their number: `hundred thousand`."""
    factor = Fraction(1)
    taken = 0
    for token in tokens:
        word = _word(token)
        if word not in SCALES:
            break
        factor *= SCALES[word]
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
    if is_in_braces and texts[2] in ORDINAL_ENDINGS:
        return 4
    return 0


def numeral(tokens: Tokens) -> Numeral | None:
    """Return digits with a base, as `52_8`, `(52)_{8}`, `FF_{16}`, `0xFF`; None for anything else."""
    text = "".join(texts_of(tokens[:_MAX_PREFIXED_TOKENS]))
    hexadecimal = _HEXADECIMAL.fullmatch(text)
    if hexadecimal:
        return Numeral(hexadecimal[1].upper(), 16)
    binary = _BINARY.fullmatch(text)
    if binary:
        return Numeral(binary[1], 2)
    texts = texts_of(tokens[: _MAX_NUMERAL_TOKENS + 1])
    if "_" not in texts[1:]:
        return None
    place = texts.index("_")
    base = _base(tokens[place + 1 :])
    digits = _digits(tokens[:place])
    if base is None or digits is None:
        return None
    is_valid = all(int(digit, 36) < base for digit in digits)
    if is_valid:
        return Numeral(digits.upper(), base)
    return None


def _digits(tokens: Tokens) -> str | None:
    """Return the digits before a base, without brackets; None if anything else is there."""
    digits = ""
    for token in tokens:
        if token.text in _BRACKETS:
            continue
        if token.kind not in (NUMBER, LETTERS, TEXT):
            return None
        digits += token.text
    if _DIGITS_IN_BASE.fullmatch(digits):
        return digits
    return None


def _base(tokens: Tokens) -> int | None:
    """Return the base that a subscript names, in digits or in a word; None if it is no base."""
    texts = [token.text for token in tokens if token.text not in _BRACKETS]
    if len(texts) != 1:
        return None
    text = texts[0].lower()
    base = BASES.get(text)
    if base is None and _ONE_OR_TWO_DIGITS.fullmatch(text):
        base = int(text)
    if base is None or not 2 <= base <= _LARGEST_BASE:
        return None
    return base


def moment(tokens: Tokens) -> Moment | None:
    """Return a time of the day, or a date with a month's name or in the order of ISO 8601; else None."""
    if not 0 < len(tokens) <= _MAX_MOMENT_TOKENS:
        return None
    text = text_of(tokens).replace(" . ", ".")
    match = _ISO.fullmatch(text)
    if match is None:
        return _time(text) or _date(tokens)
    year, month, day = map(int, match.groups())
    return Moment(year=year, month=month, day=day)


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
    minutes = 60 * hour + minute
    return Moment(minutes=minutes, half=f"{half.lower()}m" if half else "")


def _date(tokens: Tokens) -> Moment | None:
    """Return a date, as `March 5, 2020`, `5 March` and `March 5th`; None for anything else."""
    month: int | None = None
    day: int | None = None
    year: int | None = None
    for token in tokens:
        text = token.text
        word = _word(token).strip(".")
        if word in MONTHS and month is None:
            month = MONTHS[word]
        elif token.kind == NUMBER and text.isdigit():
            number = int(text)
            if day is None and 1 <= number <= 31:
                day = number
            elif year is None and 1000 <= number <= 2999:
                year = number
            else:
                return None
        elif text not in _WORDS_OF_DATE:
            return None
    if month is None or (day is None and year is None):
        return None
    return Moment(day=day, month=month, year=year)


def repeating_decimal(tokens: Tokens) -> Fraction | None:
    r"""Return the value of `0.333\ldots` or `0.1666...`, whose last digits repeat.

    A single digit repeats if it is written at least three times.
    """
    if len(tokens) != 2:
        return None
    number, dots = tokens
    if number.kind != NUMBER:
        return None
    if dots != Token(COMMAND, r"\ldots", dots.after_space):
        return None
    whole, _, digits = number.text.partition(".")
    match = _REPEATED_DIGITS.fullmatch(digits)
    if not match or len(digits) > _MAX_REPEATING_DIGITS:
        return None
    before, period = match.groups()
    num_repeated = len(digits) - len(before)
    if len(period) == 1 and num_repeated < 3:
        return None
    shift = 10 ** len(before)
    nines = 10 ** len(period) - 1
    start = Fraction(int(whole + before or "0"), shift)
    tail = Fraction(int(period), nines * shift)
    return start + tail
