"""Closed lists of words: those for numbers, and those that add nothing to a value or change it."""

from __future__ import annotations

from fractions import Fraction

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_ORDINALS = (
    "zeroth first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth "
    "fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth"
).split()

NUMBER_WORDS: dict[str, int] = {
    **{word: value for value, word in enumerate(_ONES)},
    **{word: 10 * (place + 2) for place, word in enumerate(_TENS)},
    **{word: value for value, word in enumerate(_ORDINALS) if value > 2},
    **{"once": 1, "twice": 2, "thrice": 3, "first": 1},
}
FRACTIONS = {
    **{"half": 2, "halves": 2, "quarter": 4, "quarters": 4},
    **{word: value for value, word in enumerate(_ORDINALS) if value > 2},
    **{f"{word}s": value for value, word in enumerate(_ORDINALS) if value > 2},
}
"""Parts of one, after a number: the divisor of each word."""
SCALES: dict[str, Fraction] = {
    **{"hundred": Fraction(100), "thousand": Fraction(10**3), "million": Fraction(10**6)},
    **{"billion": Fraction(10**9), "trillion": Fraction(10**12), "lakh": Fraction(10**5)},
    **{"crore": Fraction(10**7), "dozen": Fraction(12), "score": Fraction(20)},
    **{"hundreds": Fraction(100), "thousands": Fraction(10**3), "millions": Fraction(10**6)},
    **{"billions": Fraction(10**9), "trillions": Fraction(10**12), "dozens": Fraction(12)},
    **{"lakhs": Fraction(10**5), "crores": Fraction(10**7)},
}
CARDINALS = (*_ONES, *_TENS, "hundred", "thousand", "million", "billion")
"""The words of numbers in running text."""
ORDINAL_ENDINGS = frozenset(("st", "nd", "rd", "th"))
BASES = {
    **{word: value for value, word in enumerate(_ONES) if 2 <= value <= 16},
    **{"binary": 2, "octal": 8, "decimal": 10, "hexadecimal": 16, "hex": 16},
}
MONTHS = {
    name: number
    for number, names in enumerate(
        (
            *("january jan", "february feb", "march mar", "april apr", "may", "june jun", "july jul"),
            *("august aug", "september sep sept", "october oct", "november nov", "december dec"),
        ),
        1,
    )
    for name in names.split()
}

COUNTERS = frozenset("n k m l j".split())
"""Names of the whole number of a family, as in `2k\\pi`."""
WHOLE_NAMES = COUNTERS | frozenset("N K M".split())
"""Variables that are whole numbers by custom."""
APPROXIMATELY = frozenset("about approximately approx roughly around exactly precisely".split())
LEAD_INS = frozenset(
    "the answer is final answers are therefore thus so hence then we get have result value equals be option "
    "choice simply just only both total of".split()
)
"""Words that add nothing before a value."""
REMARKS = frozenset(
    "only solution solutions approximately approx double root roots units unit exact exactly rounded the "
    "simplified answer final real is".split()
)
"""Words that add nothing after a value, in parentheses or at its end."""
NEGATING = frozenset("not no never neither nor least most less more than except unless without".split())
"""Words that are not a part of the name of a value."""
HEDGES = frozenset(
    "and or not is are if when unless otherwise neither either maybe perhaps possibly except but for "
    "nor".split()
)
"""Words that the text of a choice does not have next to its letter."""
OTHER_CASES = frozenset("otherwise else if".split())
"""Words that, like a qualifier, say when another value holds."""
QUALIFIERS = frozenset("for where with when provided assuming as".split())
"""Words that begin a clause about a value."""
PREPOSITIONS = frozenset(("with", "as"))
"""Qualifiers that also begin a part of a value: `17 with remainder 2`."""
REQUIRED = frozenset("no required desired needed expected wanted replacement equality well".split())
"""Words that add nothing after such a preposition."""
EXCEPTING = frozenset(
    "except excluding but not only odd even wrong incorrect false invalid undefined unless answer "
    "better".split()
)
"""Words of a clause that names one case of several, or denies the value."""
OPENINGS = ("there is ", "there are ", "it is ", "they are ")
"""Beginnings that add nothing to a text."""
ARTICLES = frozenset("the a an".split())
WORD_SYNONYMS = {
    "no solution": "none",
    "no solutions": "none",
    "no real solution": "none",
    "no real solutions": "none",
    "empty set": "none",
    "the empty set": "none",
    "dne": "does not exist",
    "undefined": "does not exist",
}
ALL_REALS = frozenset(("all real numbers", "all reals", "all real values", "every real number"))
SHORT_WORDS = frozenset(
    "yes no odd red all any one two six ten not and or the day sun mon tue wed thu fri sat top low mid dne "
    "boy man cat dog hot dry wet old new big yen".split()
)
"""Words of two or three letters that are not a product of variables."""
COUNTED_STOP = frozenset(
    "not no or and but more less fewer greater than least most over under above below between per times "
    "half third quarter double twice either neither nor except minus plus if is are was to from of "
    "squared cubed root roots factorial choose radical halves thirds quarters fourths fifths sixths "
    "sevenths eighths ninths tenths hundredths thousandths millionths inverse negative opposite "
    "reciprocal prime wrong false incorrect undefined nan impossible invalid excluded unless vs also "
    "instead perhaps maybe possibly probably divided multiplied added subtracted otherwise whatever any "
    "every yes true correct i ii iii iv vi vii viii ix xi xii though although however while because since "
    "when where mod modulo noon midnight "
    "ではありません ではない じゃない でない 아닙니다 아니다 아니에요".split()
)
"""Words that are not a part of a counted thing, as they change the meaning of the number."""
