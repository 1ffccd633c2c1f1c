"""The child process that compares mathematical answers; `realrl/rewards/serving.py` says how it is asked.

A request is `{"answer": …, "solution": …}`, a reply `{"verdict": …}` or `{"error": str}`. To one with
`"explain": true` the reply is `{"answer": …, "solution": …, "why": …}`: how both were read, and why they are
the same or not.
"""

from __future__ import annotations

from realrl.rewards.judging import Batch, Reply
from realrl.rewards.serving import serve
from realrl.rewards.verdict import Verdict
from realrl.verifier.explaining import explained
from realrl.verifier.same import same_answer

_WARM_UP = (
    ("2x/2", "x"),
    ("3 cm", "0.03 m"),
    (r"\frac{x^2-1}{x-1}", "x+1"),
    (r"\frac{3\pi}{4}", r"0.75\pi + 1"),
    (r"\sqrt{2}", "1.5"),
    (r"2\sqrt[3]{5} - 1", r"-1 + 5^{1/3} \cdot 2"),
    (r"\sin(2x) + \ln y", r"\cos x - e^{2y}"),
    (r"\left(\frac{1}{2}, -3\right)", "(0.5, 3)"),
    (r"\{1, 2\}", r"\{2, a\}"),
    ("2x + 3y = 5", "y = 3x - 2"),
    (r"x \le 4", r"(-\infty, 4]"),
    (r"\begin{pmatrix} 1 & x \\ 3 & 4 \end{pmatrix}", r"\begin{pmatrix} 1 & x \\ 3 & 5 \end{pmatrix}"),
)
"""Comparisons of the common kinds: what they import would be imported anew in each fork."""

_ANSWERS_PER_FORK = 32


class MathJudge:
    """Compares two answers."""

    evaluators = ()

    def __init__(self) -> None:
        for answer, solution in _WARM_UP:
            same_answer(answer, solution)

    def prepared(self, request: Reply) -> None:
        """Nothing is known before the answer is looked at."""

    def batch(self, request: Reply) -> Batch:
        """Answers to one question, as a fork costs about as much as two comparisons; not all of them, so that
        what its caches hold is bounded.
        """
        return Batch(request["solution"], _ANSWERS_PER_FORK)

    def judged(self, request: Reply) -> Reply:
        texts = request["answer"], request["solution"]
        converts = request.get("convert_units", True)
        if request.get("explain"):
            return explained(*texts, convert_units=converts)._asdict()
        same = same_answer(*texts, convert_units=converts)
        return {"verdict": Verdict.CORRECT if same else Verdict.WRONG}


def run(memory_bytes: int) -> None:
    """Compare answers."""
    serve(MathJudge, memory_bytes)
