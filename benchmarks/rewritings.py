"""Solutions written in other ways that mean the same.

Like `answers`, by nothing but text: nothing here knows how the verifier reads.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from benchmarks.answers import Form, is_value

TEXT = re.compile(r"\\(?:text|mbox|mathrm|textbf)\s*\{[^{}]*\}")
_TERMS = re.compile(r"[-+]?[^-+]+")
_POLYNOMIAL = re.compile(r"[-+]?[\da-z^]+(?:\s*[-+]\s*[\da-z^]+)+")
_SIMPLE_FRACTION = re.compile(r"(-?)\\frac\{(\d+)\}\{(\d+)\}")
INTEGER = re.compile(r"-?\d+")
MEASURED = re.compile(r"(\d+(?:\.\d+)?)\s*\\text\{ ?([a-z/ ]+)\}")
_INTERVAL = re.compile(r"([\[(])([^,\[\]()]+),([^,\[\]()]+)([\])])")
LIST = re.compile(r"(-?\d+)(, -?\d+)+")
_EQUATION = re.compile(r"([^=<>]+)=([^=<>]+)")
WORD = re.compile(r"\\text\{([A-Za-z]{4,}(?: [a-z]+)*)\}")
_NO_FORMULA = re.compile(
    r"[<>]|\\(?:leq?|geq?|lt|gt|approx|emptyset|varnothing|neq?)\b|(?<![A-Za-z\\])[A-Za-z]{4}"
)
_FULL_WIDTH = {ord(character): ord(character) + 0xFEE0 for character in "0123456789+=abcxyz"}
_BOLD_DIGITS = {ord("0") + digit: 0x1D7CE + digit for digit in range(10)}
_PLAIN_SIGNS = {
    **{r"\pi": "pi", r"\cdot": "*", r"\times": "*", r"\left": "", r"\right": ""},
    **{r"\ln": "ln", r"\sin": "sin"},
}
_UNICODE_SIGNS = {
    **{"pi": "π", "infty": "∞", "cup": "∪", "le": "≤", "ge": "≥"},
    **{"pm": "±", "cdot": "⋅", "in": "∈"},
}
_SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹"
_SMALLER_UNITS = {
    **{"cm": ("mm", 10), "m": ("cm", 100), "km": ("m", 1000), "kg": ("g", 1000), "g": ("mg", 1000)},
    **{"hours": ("minutes", 60), "minutes": ("seconds", 60), "feet": ("inches", 12), "weeks": ("days", 7)},
}
_ONES = "zero one two three four five six seven eight nine ten eleven twelve".split()


def _is_formula(solution: str) -> bool:
    """Whether brackets can be put around a solution: no statement, no word, no set."""
    return bool(solution) and is_value(solution) and not _NO_FORMULA.search(solution)


def _outside_texts(change: Callable[[str], str]) -> Form:
    r"""A change of everything but what `\text{…}` holds; None if it changes nothing."""

    def form(solution: str) -> str | None:
        parts, last = [], 0
        for match in TEXT.finditer(solution):
            parts += [change(solution[last : match.start()]), match[0]]
            last = match.end()
        changed = "".join([*parts, change(solution[last:])])
        return changed if changed != solution else None

    return form


def around_formula(pattern: str) -> Form:
    """A text around one value; `%` is where it goes."""
    return lambda solution: pattern.replace("%", solution) if _is_formula(solution) else None


def around(pattern: str) -> Form:
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
    match = MEASURED.fullmatch(solution)
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
    if not LIST.fullmatch(solution):
        return None
    members = solution.split(", ")
    return rf"{', '.join(members[:-1])} \text{{ and }} {members[-1]}"


def _upper(solution: str) -> str | None:
    match = WORD.fullmatch(solution)
    return match[1].upper() if match else None


def _other_matrix(solution: str) -> str | None:
    return solution.replace("{pmatrix}", "{bmatrix}") if "{pmatrix}" in solution else None


def _in_points(solution: str) -> str | None:
    return (
        f"{int(solution):,}".replace(",", r"{,}")
        if INTEGER.fullmatch(solution) and abs(int(solution)) > 999
        else None
    )


def _plain(solution: str) -> str | None:
    """A formula as calculators and programs take it: `sqrt(3)/2 + 5*pi`."""
    if re.search(r"\d *\\[dt]?frac", solution):
        return None
    text = re.sub(r"\\[dt]?frac\{([^{}]+)\}\{([^{}]+)\}", r"((\1)/(\2))", solution)
    text = re.sub(r"\\sqrt\{([^{}]+)\}", r"sqrt(\1)", text)
    text = re.sub(r"\^\{([^{}]+)\}", r"^(\1)", text)
    for written, plain in _PLAIN_SIGNS.items():
        text = text.replace(written, plain)
    is_plain = "\\" not in text and "{" not in text and _is_formula(solution)
    return text if is_plain and text != solution else None


def _unicode_signs(solution: str) -> str | None:
    changed = re.sub(r"\\sqrt\{(\d+)\}", r"√\1", solution)
    for name, sign in _UNICODE_SIGNS.items():
        changed = re.sub(rf"\\{name}(?![A-Za-z]) ?", sign, changed)
    return changed if changed != solution else None


def _half_power(solution: str) -> str | None:
    changed = re.sub(r"\\sqrt\{(\d+)\}", r"(\1)^{1/2}", solution)
    return changed if changed != solution and _is_formula(solution) else None


def _exact_decimal(solution: str) -> str | None:
    """A fraction whose decimals end, as a decimal."""
    match = _SIMPLE_FRACTION.fullmatch(solution)
    if not match or not int(match[3]) or (10**6 * int(match[2])) % int(match[3]):
        return None
    return f"{match[1]}{int(match[2]) / int(match[3]):.6f}".rstrip("0")


def _mixed(solution: str) -> str | None:
    match = _SIMPLE_FRACTION.fullmatch(solution)
    whole, rest = divmod(int(match[2]), int(match[3])) if match and int(match[3]) else (0, 0)
    return rf"{match[1]}{whole}\frac{{{rest}}}{{{match[3]}}}" if whole and rest else None


def _bold_word(solution: str) -> str | None:
    match = WORD.fullmatch(solution)
    return rf"\textbf{{{match[1]}}}" if match else None


def _bare_word(solution: str) -> str | None:
    match = WORD.fullmatch(solution)
    return f"{match[1]}." if match else None


def _degree_word(solution: str) -> str | None:
    match = re.fullmatch(r"(\d+)\^\{?\\circ\}?", solution)
    return f"{match[1]} degrees" if match else None


def _part_of_one(solution: str) -> str | None:
    match = re.fullmatch(r"(\d+)\\%", solution)
    return rf"\frac{{{match[1]}}}{{100}}" if match else None


def _spaced_groups(solution: str) -> str | None:
    grouped = _in_points(solution)
    return grouped.replace(r"{,}", r"\,") if grouped else None


def _bare_array(solution: str) -> str | None:
    found = re.fullmatch(r"\\begin\{pmatrix\}(.*)\\end\{pmatrix\}", solution, re.DOTALL)
    return rf"\left[\begin{{array}}{{cc}}{found[1]}\end{{array}}\right]" if found else None


KEEPING: dict[str, Form] = {
    "spaces around signs": _outside_texts(_spaced),
    "fonts": around(r"\boldsymbol{%}"),
    "formula signs": around("$%$"),
    "formula brackets": around(r"\(%\)"),
    "a full stop": around("%."),
    "braces": around("{%}"),
    "in full width": _outside_texts(lambda text: text.translate(_FULL_WIDTH) if "\\" not in text else text),
    "bold digits": _outside_texts(lambda text: text.translate(_BOLD_DIGITS)),
    "raised digits": _outside_texts(_raised),
    "a minus of Unicode": _outside_texts(lambda text: text.replace("-", "−")),
    "terms from the end": _terms_turned,
    "factors from the end": _factors_turned,
    "with a slash": _slashed,
    "a larger fraction": _larger_fraction,
    "tfrac": _outside_texts(lambda text: text.replace(r"\frac", r"\tfrac")),
    "minus minus": around_formula("-(-(%))"),
    "over one": around_formula(r"\frac{%}{1}"),
    "plus and minus": around_formula("(%) + 17 - 17"),
    "to the first power": around_formula("(%)^{1}"),
    "exactly": around_formula(r"\text{exactly } %"),
    "an equals sign": around_formula("= %"),
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
    "groups with thin spaces": _spaced_groups,
    "as a program takes it": _plain,
    "signs of Unicode": _unicode_signs,
    "powers for roots": _half_power,
    "an exact decimal": _exact_decimal,
    "a mixed number": _mixed,
    "a bold word": _bold_word,
    "a bare word": _bare_word,
    "degrees in words": _degree_word,
    "hundredths for percent": _part_of_one,
    "an array in brackets": _bare_array,
    "twice a half": around_formula(r"2 \cdot \frac{%}{2}"),
    "a product with one": around_formula(r"1 \times (%)"),
    "a sum with a term twice": around_formula(r"(%) + \pi - \pi"),
    "a square in a quotient": around_formula(r"\frac{((%)^2 + 1)(%)}{1 + (%)^2}"),
    "a sum of thirds": lambda s: None if "q" in s else around_formula(r"\sum_{q=1}^{3} \frac{%}{3}")(s),
    "a name": lambda solution: f"Q = {solution}" if _is_formula(solution) and "Q" not in solution else None,
    "a function": lambda solution: (
        f"g(x) = {solution}" if re.search(r"x\^", solution) and _is_formula(solution) else None
    ),
    "an answer": around(r"\text{The answer is } %"),
    "a thin space": around(r"\,%\;"),
    "display style": around(r"\displaystyle %"),
    "a large bracket": lambda solution: rf"\left({solution}\right)" if _is_formula(solution) else None,
}
"""Each gives another text with the same meaning, or None where it does not apply."""
