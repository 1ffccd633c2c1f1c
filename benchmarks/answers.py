"""Solutions written in other ways, and changed into wrong answers, by nothing but their text.

Nothing here knows how the verifier reads an answer: these are what it is measured with.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

Form = Callable[[str], "str | None"]

_INTEGER = re.compile(r"-?\d+")
_PLAIN = re.compile(r"-?\d*\.?\d+")
_SMALL_FRACTION = re.compile(r"-?\\frac\{(\d+)\}\{(\d+)\}")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_SEVERAL = re.compile(r"\\text|\\mbox|,|=|\\in|\\cup|\\pm|matrix|_|\\circ|:|\\\$|\\%")
_INTERVAL = re.compile(r"\\cup|[\[\]](?!.*matrix)|infty")


def is_value(solution: str) -> bool:
    """One number or expression: no list, text, unit, equation, interval, matrix, numeral of another base."""
    return not _SEVERAL.search(solution)


def _calculated(solution: str) -> str | None:
    """The same value as the result of a calculation; of what is no value, one that stands in braces."""
    if _INTEGER.fullmatch(solution):
        return rf"\frac{{{2 * int(solution)}}}{{2}}"
    return rf"\frac{{2({solution})}}{{2}}" if is_value(solution) else f"{{{solution}}}"


def _zeros(solution: str) -> str | None:
    if _INTEGER.fullmatch(solution):
        return f"{solution}.0"
    return f"{solution} + 0" if is_value(solution) else None


def _reordered(solution: str) -> str | None:
    """A list or a set from its end, a sum from its other end; of one number, a sum that comes to it."""
    if _INTEGER.fullmatch(solution):
        return f"1 + {int(solution) - 1}" if int(solution) > 0 else f"-1 - {-int(solution) - 1}"
    inside = solution.removeprefix(r"\{").removesuffix(r"\}")
    if re.search(r"[()\[\]=:]|matrix|\\!|text|mbox|\d,\d{3}", solution):
        return None
    members = [member.strip() for member in inside.split(",")]
    if len(members) > 1:
        return solution.replace(inside, ", ".join(reversed(members)))
    match = re.fullmatch(r"([^-+{}]+) *([-+]) *([^-+{}]+)", solution)
    if match:
        return f"{'-' if match[2] == '-' else ''}{match[3]} + {match[1]}"
    return f"-1 + ({solution}) + 1" if is_value(solution) else None


def _thousands(solution: str) -> str | None:
    return f"{int(solution):,}" if _INTEGER.fullmatch(solution) and abs(int(solution)) > 999 else None


def _unicode(solution: str) -> str:
    """Signs of Unicode for TeX's, with its spaces around."""
    changed = (
        re.sub(r"(?<!\{)\^\\circ", "°", solution)
        .replace("-", "−")
        .replace(r"\pi", "π ")
        .replace(r"\pm", "± ")
    )
    return f"\u00a0{changed}\u2009"


def _styled(solution: str) -> str:
    r"""`\dfrac`, delimiters without `\left`, spaces as TeX has them."""
    changed = solution.replace(r"\frac", r"\dfrac").replace(r"\left", "").replace(r"\right", "")
    return r"\, " + changed.replace("=", r" \; = ") + r" \;"


def _short(solution: str) -> str | None:
    r"""`\frac12` for `\frac{1}{2}`, and the reverse of what `_styled` does to delimiters."""
    if _INTEGER.fullmatch(solution):
        return rf"\frac{{{solution}}}1"
    changed = re.sub(r"\\frac\{(\d)\}\{(\d)\}", r"\\frac\1\2", solution)
    if not re.search(r"\\left|matrix|\\text", solution):
        changed = re.sub(r"(?<!\\)([(\[])", r"\\left\1", re.sub(r"(?<!\\)([)\]])", r"\\right\1", changed))
    return changed if changed != solution else None


def _unit(solution: str) -> str | None:
    r"""With the unit that the solution leaves out, or without the one that it gives."""
    if re.search(r"\\(?:text|mbox)\{ ?[a-z]", solution) and re.match(r"[\d.\\]+", solution):
        return re.sub(r"\s*\\(?:text|mbox)\{.*", "", solution) or None
    if solution.endswith(r"^\circ"):
        return solution.removesuffix(r"^\circ") + r"\text{ degrees}"
    return rf"{solution}\text{{ units}}" if _PLAIN.fullmatch(solution) else None


def _decimal(solution: str) -> str | None:
    match = _SMALL_FRACTION.fullmatch(solution.replace("dfrac", "frac"))
    if not match:
        return None
    return f"{'-' if solution[0] == '-' else ''}{int(match[1]) / int(match[2]):.12f}"


def _said(solution: str) -> str:
    return rf"We add up and see that the final answer is ${solution}$."


def _boxed(inside: str) -> str:
    return rf"First I thought of \boxed{{-77}}. So we have $\boxed{{{inside}}}$."


def _in_box(form: Form) -> Form:
    return lambda solution: None if (inside := form(solution)) is None else _boxed(inside)


FORMS: dict[str, Form] = {
    "in a later box": _in_box(lambda solution: solution),
    'after "the final answer is"': _said,
    "as a named value": _in_box(lambda s: None if "=" in s or r"\in" in s or r"\text" in s else f"Q = {s}"),
    "calculated": _in_box(_calculated),
    "with zeros": _in_box(_zeros),
    "reordered": _in_box(_reordered),
    "in TeX's style": _in_box(_styled),
    "in short TeX": _in_box(_short),
    "in Unicode or thousands": _in_box(lambda s: _thousands(s) or _unicode(s)),
    "with or without unit, or in decimals": _in_box(lambda s: _unit(s) or _decimal(s)),
}
"""Each gives a text whose answer is that solution, or None where the form does not apply."""


def _counted_up(solution: str, which: int) -> str | None:
    """One number of it, by one more."""
    found = list(_NUMBER.finditer(solution))
    if not found:
        return None
    number = found[which]
    digits = str(int(number.group().replace(".", "")) + 1).rjust(
        len(number.group()) - ("." in number.group()), "0"
    )
    if "." in number.group():
        cut = len(digits) - len(number.group().partition(".")[2])
        digits = f"{digits[:cut]}.{digits[cut:]}"
    return solution[: number.start()] + digits + solution[number.end() :]


def _negated(solution: str) -> str | None:
    if not is_value(solution) or not re.search(r"[1-9a-z]", solution):
        return None
    return f"-({solution})"


def _turned(solution: str) -> str | None:
    """One end of an interval, open where it was closed."""
    if not _INTERVAL.search(solution):
        return None
    at = next(i for i in reversed(range(len(solution))) if solution[i] in ")]")
    return solution[:at] + ("]" if solution[at] == ")" else ")") + solution[at + 1 :]


def _exchanged(solution: str) -> str | None:
    """The coordinates of a point, from the last to the first."""
    bare = solution.replace(r"\left", "").replace(r"\right", "")
    match = re.fullmatch(r"\(([^()]*)\)", bare)
    members = [member.strip() for member in match[1].split(",")] if match else []
    return f"({', '.join(reversed(members))})" if members != members[::-1] else None


def _hedged(solution: str) -> str | None:
    other = _counted_up(solution, -1)
    return rf"{solution} \text{{ or }} {other}" if other else None


def _other_word(solution: str) -> str | None:
    if re.fullmatch(r"\\text\{\(([A-E])\)\}", solution):
        return r"\text{(B)}" if "A" in solution else r"\text{(A)}"
    return None if _NUMBER.search(solution) else rf"{solution} + 1"


PERTURBATIONS: dict[str, Form] = {
    "last number + 1": _in_box(lambda solution: _counted_up(solution, -1)),
    "first number + 1": _in_box(lambda solution: _counted_up(solution, 0)),
    "sign changed": _in_box(_negated),
    "a tenfold": _in_box(lambda s: f"{s}0" if _INTEGER.fullmatch(s) and int(s) else None),
    "a hundredth": _in_box(lambda s: f"{int(s) / 100:.2f}" if _INTEGER.fullmatch(s) and int(s) else None),
    "an end of the interval turned": _in_box(_turned),
    "coordinates exchanged": _in_box(_exchanged),
    "another answer beside it": _in_box(_hedged),
    "another box beside it": lambda s: (
        None if not (other := _counted_up(s, -1)) else rf"It is \boxed{{{s}}} or \boxed{{{other}}}"
    ),
    "another word": _in_box(_other_word),
}
"""Each gives a text whose answer is not that solution, or None where it does not apply."""


def texts(forms: dict[str, Form], solution: str) -> Iterator[tuple[str, str]]:
    """`(name of the form, text)` of each that applies."""
    for name, form in forms.items():
        text = form(solution)
        if text is not None:
            yield name, text
