"""Compares mathematical answers in a child process, over the protocol of `realrl/rewards/serving.py`.

    request                                             reply, or {"error": str}
    {"answer": …, "solution": …}                        {"verdict": …}
    {"answer": …, "solution": …, "explain": true}       {"answer": …, "solution": …, "why": …}

The second reply says how both texts were read, and why they are the same or not. A request may have the
settings of `realrl.verifier.leniency` that are not the usual ones: `"leniency": {"convert_units": false}`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from realrl.rewards.judging import Batch, Reply
from realrl.rewards.serving import serve
from realrl.rewards.verdict import Verdict
from realrl.verifier.explaining import explained
from realrl.verifier.leniency import Leniency
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
"""Comparisons of the common kinds. Without them, each fork would import and cache what these need."""

_ANSWERS_PER_FORK = 32
"""Answers to one question that share a fork: it costs as much as two comparisons, and its caches grow."""


class MathJudge:
    """Compares answers with solutions; a `realrl.rewards.judging.Judge`."""

    evaluators: Sequence[Callable[..., object]] = ()

    def __init__(self) -> None:
        for answer, solution in _WARM_UP:
            same_answer(answer, solution)

    def prepared(self, request: Reply) -> None:
        """Return None: every request has an answer to judge."""

    def batch(self, request: Reply) -> Batch:
        """Return a batch of answers to one question."""
        return Batch(request["solution"], _ANSWERS_PER_FORK)

    def judged(self, request: Reply) -> Reply:
        """Return the verdict of a comparison, or the reasons for it."""
        answer = request["answer"]
        solution = request["solution"]
        leniency = Leniency(**request.get("leniency", {}))
        if request.get("explain"):
            return explained(answer, solution, leniency)._asdict()
        is_same = same_answer(answer, solution, leniency)
        return {"verdict": Verdict.CORRECT if is_same else Verdict.WRONG}


def run(memory_bytes: int) -> None:
    """Serve requests for comparisons."""
    serve(MathJudge, memory_bytes)
