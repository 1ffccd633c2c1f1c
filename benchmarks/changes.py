"""Solutions changed so that they mean something else.

Like `answers`, by nothing but text: nothing here knows how the verifier reads.
"""

from __future__ import annotations

import re

from benchmarks.answers import Form, is_value
from benchmarks.rewritings import INTEGER, LIST, MEASURED, TEXT, WORD, around, around_formula

_DIGIT = re.compile(r"\d")
_POINT = re.compile(r"\((-?[\d.]+), ?(-?[\d.]+)\)")
_ASSIGNED = re.compile(r"([a-z]) ?= ?(-?\d+), ?([a-z]) ?= ?(-?\d+)")
_OTHER_UNITS = {
    **{"cm": "m", "m": "km", "km": "miles", "kg": "g", "g": "kg", "hours": "minutes", "minutes": "hours"},
    **{"feet": "inches", "inches": "feet", "square feet": "feet", "km/h": "m/s"},
    **{"square inches": "cubic inches"},
    **{"miles": "km", "days": "weeks", "weeks": "days", "dollars": "cents", "cents": "dollars"},
}


def _digit_changed(solution: str) -> str | None:
    """The first digit by another one."""
    match = _DIGIT.search(solution)
    if not match:
        return None
    other = (int(match[0]) + 4) % 9 + 1
    return f"{solution[: match.start()]}{other}{solution[match.end() :]}"


def _sign_turned(solution: str) -> str | None:
    """The first plus by a minus or the other way round."""
    match = re.search(
        r"(?<=[\w})\]] )[-+](?= ?[\w\\(])|(?<=[\w})\]])[-+](?= ?[\w\\(])", TEXT.sub("", solution)
    )
    if not match or TEXT.search(solution):
        return None
    return f"{solution[: match.start()]}{'+' if match[0] == '-' else '-'}{solution[match.end() :]}"


def _other_unit(solution: str) -> str | None:
    match = MEASURED.fullmatch(solution)
    return rf"{match[1]} \text{{ {_OTHER_UNITS[match[2]]}}}" if match and match[2] in _OTHER_UNITS else None


def _equal_amount(solution: str) -> str | None:
    """An equation between two amounts of one unit, which is not true."""
    match = MEASURED.fullmatch(solution)
    return rf"4711 \text{{ {match[2]}}} = {solution}" if match else None


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
        or "t" in TEXT.sub("", solution).replace(r"\sqrt", "").replace(r"\frac", "")
        or "=" in solution
    ):
        return None
    return re.sub(r"(?<![A-Za-z\\])x(?![A-Za-z])", "t", solution) if is_value(solution) else None


def _member_dropped(solution: str) -> str | None:
    return solution.rpartition(",")[0] if LIST.fullmatch(solution) else None


def _member_added(solution: str) -> str | None:
    return f"{solution}, 4711" if LIST.fullmatch(solution) else None


def _as_set(solution: str) -> str | None:
    match = _POINT.fullmatch(solution)
    return rf"\{{{match[1]}, {match[2]}\}}" if match else None


def _other_words(solution: str) -> str | None:
    match = WORD.fullmatch(solution)
    return rf"\text{{{match[1]} and Bob}}" if match else None


def _denied(solution: str) -> str | None:
    match = WORD.fullmatch(solution)
    return rf"\text{{not {match[1]}}}" if match else None


def _identity(solution: str) -> str | None:
    """What always holds, for an equation of x and y: it says nothing."""
    is_equation = re.fullmatch(r"[-+\w^ ]+=[-+\w^ ]+", solution) and {"x", "y"} <= set(solution)
    return r"e^{x} e^{y} = e^{x+y}" if is_equation else None


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
    "denied": around(r"\text{not } %"),
    "plus one": around_formula("(%) + 1"),
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
    "another one without spaces": _of_number("x=4711orx=%"),
    "another one before without spaces": _of_number("x=%orx=4711"),
    "another amount that equals it": _equal_amount,
    "a list with another": _with_other("%; #"),
    "equal to another": _with_other(r"% \ne #"),
    "cases": _with_other(r"% \text{ if } n > 7, # \text{ otherwise}"),
    "cases in words": _with_other(r"% \text{ when } n > 7, # \text{ when } n \le 7"),
    "an identity": _identity,
    "a judgement": _of_number(r"% \text{ is wrong}"),
    "a hedge": _with_other(r"% \text{ unless } #"),
    "a remainder": lambda solution: (
        rf"{solution} \bmod 2" if INTEGER.fullmatch(solution) and int(solution) > 1 else None
    ),
    "an interval": _of_number("[%, 4711]"),
    "times infinity": _of_number(r"% \cdot 5^{5^{\infty}}"),
    "plus infinity": around_formula(r"(%) + 5^{5^{\infty}}"),
    "nothing over nothing": around_formula(r"(%) \cdot \frac{0}{0}"),
}
"""Each gives a text with another meaning, or None where it does not apply."""
