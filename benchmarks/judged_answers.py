"""Grades texts that a person judged, and lists those on which the verifier disagrees."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from realrl.apps.tables import table
from realrl.rewards.math import check
from realrl.rewards.pool import JudgePool
from realrl.rewards.verdict import Verdict

_EXAMPLE = r'{"completion": "\\boxed{4}", "solutions": ["4"], "expect": "correct"}'


class Judged(msgspec.Struct, frozen=True):
    """A text, the solutions of its problem, and a person's judgement."""

    completion: str
    solutions: list[str]
    expect: Literal["correct", "not"]
    kind: str = ""
    """What the text is an example of, in words."""


class Disagreement(msgspec.Struct, frozen=True, kw_only=True):
    """A text that the verifier grades otherwise than the person does."""

    line: int
    """The line of the file, from 1 on."""
    expect: str
    verdict: str
    answer: str | None
    solutions: list[str]
    kind: str


class JudgedScore(msgspec.Struct, frozen=True, kw_only=True):
    """How often the verifier agrees with a person's judgements."""

    num: int
    num_correct: int
    """Texts that are judged correct."""
    accepted_wrong: int
    rejected_right: int
    disagreements: list[Disagreement]


def read_judged(path: Path) -> list[Judged]:
    """Return the lines of a file.

    Raises:
        ValueError: the file cannot be read, or has other lines.
    """
    try:
        lines = path.read_bytes().splitlines()
        return [msgspec.json.decode(line, type=Judged) for line in lines if line.strip()]
    except OSError as error:
        raise ValueError(f"--judged: {path}: cannot be read ({error.strerror})") from None
    except msgspec.MsgspecError as error:
        raise ValueError(f"--judged: {path}: {error}; expected lines like {_EXAMPLE}") from None


def measure_judged(judged: Sequence[Judged], pool: JudgePool) -> JudgedScore:
    """Grade every text."""
    found: list[Disagreement] = []
    for number, case in enumerate(judged, 1):
        checked = check(case.completion, case.solutions, pool.judge)
        is_accepted = checked.verdict is Verdict.CORRECT
        if is_accepted == (case.expect == "correct"):
            continue
        disagreement = Disagreement(
            line=number,
            expect=case.expect,
            verdict=checked.verdict.value,
            answer=checked.answer,
            solutions=case.solutions,
            kind=case.kind,
        )
        found.append(disagreement)
    rejected = sum(each.expect == "correct" for each in found)
    return JudgedScore(
        num=len(judged),
        num_correct=sum(case.expect == "correct" for case in judged),
        accepted_wrong=len(found) - rejected,
        rejected_right=rejected,
        disagreements=found,
    )


def render_judged(score: JudgedScore) -> str:
    """Return the counts, and a line for each disagreement."""
    head = ("line", "judged", "verdict", "answer", "solutions")
    lines = [
        (str(each.line), each.expect, each.verdict, str(each.answer), "; ".join(each.solutions))
        for each in score.disagreements
    ]
    counts = f"{score.accepted_wrong} wrongly accepted, {score.rejected_right} wrongly rejected"
    title = f"judged texts: {score.num}, {score.num_correct} of them correct; {counts}"
    return f"{title}\n{table([head, *lines], indent='  ')}"
