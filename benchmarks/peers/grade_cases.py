"""Grades the cases on its input by another system: `grade_cases.py math-verify|sympy`.

math-verify is called with its defaults, or as its own test calls it. sympy gets the same answer texts as our
verifier and the same LaTeX parser, and says whether a difference simplifies to 0.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable

SECONDS_A_CASE = 10
"""Longer counts as not accepted."""

Grade = Callable[[dict], bool]


def math_verify() -> Grade:
    from math_verify import parse, verify

    names = {
        "precision": "float_rounding",
        "strict": "strict",
        "allow_set_relation_comp": "allow_set_relation_comp",
    }

    def grade(case: dict) -> bool:
        options = {names[key]: value for key, value in case["options"].items()}
        return bool(verify(parse(case["gold"]), parse(case["text"]), **options))

    return grade


def plain_sympy() -> Grade:
    import sympy
    from latex2sympy2_extended import latex2sympy

    from realrl.verifier.extract import extract_answer
    from realrl.verifier.solution import solution_answer

    def grade(case: dict) -> bool:
        gold, answer = (
            latex2sympy(text) for text in (solution_answer(case["gold"]), extract_answer(case["text"]))
        )
        return gold == answer or bool(sympy.simplify(gold - answer) == 0)

    return grade


def _stop(*_: object) -> None:
    raise TimeoutError


def _graded(grade: Grade, case: dict) -> bool:
    """A system that fails on a case does not accept it."""
    signal.alarm(SECONDS_A_CASE)
    try:
        return grade(case)
    except Exception:
        return False
    finally:
        signal.alarm(0)


def main(system: str) -> None:
    cases = json.load(sys.stdin)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    signal.signal(signal.SIGALRM, _stop)
    grade = {"math-verify": math_verify, "sympy": plain_sympy}[system]()
    begin_s = time.perf_counter()
    accepted = [_graded(grade, case) for case in cases]
    json.dump({"accepted": accepted, "seconds": time.perf_counter() - begin_s}, answers)
    answers.close()


if __name__ == "__main__":
    main(sys.argv[1])
