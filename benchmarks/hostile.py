"""Answers made to hang, crash or take over a grader, and streams of ordinary ones with some among them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.answers import FORMS, PERTURBATIONS, texts

_MEGA = 1 << 20
TOUCHED = "realrl-verifier-was-here"
"""The file that the injected code would make."""

_ROW = " & ".join([r"\sin x"] * 6)

HOSTILE: dict[str, str] = {
    "large determinant": r"\boxed{\begin{vmatrix}" + r" \\ ".join([_ROW] * 6) + r"\end{vmatrix}}",
    "tower of powers": r"\boxed{9^{9^{9^{9}}}}",
    "10**10**10": r"\boxed{10**10**10}",
    "power in TeX": r"\boxed{10^{10^{10}}}",
    "power of a variable": r"\boxed{(x+1)^{999999999}}",
    "huge factorial": r"\boxed{(10^{10})!}",
    "factorial of factorials": r"\boxed{((9!)!)!}",
    "huge binomial": r"\boxed{\binom{1000000000}{500000000}}",
    "endless sum": r"\boxed{\sum_{k=1}^{10^{9}} \frac{1}{k^k+1}}",
    "hard integral": r"\boxed{\int_0^1 \frac{\sin(x^x) e^{x^3}}{\ln(1+x^{x})} dx}",
    "power of a sum": r"\boxed{(x+y+z+a+b+c+d)^{64}}",
    "power of roots": r"\boxed{(\sqrt2+\sqrt3+\sqrt5+\sqrt7+\sqrt{11}+\sqrt{13})^{64}}",
    "expanding product": r"\boxed{\prod_{k=1}^{100000} (x+k)}",
    "deep parentheses": "\\boxed{" + "(" * 450 + "1" + ")" * 450 + "}",
    "deep fractions": "\\boxed{" + r"\frac{1}{1+" * 70 + "1" + "}" * 70 + "}",
    "deep roots": "\\boxed{" + r"\sqrt{" * 120 + "2" + "}" * 120 + "}",
    "deep beyond the limit": "\\boxed{" + "{" * 100_000 + "1" + "}" * 100_000 + "}",
    "thousands of open boxes": "\\boxed{" * 50_000,
    "thousands of boxes": "\\boxed{1}" * 50_000 + "\\boxed{2",
    "a million digits": "\\boxed{" + "7" * _MEGA + "}",
    "a million digits, said": "The answer is " + "7" * _MEGA,
    "a million thousands": "The answer is 1" + ",111" * (_MEGA // 4) + ",11",
    "a million terms": "\\boxed{" + "x+" * (_MEGA // 2) + "1}",
    "a million dollars": "$" * _MEGA + "5",
    "a million open formulas": r"\[" * (_MEGA // 2) + "5",
    "a million answers": "answer is " * (_MEGA // 10),
    "a million spaces": "the answer is" + " " * _MEGA + "5",
    "backslashes": "\\" * _MEGA + "boxed{5}",
    "import": rf"\boxed{{__import__('os').system('touch {TOUCHED}')}}",
    "exec in text": rf"\boxed{{\text{{exec(open('{TOUCHED}','w'))}}}}",
    "lambda": rf"\boxed{{(lambda: open('{TOUCHED}', 'w'))()}}",
    "TeX that reads files": r"\boxed{\input{/etc/passwd}\write18{ls}}",
    "zero bytes": "\\boxed{\0\0 5 \0}",
    "lone surrogate": "\\boxed{\ud800 5}",
    "line ends": '\\boxed{5\n{"verdict": "correct"}\n}',
    "right to left": "\\boxed{\u202e5\u202c}",
    "infinities": r"\boxed{\infty - \infty + \frac{1}{0} + 0^0 + \frac{0}{0}}",
    "many variables": "\\boxed{" + "+".join(f"x_{{{i}}}^{{{i}}}" for i in range(70)) + "}",
    "long list": "\\boxed{" + ",".join(map(str, range(250))) + "}",
    "long set": r"\boxed{\{" + ",".join(rf"\sqrt{{{i}}}" for i in range(2, 90)) + r"\}}",
}
"""Texts, none of which has any of the answers that it is graded against."""


@dataclass(frozen=True)
class Sample:
    """A text to grade."""

    text: str
    solution: str
    correct: bool
    hostile: str = ""


def mixed(solutions: Sequence[str], num_answers: int, *, hostile_share: float, seed: int = 1) -> list[Sample]:
    """Right and wrong answers by turns, with hostile ones spread among them."""
    draw = random.Random(seed)
    names = list(HOSTILE)
    every = round(1 / hostile_share)
    samples = []
    for index in range(num_answers):
        solution = draw.choice(solutions)
        if index % every == every - 1:
            name = names[index // every % len(names)]
            samples.append(Sample(HOSTILE[name], solution, False, name))
        else:
            correct = index % 2 == 0
            text = draw.choice(list(texts(FORMS if correct else PERTURBATIONS, solution)))[1]
            samples.append(Sample(text, solution, correct))
    return samples


def made_solutions(num: int, seed: int = 2) -> list[str]:
    """Solutions of every kind, for who has no problems at hand."""
    draw = random.Random(seed)

    def n(low: int = 2, high: int = 99) -> int:
        return draw.randint(low, high)

    kinds = (
        lambda: str(n(-999, 99999)),
        lambda: f"{n()}.{n(10)}",
        lambda: rf"\frac{{{n()}}}{{{n(100, 200)}}}",
        lambda: rf"{n()}\sqrt{{{draw.choice((2, 3, 5, 7, 11))}}}",
        lambda: rf"\left( {n()}, -\frac{{{n()}}}{{7}} \right)",
        lambda: f"[{-n()}, {n()})",
        lambda: rf"(-\infty, {n()}) \cup ({n(100, 200)}, \infty)",
        lambda: rf"\{{{n()}, {n(100, 200)}\}}",
        lambda: rf"\begin{{pmatrix}} {n()} & {n()} \\ {n()} & {n()} \end{{pmatrix}}",
        lambda: f"{n()}x^2 - {n()}x + {n()}",
        lambda: rf"{n()} \pm {n()}\sqrt{{3}}",
        lambda: rf"\text{{({draw.choice('ABCDE')})}}",
        lambda: rf"{n()}^\circ",
        lambda: f"y = {n()}x + {n()}",
        lambda: f"{n()}{n()}\\%",
        lambda: rf"\frac{{{n()}}}{{8}}",
    )
    return [kinds[i % len(kinds)]() for i in range(num)]
