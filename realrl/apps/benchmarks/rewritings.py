"""Answers made of a solution: rewritings that keep what it means, and ones that change it.

Like `answers`, by nothing but text: nothing here knows how the verifier reads.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from realrl.apps.benchmarks.answers import Form, is_value

_TEXT = re.compile(r"\\(?:text|mbox|mathrm|textbf)\s*\{[^{}]*\}")
_TERMS = re.compile(r"[-+]?[^-+]+")
_POLYNOMIAL = re.compile(r"[-+]?[\da-z^]+(?:\s*[-+]\s*[\da-z^]+)+")
_SIMPLE_FRACTION = re.compile(r"(-?)\\frac\{(\d+)\}\{(\d+)\}")
_INTEGER = re.compile(r"-?\d+")
_MEASURED = re.compile(r"(\d+(?:\.\d+)?)\s*\\text\{ ?([a-z/ ]+)\}")
_INTERVAL = re.compile(r"([\[(])([^,\[\]()]+),([^,\[\]()]+)([\])])")
_POINT = re.compile(r"\((-?[\d.]+), ?(-?[\d.]+)\)")
_LIST = re.compile(r"(-?\d+)(, -?\d+)+")
_EQUATION = re.compile(r"([^=<>]+)=([^=<>]+)")
_ASSIGNED = re.compile(r"([a-z]) ?= ?(-?\d+), ?([a-z]) ?= ?(-?\d+)")
_WORD = re.compile(r"\\text\{([A-Za-z]{4,}(?: [a-z]+)*)\}")
_NO_FORMULA = re.compile(
    r"[<>]|\\(?:leq?|geq?|lt|gt|approx|emptyset|varnothing|neq?)\b|(?<![A-Za-z\\])[A-Za-z]{4}"
)
_DIGIT = re.compile(r"\d")
_FULL_WIDTH = {ord(character): ord(character) + 0xFEE0 for character in "0123456789+=abcxyz"}
_BOLD_DIGITS = {ord("0") + digit: 0x1D7CE + digit for digit in range(10)}
_SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹"
_SMALLER_UNITS = {
    **{"cm": ("mm", 10), "m": ("cm", 100), "km": ("m", 1000), "kg": ("g", 1000), "g": ("mg", 1000)},
    **{"hours": ("minutes", 60), "minutes": ("seconds", 60), "feet": ("inches", 12), "weeks": ("days", 7)},
}
_OTHER_UNITS = {
    **{"cm": "m", "m": "km", "km": "miles", "kg": "g", "g": "kg", "hours": "minutes", "minutes": "hours"},
    **{
        "feet": "inches",
        "inches": "feet",
        "square feet": "feet",
        "square inches": "cubic inches",
        "km/h": "m/s",
    },
    **{"miles": "km", "days": "weeks", "weeks": "days", "dollars": "cents", "cents": "dollars"},
}
_ONES = "zero one two three four five six seven eight nine ten eleven twelve".split()


def _is_formula(solution: str) -> bool:
    """Whether brackets can be put around a solution: no statement, no word, no set."""
    return bool(solution) and is_value(solution) and not _NO_FORMULA.search(solution)


def _outside_texts(change: Callable[[str], str]) -> Form:
    r"""A change of everything but what `\text{…}` holds; None if it changes nothing."""

    def form(solution: str) -> str | None:
        parts, last = [], 0
        for match in _TEXT.finditer(solution):
            parts += [change(solution[last : match.start()]), match[0]]
            last = match.end()
        changed = "".join([*parts, change(solution[last:])])
        return changed if changed != solution else None

    return form


def _of_value(pattern: str) -> Form:
    """A text around one value; `%` is where it goes."""
    return lambda solution: pattern.replace("%", solution) if _is_formula(solution) else None


def _around(pattern: str) -> Form:
    return lambda solution: pattern.replace("%", solution)


def _spaced(text: str) -> str:
    return re.sub(r"(?<=[\w})]) *([-+=]) *(?=[\w\\(])", r" \1 ", text)


def _raised(text: str) -> str:
    return re.sub(
        r"(?<=[a-z])\^(?:\{(\d)\}|(\d))(?!\d)", lambda found: _SUPERSCRIPTS[int(found[1] or found[2])], text
    )


def _terms_turned(solution: str) -> str | None:
    """The terms of a polynomial from its end."""
    if not _POLYNOMIAL.fullmatch(solution):
        return None
    terms = [term.strip() for term in _TERMS.findall(solution.replace(" ", ""))]
    signed = [term if term[0] in "+-" else f"+{term}" for term in reversed(terms)]
    return " ".join(signed).removeprefix("+")


def _factors_turned(solution: str) -> str | None:
    match = re.fullmatch(r"(\d+)(\\sqrt\{\d+\}|\\pi)", solution)
    return rf"{match[2]} \cdot {match[1]}" if match else None


def _slashed(solution: str) -> str | None:
    match = _SIMPLE_FRACTION.fullmatch(solution)
    return f"{match[1]}{match[2]}/{match[3]}" if match else None


def _larger_fraction(solution: str) -> str | None:
    match = _SIMPLE_FRACTION.fullmatch(solution)
    return rf"{match[1]}\frac{{{3 * int(match[2])}}}{{{3 * int(match[3])}}}" if match else None


def _in_smaller_unit(solution: str) -> str | None:
    match = _MEASURED.fullmatch(solution)
    if not match or match[2] not in _SMALLER_UNITS or "." in match[1]:
        return None
    unit, factor = _SMALLER_UNITS[match[2]]
    return rf"{int(match[1]) * factor} \text{{ {unit}}}"


def _as_inequality(solution: str) -> str | None:
    match = _INTERVAL.fullmatch(solution)
    if not match or "infty" in solution or (match[1], match[4]) == ("(", ")"):
        return None
    low, high = (r"\le" if bracket in "[]" else "<" for bracket in (match[1], match[4]))
    return f"{match[2].strip()} {low} x {high} {match[3].strip()}"


def _sides_turned(solution: str) -> str | None:
    match = _EQUATION.fullmatch(solution)
    return f"{match[2].strip()} = {match[1].strip()}" if match and "," not in solution else None


def _tripled(solution: str) -> str | None:
    """Both sides of an equation of two variables three times."""
    match = _EQUATION.fullmatch(solution)
    is_equation = (
        match
        and re.fullmatch(r"[-+\w^ ]+=[-+\w^ ]+", solution)
        and re.search(r"[a-z].*[-+].*[a-z]", match[1])
    )
    return f"3({match[1].strip()}) = 3({match[2].strip()})" if is_equation else None


def _number_word(solution: str) -> str | None:
    is_small = solution.isdigit() and int(solution) < len(_ONES) and not solution.startswith("00")
    return _ONES[int(solution)] if is_small else None


def _percent_word(solution: str) -> str | None:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\\%", solution)
    return f"{match[1]} percent" if match else None


def _dollars(solution: str) -> str | None:
    match = re.fullmatch(r"\\\$(\d+(?:\.\d+)?)", solution)
    return f"{match[1]} dollars" if match else None


def _joined_by_and(solution: str) -> str | None:
    if not _LIST.fullmatch(solution):
        return None
    members = solution.split(", ")
    return rf"{', '.join(members[:-1])} \text{{ and }} {members[-1]}"


def _upper(solution: str) -> str | None:
    match = _WORD.fullmatch(solution)
    return match[1].upper() if match else None


def _other_matrix(solution: str) -> str | None:
    return solution.replace("{pmatrix}", "{bmatrix}") if "{pmatrix}" in solution else None


def _in_points(solution: str) -> str | None:
    return (
        f"{int(solution):,}".replace(",", r"{,}")
        if _INTEGER.fullmatch(solution) and abs(int(solution)) > 999
        else None
    )


KEEPING: dict[str, Form] = {
    "spaces around signs": _outside_texts(_spaced),
    "fonts": _around(r"\boldsymbol{%}"),
    "formula signs": _around("$%$"),
    "formula brackets": _around(r"\(%\)"),
    "a full stop": _around("%."),
    "braces": _around("{%}"),
    "in full width": _outside_texts(lambda text: text.translate(_FULL_WIDTH) if "\\" not in text else text),
    "bold digits": _outside_texts(lambda text: text.translate(_BOLD_DIGITS)),
    "raised digits": _outside_texts(_raised),
    "a minus of Unicode": _outside_texts(lambda text: text.replace("-", "−")),
    "terms from the end": _terms_turned,
    "factors from the end": _factors_turned,
    "with a slash": _slashed,
    "a larger fraction": _larger_fraction,
    "tfrac": _outside_texts(lambda text: text.replace(r"\frac", r"\tfrac")),
    "minus minus": _of_value("-(-(%))"),
    "over one": _of_value(r"\frac{%}{1}"),
    "plus and minus": _of_value("(%) + 17 - 17"),
    "to the first power": _of_value("(%)^{1}"),
    "exactly": _of_value(r"\text{exactly } %"),
    "an equals sign": _of_value("= %"),
    "in a smaller unit": _in_smaller_unit,
    "as an inequality": _as_inequality,
    "sides turned": _sides_turned,
    "an equation three times": _tripled,
    "a number in words": _number_word,
    "percent in words": _percent_word,
    "dollars in words": _dollars,
    "joined by and": _joined_by_and,
    "capitals": _upper,
    "another matrix": _other_matrix,
    "groups of digits": _in_points,
}
"""Each gives another text with the same meaning, or None where it does not apply."""


# Changed.


def _digit_changed(solution: str) -> str | None:
    """The first digit by another one."""
    match = _DIGIT.search(solution)
    return (
        f"{solution[: match.start()]}{(int(match[0]) + 4) % 9 + 1}{solution[match.end() :]}"
        if match
        else None
    )


def _sign_turned(solution: str) -> str | None:
    """The first plus by a minus or the other way round."""
    match = re.search(
        r"(?<=[\w})\]] )[-+](?= ?[\w\\(])|(?<=[\w})\]])[-+](?= ?[\w\\(])", _TEXT.sub("", solution)
    )
    if not match or _TEXT.search(solution):
        return None
    return f"{solution[: match.start()]}{'+' if match[0] == '-' else '-'}{solution[match.end() :]}"


def _other_unit(solution: str) -> str | None:
    match = _MEASURED.fullmatch(solution)
    return rf"{match[1]} \text{{ {_OTHER_UNITS[match[2]]}}}" if match and match[2] in _OTHER_UNITS else None


def _names_exchanged(solution: str) -> str | None:
    match = _ASSIGNED.fullmatch(solution)
    return f"{match[3]} = {match[2]}, {match[1]} = {match[4]}" if match and match[2] != match[4] else None


def _factor_dropped(solution: str) -> str | None:
    match = re.search(r"(?<![\d.^_{])([2-9]|\d\d+)(?=\\sqrt|\\pi|[a-z])", solution)
    return solution[: match.start()] + solution[match.end() :] if match and is_value(solution) else None


def _other_letter(solution: str) -> str | None:
    r"""`t` for `x`, in a formula of x."""
    has_x = re.search(r"(?<![A-Za-z\\])x(?![A-Za-z])", solution)
    if (
        not has_x
        or "t" in _TEXT.sub("", solution).replace(r"\sqrt", "").replace(r"\frac", "")
        or "=" in solution
    ):
        return None
    return re.sub(r"(?<![A-Za-z\\])x(?![A-Za-z])", "t", solution) if is_value(solution) else None


def _member_dropped(solution: str) -> str | None:
    return solution.rpartition(",")[0] if _LIST.fullmatch(solution) else None


def _member_added(solution: str) -> str | None:
    return f"{solution}, 4711" if _LIST.fullmatch(solution) else None


def _as_set(solution: str) -> str | None:
    match = _POINT.fullmatch(solution)
    return rf"\{{{match[1]}, {match[2]}\}}" if match else None


def _other_words(solution: str) -> str | None:
    match = _WORD.fullmatch(solution)
    return rf"\text{{{match[1]} and Bob}}" if match else None


def _denied(solution: str) -> str | None:
    match = _WORD.fullmatch(solution)
    return rf"\text{{not {match[1]}}}" if match else None


def _of_number(pattern: str) -> Form:
    """A text around a number that is neither 0 nor 1."""
    is_number = re.compile(r"-?(?:[2-9]|[1-9]\d+)(?:\.\d+)?|-?\\frac\{\d+\}\{\d+\}")
    return lambda solution: pattern.replace("%", solution) if is_number.fullmatch(solution) else None


def _with_other(pattern: str) -> Form:
    """The solution and another one; `%` is the first and `#` the second."""

    def form(solution: str) -> str | None:
        other = _digit_changed(solution) or r"\text{Bob}"
        return pattern.replace("#", other).replace("%", solution)

    return form


CHANGING: dict[str, Form] = {
    "a digit": _digit_changed,
    "a sign inside": _sign_turned,
    "another unit": _other_unit,
    "names exchanged": _names_exchanged,
    "a factor dropped": _factor_dropped,
    "another letter": _other_letter,
    "a member dropped": _member_dropped,
    "a member added": _member_added,
    "a set of a point": _as_set,
    "another word": _other_words,
    "denied word": _denied,
    "denied": _around(r"\text{not } %"),
    "plus one": _of_value("(%) + 1"),
    "twice": _of_number("2(%)"),
    "squared": _of_number("(%)^2"),
    "the sine": _of_number(r"\sin(%)"),
    "the root": _of_number(r"\sqrt{|%|}"),
    "the inverse": _of_number(r"\frac{1}{%}"),
    "a factorial": _of_number("(%)! + (%)!"),
    "a million": _of_number("% million"),
    "a dozen": _of_number("% dozen"),
    "hundredths": _of_number("% hundredths"),
    "squared in words": _of_number("% squared"),
    "thousandths": _of_number("% thousandths"),
    "at least": _of_number(r"\text{at least } %"),
    "less than": _of_number("< %"),
    "or more": _of_number(r"% \text{ or more}"),
    "another one, too": _with_other(r"% \text{ or } #"),
    "another one before": _with_other(r"# \text{ or } %"),
    "either": _with_other(r"\text{either } % \text{ or } #"),
    "a list with another": _with_other("%; #"),
    "equal to another": _with_other(r"% \ne #"),
    "cases": _with_other(r"% \text{ if } n > 7, # \text{ otherwise}"),
    "cases in words": _with_other(r"% \text{ when } n > 7, # \text{ when } n \le 7"),
    "a judgement": _of_number(r"% \text{ is wrong}"),
    "a hedge": _with_other(r"% \text{ unless } #"),
    "a remainder": lambda solution: (
        rf"{solution} \bmod 2" if _INTEGER.fullmatch(solution) and int(solution) > 1 else None
    ),
    "an interval": _of_number("[%, 4711]"),
    "times infinity": _of_number(r"% \cdot 5^{5^{\infty}}"),
    "plus infinity": _of_value(r"(%) + 5^{5^{\infty}}"),
    "nothing over nothing": _of_value(r"(%) \cdot \frac{0}{0}"),
}
"""Each gives a text with another meaning, or None where it does not apply."""
