"""`bench verifier`: the math verifier's rights and wrongs, its speed, and what hostile answers do to it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.options import count, say_machine
from realrl.apps.command_line import OK

if TYPE_CHECKING:
    from benchmarks.judged_answers import Judged

NUM_COMPARED = 60
"""Solutions whose forms every system gets."""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cases", type=Path, metavar="TAR.GZ", help="math-verify's source distribution")
    parser.add_argument("--list", action="store_true", help="list the cases that realrl fails")
    parser.add_argument("--judged", type=Path, metavar="FILE.jsonl", help="texts with a person's judgement")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="with math500.jsonl and gsm8k_test.jsonl")
    parser.add_argument("--answers", type=count, default=10_000, metavar="N", help="in the mixed stream")
    parser.add_argument("--children", type=count, default=2, metavar="N", help="processes that compare")


def run(arguments: argparse.Namespace) -> int:
    from benchmarks import judged_answers, verifier

    solutions = verifier.solution_sets(arguments.data)
    judged = () if arguments.judged is None else judged_answers.read_judged(arguments.judged)
    say_machine(as_json=arguments.json)
    if arguments.cases is not None:
        _run_cases(arguments, solutions)
    if judged:
        _run_judged(arguments, judged)
    _run_forms(arguments, solutions)
    every = [solution for own in solutions.values() for solution in own]
    row = verifier.measure_stream(every, arguments.answers, arguments.children)
    _print(arguments, [row], verifier.render_stream(row))
    return OK


def _run_cases(arguments: argparse.Namespace, solutions: dict[str, list[str]]) -> None:
    from benchmarks import verifier_cases

    with verifier_cases.unpacked(arguments.cases) as folder:
        sets = {"math-verify's own cases": verifier_cases.read_cases(folder)}
        for problems, own in solutions.items():
            sets[f"forms of {problems}"] = verifier_cases.form_cases(own, NUM_COMPARED)
        for name, cases in sets.items():
            scores = list(verifier_cases.measure(name, cases, folder))
            _print(arguments, scores, verifier_cases.render(scores))
            if arguments.list:
                failed = verifier_cases.failed_cases(cases)
                _print(arguments, failed, verifier_cases.render_failed(failed))


def _run_judged(arguments: argparse.Namespace, judged: Sequence[Judged]) -> None:
    from benchmarks import judged_answers
    from realrl.rewards.pool import JudgePool

    with JudgePool(num_children=1) as pool:
        score = judged_answers.measure_judged(judged, pool)
    _print(arguments, [score], judged_answers.render_judged(score))


def _run_forms(arguments: argparse.Namespace, solutions: dict[str, list[str]]) -> None:
    from benchmarks import verifier
    from realrl.rewards.pool import JudgePool

    with JudgePool(num_children=1) as pool:
        for problems, own in solutions.items():
            rows = list(verifier.measure_forms(problems, own, pool))
            _print(arguments, rows, verifier.render_forms(rows))


def _print(arguments: argparse.Namespace, rows: Sequence[object], text: str) -> None:
    from benchmarks.report import json_line

    print("\n".join(map(json_line, rows)) if arguments.json else "\n" + text.rstrip("\n"), flush=True)
