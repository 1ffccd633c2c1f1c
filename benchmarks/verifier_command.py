"""`bench verifier`: the math verifier's rights and wrongs, its speed, and what hostile answers do to it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.options import count, say_machine
from realrl.apps.command_line import OK

NUM_COMPARED = 60
"""Solutions whose forms every system gets."""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cases", type=Path, metavar="TAR.GZ", help="math-verify's source distribution")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="with math500.jsonl and gsm8k_test.jsonl")
    parser.add_argument("--answers", type=count, default=10_000, metavar="N", help="in the mixed stream")
    parser.add_argument("--children", type=count, default=2, metavar="N", help="processes that compare")


def run(arguments: argparse.Namespace) -> int:
    from benchmarks import verifier

    solutions = verifier.solution_sets(arguments.data)
    say_machine(as_json=arguments.json)
    if arguments.cases is not None:
        _run_cases(arguments, solutions)
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
