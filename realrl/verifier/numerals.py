"""Numbers in words, numbers with scales, dates, times and numerals of other bases."""

from __future__ import annotations

import re
from fractions import Fraction

from realrl.verifier.lexicon import BASES, FRACTIONS, MONTHS, NUMBER_WORDS, ORDINAL_ENDINGS, SCALES
from realrl.verifier.slices import text_of
from realrl.verifier.tokens import COMMAND, LETTERS, NUMBER, TEXT, Token, Tokens
from realrl.verifier.tree import Moment, Numeral

MOST_WORDS = 14


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
    """How many tokens at the beginning are the ending of an ordinal, as `rd` or `^{th}`."""
    texts = [token.text for token in tokens[:4]]
    if texts[:1] and texts[0] in ORDINAL_ENDINGS and not tokens[0].after_space:
        return 1
    if texts[:1] == ["^"]:
        if texts[1:2] and texts[1] in ORDINAL_ENDINGS:
            return 2
        if texts[1:2] == ["{"] and texts[2:3] and texts[2] in ORDINAL_ENDINGS and texts[3:4] == ["}"]:
            return 4
    return 0


def numeral(tokens: Tokens) -> Numeral | None:
    """Digits with a base, as `52_8`, `(52)_{8}`, `FF_{16}`, `0xFF`."""
    if hexadecimal := re.fullmatch(r"0x([\dA-Fa-f]{1,32})", "".join(token.text for token in tokens[:20])):
        return Numeral(hexadecimal[1].upper(), 16)
    if binary := re.fullmatch(r"0b([01]{1,64})", "".join(token.text for token in tokens[:20])):
        return Numeral(binary[1], 2)
    place = next((i for i, token in enumerate(tokens) if token.text == "_"), None)
    if place is None or not 0 < place <= 12:
        return None
    base = _base(tokens[place + 1 :])
    digits = "".join(token.text for token in tokens[:place] if token.text not in ("(", ")", "{", "}"))
    has_only_digits = all(
        token.kind in (NUMBER, LETTERS, TEXT) or token.text in "(){}" for token in tokens[:place]
    )
    if (
        base is None
        or not has_only_digits
        or not re.fullmatch(r"[\dA-Za-z]*\d[\dA-Za-z]*|[A-Fa-f]{2,}", digits)
    ):
        return None
    is_valid = all(int(digit, 36) < base for digit in digits)
    return Numeral(digits.upper(), base) if is_valid else None


def _base(tokens: Tokens) -> int | None:
    texts = [token.text.lower() for token in tokens if token.text not in ("{", "}", "(", ")")]
    if len(texts) != 1:
        return None
    base = BASES.get(texts[0]) or (int(texts[0]) if re.fullmatch(r"\d{1,2}", texts[0]) else 0)
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
    if text.strip().lower() in _MIDDAYS:
        return _MIDDAYS[text.strip().lower()]
    match = _CLOCK.fullmatch(text.strip())
    if not match or not (match[3] or match[2]):
        return None
    hour, minute = int(match[1]), int(match[2] or 0)
    if hour > 23 or minute > 59:
        return None
    return Moment(minutes=60 * hour + minute, half=f"{match[3].lower()}m" if match[3] else "")


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
    r"""`0.333\ldots` and `0.1666...`, whose last digits repeat, three times or more if it is a single one."""
    if (
        len(tokens) != 2
        or tokens[0].kind != NUMBER
        or tokens[1] != Token(COMMAND, r"\ldots", tokens[1].after_space)
    ):
        return None
    whole, _, digits = tokens[0].text.partition(".")
    match = re.fullmatch(r"(\d*?)(\d{1,12}?)\2{1,}", digits)
    if not match or len(digits) > 60 or (len(match[2]) == 1 and len(digits) - len(match[1]) < 3):
        return None
    period = match[2]
    tail = Fraction(int(period), (10 ** len(period) - 1) * 10 ** len(match[1]))
    return Fraction(int((whole or "0") + match[1] or "0"), 10 ** len(match[1])) + tail
