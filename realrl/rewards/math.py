"""Grades an answer to a mathematical question: by string, then by number, then by sympy."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

from realrl.rewards.extract import extract_answer
from realrl.rewards.pool import symbolically_equal
from realrl.rewards.verdict import Verdict

Equal = Callable[[str, str], Verdict]

MAX_SYMBOLIC_CHARS = 400
"""A longer answer is compared as a string only: solutions are short."""

_DROPPED = re.compile(r"\\left|\\right|\\[,;:!()\[\] ]|\\displaystyle|\$|\\?%|\^\{?\\circ\}?|\\degree|\s")
_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")
_UNIT = re.compile(r"(?<=[\d}])\s*\\(?:text|mathrm|mbox)\s*\{[^{}]*\}(?:\^\{?\d\}?)?\s*$")
_SHORT_FRACTION = re.compile(r"\\frac(\d)(\d)")
_MIXED = re.compile(r"(?<=\d)\s+(\d+)\s*/\s*(\d+)")
_LIST = re.compile(r"(?<=\d)\s+(?=\d)(?!\d{3}(?!\d))")
_ASSIGNED = re.compile(r"^[A-Za-z]=(?=[^=])")
_WORD = re.compile(r"[A-Za-z]{3,}")
_BASED = re.compile(r"\d_")

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d+)"
_DECIMAL = rf"(?:{_DIGITS}(?:\.\d*)?|\.\d+)"
_NUMBER = re.compile(
    rf"(?P<sign>[-+]?)(?:(?P<top>{_DECIMAL})(?:/(?P<bottom>{_DECIMAL}))?"
    rf"|(?P<whole>{_DIGITS})?\\frac\{{(?P<num>[-+]?{_DECIMAL})\}}\{{(?P<den>{_DECIMAL})\}})"
)


def grade(text: str, solutions: Sequence[str], equal: Equal = symbolically_equal) -> Verdict:
    """Compare the answer in `text` with each of `solutions`; one that matches is enough.

    `equal` compares two short LaTeX expressions that neither strings nor numbers decide.
    """
    answer = extract_answer(text)
    if answer is None:
        return Verdict.NO_ANSWER
    verdicts = {_compare(answer, _boxed_content(solution), equal) for solution in solutions}
    severity = (Verdict.CORRECT, Verdict.TIMEOUT, Verdict.ERROR)
    return next((verdict for verdict in severity if verdict in verdicts), Verdict.WRONG)


def grade_all(
    texts: Sequence[str],
    solutions: Sequence[Sequence[str]],
    equal: Equal = symbolically_equal,
    *,
    num_threads: int = 4,
) -> list[Verdict]:
    """`grade` many texts; slow comparisons do not wait for each other."""
    with ThreadPoolExecutor(num_threads) as threads:
        return list(threads.map(lambda pair: grade(*pair, equal), zip(texts, solutions, strict=True)))


def _boxed_content(solution: str) -> str:
    return (extract_answer(solution) or solution) if "\\boxed" in solution else solution


def _compare(answer: str, solution: str, equal: Equal) -> Verdict:
    left, right = normalise(answer), normalise(solution)
    if left == right:
        return Verdict.CORRECT
    numbers = parse_number(left), parse_number(right)
    if None not in numbers:
        return Verdict.CORRECT if numbers[0] == numbers[1] else Verdict.WRONG
    if not (_is_symbolic(left) and _is_symbolic(right)):
        return Verdict.WRONG
    return equal(left, right)


def normalise(expression: str) -> str:
    r"""One spelling of what LaTeX spells in many ways: no spaces, units or `\left`, one kind of fraction."""
    expression = expression.replace("−", "-").replace("{,}", ",").strip().rstrip(".")
    expression = re.sub(r"\\[dt]frac", r"\\frac", expression)
    expression = _MIXED.sub(r"\\frac{\1}{\2}", expression)
    expression = _LIST.sub(",", expression)
    expression = _UNIT.sub("", expression)
    expression = _TEXT.sub(r"\1", expression)
    expression = _DROPPED.sub("", expression)
    expression = _SHORT_FRACTION.sub(r"\\frac{\1}{\2}", expression)
    expression = _ASSIGNED.sub("", expression)
    return expression.casefold() if _WORD.fullmatch(expression) else expression


def parse_number(expression: str) -> Fraction | None:
    """The exact value of a normalised integer, decimal, fraction or mixed number; None for anything else."""
    match = _NUMBER.fullmatch(expression)
    if not match or len(expression) > MAX_SYMBOLIC_CHARS:
        return None
    part = {
        name: Fraction(text.replace(",", ""))
        for name, text in match.groupdict().items()
        if text and name != "sign"
    }
    sign = -1 if match["sign"] == "-" else 1
    top, bottom = (
        part.get("top", part.get("num", Fraction(0))),
        part.get("bottom", part.get("den", Fraction(1))),
    )
    return sign * (part.get("whole", 0) + top / bottom) if bottom else None


def _is_symbolic(expression: str) -> bool:
    """Whether sympy may judge: it reads a word as a product of letters, and no number's base."""
    return (
        0 < len(expression) <= MAX_SYMBOLIC_CHARS
        and not _WORD.fullmatch(expression)
        and not _BASED.search(expression)
    )
