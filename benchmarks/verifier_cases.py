"""The test cases of math-verify's source distribution, put to it, to plain sympy and to our verifier.

They are read from the archive that the user gives, https://pypi.org/project/math-verify (Apache-2.0); none of
them is part of this project. math-verify runs from the same archive, with the latex2sympy2-extended that is
installed.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import msgspec

from benchmarks import ROOT
from benchmarks.answers import FORMS, PERTURBATIONS, texts
from benchmarks.options import BenchmarkFailed
from realrl.apps.tables import table
from realrl.rewards.math import check
from realrl.rewards.pool import JudgePool
from realrl.rewards.verdict import Verdict
from realrl.verifier.leniency import Leniency
from realrl.verifier.limits import ANSWER_DIGITS, SOLUTION_DIGITS

PEERS = ("math-verify", "sympy")
PEER_DEADLINE_S = 600.0
_SCRIPT = Path(__file__).resolve().parent / "peers" / "grade_cases.py"


class Case(msgspec.Struct, frozen=True, kw_only=True):
    gold: str
    text: str
    equal: bool
    options: dict[str, bool | int] = {}
    """How math-verify's test calls it, where it does not use the defaults."""


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """How a system did on the cases."""

    cases: str
    system: str
    num: int
    num_equal: int
    accepted_right: int
    accepted_wrong: int
    seconds: float

    @property
    def precision(self) -> float:
        accepted = self.accepted_right + self.accepted_wrong
        return self.accepted_right / accepted if accepted else 0.0

    @property
    def recall(self) -> float:
        return self.accepted_right / self.num_equal


@contextmanager
def unpacked(archive: Path) -> Iterator[Path]:
    """The folder in a source distribution; a folder stands for itself."""
    if archive.is_dir():
        yield archive
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter="data")
        except (OSError, tarfile.TarError) as error:
            raise ValueError(
                f"--cases: {archive}: cannot be unpacked ({error}); give math_verify-*.tar.gz"
            ) from None
        inside = [path for path in Path(folder).iterdir() if path.is_dir()]
        yield inside[0] if len(inside) == 1 else Path(folder)


def read_cases(folder: Path) -> list[Case]:
    """Every literal case of the tests that are tables of `gold, pred, expected`; nothing of them is run."""
    cases = [
        case
        for path in sorted(folder.glob("tests/test_*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("mark.parametrize")
        for case in _table(node)
    ]
    if not cases:
        raise ValueError(
            f"--cases: {folder}: no tests/test_*.py with cases; give math-verify's source distribution"
        )
    return cases


def _table(call: ast.Call) -> Iterator[Case]:
    names = [name.strip() for name in str(ast.literal_eval(call.args[0])).split(",")]
    if names[:2] != ["gold", "pred"]:
        return
    for element in call.args[1].elts:
        try:
            values = dict(zip(names, ast.literal_eval(element)))
        except ValueError:
            continue
        equal = bool(values.pop("expected" if "expected" in values else "result"))
        yield Case(gold=values.pop("gold"), text=values.pop("pred"), equal=equal, options=values)


def form_cases(solutions: Sequence[str], num: int) -> list[Case]:
    """`num` of the solutions, evenly taken, in every form of `answers`."""
    chosen = solutions[:: max(1, len(solutions) // num)][:num]
    return [
        Case(gold=f"${solution}$", text=text, equal=equal)
        for solution in chosen
        for forms, equal in ((FORMS, True), (PERTURBATIONS, False))
        for _, text in texts(forms, solution)
    ]


def measure(name: str, cases: Sequence[Case], folder: Path) -> Iterator[Score]:
    """Of every system; `folder` is math-verify's."""
    yield _score(name, "realrl", cases, *_ours(cases))
    for peer in PEERS:
        yield _score(name, peer, cases, *_of_peer(peer, folder, cases))


def _score(name: str, system: str, cases: Sequence[Case], accepted: Sequence[bool], seconds: float) -> Score:
    return Score(
        cases=name,
        system=system,
        num=len(cases),
        num_equal=sum(case.equal for case in cases),
        accepted_right=sum(a and case.equal for a, case in zip(accepted, cases, strict=True)),
        accepted_wrong=sum(a and not case.equal for a, case in zip(accepted, cases, strict=True)),
        seconds=seconds,
    )


def _ours(cases: Sequence[Case]) -> tuple[list[bool], float]:
    with JudgePool(num_children=1) as pool:
        pool.judge("x", "y")
        begin_s = time.perf_counter()
        accepted = [_accepts(case, pool) for case in cases]
        return accepted, time.perf_counter() - begin_s


def _accepts(case: Case, pool: JudgePool) -> bool:
    judge = partial(pool.judge, leniency=leniency_of(case.options))
    return check(case.text, [case.gold], judge).verdict is Verdict.CORRECT


def leniency_of(options: Mapping[str, bool | int]) -> Leniency:
    """Return our settings for those of a case.

    math-verify rounds to `precision` decimals, ours is a number of digits. Without `strict`, variables may
    have other names.
    """
    digits = options.get("precision", ANSWER_DIGITS)
    return Leniency(
        answer_digits=digits,
        solution_digits=min(digits + SOLUTION_DIGITS - ANSWER_DIGITS, SOLUTION_DIGITS),
        orders_as_sets=bool(options.get("allow_set_relation_comp", True)),
        rename=not options.get("strict", True),
    )


def failed_cases(cases: Sequence[Case]) -> list[Case]:
    """Return the cases that our verifier accepts wrongly or rejects wrongly."""
    accepted, _ = _ours(cases)
    return [case for case, is_accepted in zip(cases, accepted, strict=True) if is_accepted != case.equal]


def render_failed(cases: Sequence[Case]) -> str:
    """Return a line for each failed case."""
    head = ("failed", "gold", "text", "options")
    lines = [
        ("rejected" if case.equal else "accepted", repr(case.gold), repr(case.text), str(case.options))
        for case in cases
    ]
    return table([head, *lines], indent="  ")


def _of_peer(peer: str, folder: Path, cases: Sequence[Case]) -> tuple[list[bool], float]:
    path = os.pathsep.join([str(folder / "src"), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(_SCRIPT), peer],
        input=msgspec.json.encode(cases),
        capture_output=True,
        env=os.environ | {"PYTHONPATH": path},
        timeout=PEER_DEADLINE_S,
    )
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise BenchmarkFailed(f"{peer} ended with {done.returncode}: {''.join(last)}")
    answer = json.loads(done.stdout)
    return answer["accepted"], answer["seconds"]


def render(scores: Sequence[Score]) -> str:
    head = ("system", "precision", "recall", "wrongly accepted", "wrongly rejected", "seconds")
    lines = [
        (
            score.system,
            f"{score.precision:.1%}",
            f"{score.recall:.1%}",
            str(score.accepted_wrong),
            str(score.num_equal - score.accepted_right),
            f"{score.seconds:.1f}",
        )
        for score in scores
    ]
    what = f"{scores[0].cases}: {scores[0].num} pairs, {scores[0].num_equal} of them equal"
    return f"{what}\n{table([head, *lines], numbers=True, indent='  ')}"
