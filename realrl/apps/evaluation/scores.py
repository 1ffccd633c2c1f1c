"""What the answers to a benchmark come to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from realrl.algorithms.pass_at_k import bootstrap_intervals, pass_at_k, powers_of_two
from realrl.rewards.verdict import Verdict

Answers = list[dict[str, Any]]
_OF_ANSWER = ("verdict", "answer", "num_tokens", "ended", "response")


def problems_of(records: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """A line for each problem out of one for each answer, as `gen` writes them, in order."""
    problem: dict[str, Any] = {}
    for record in records:
        if record["sample"] == 0:
            if problem:
                yield problem
            problem = {key: record[key] for key in ("query_id", "prompt", "solutions")}
            problem |= {"greedy": None, "samples": []}
        answer = {key: record[key] for key in _OF_ANSWER}
        if record["greedy"]:
            problem["greedy"] = answer
        else:
            problem["samples"].append(answer)
    if problem:
        yield problem


def score(problems: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Every number of a benchmark: accuracies with their intervals, lengths, verdicts."""
    greedy = [problem["greedy"] for problem in problems]
    samples = [answer for problem in problems for answer in problem["samples"]]
    return {
        "num_problems": len(problems),
        "num_samples": len(problems[0]["samples"]),
        "accuracy": _accuracies(problems),
        "greedy": _described(greedy),
        **({"samples": _described(samples)} if samples else {}),
    }


def _accuracies(problems: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Means over problems, each with its 95 % interval: of greedy answers, and pass@k of samples.

    An answer that could not be checked is not taken for right.
    """
    num_samples = len(problems[0]["samples"])
    columns = {"greedy": [float(_is_right(problem["greedy"])) for problem in problems]}
    num_right = [sum(map(_is_right, problem["samples"])) for problem in problems]
    for k in powers_of_two(num_samples):
        columns[f"pass@{k}"] = [pass_at_k(num_samples, number, k) for number in num_right]
    values = np.array(list(columns.values())).T
    means = values.mean(axis=0)
    lows, highs = bootstrap_intervals(values)
    accuracies = {}
    for index, name in enumerate(columns):
        accuracies[name] = {
            "mean": float(means[index]),
            "low": float(lows[index]),
            "high": float(highs[index]),
        }
    return accuracies


def _described(answers: Answers) -> dict[str, Any]:
    verdicts = Counter(answer["verdict"] for answer in answers)
    right, others = ([a for a in answers if _is_right(a) == which] for which in (True, False))
    return {
        "tokens": _mean_tokens(answers),
        "tokens_right": _mean_tokens(right),
        "tokens_not_right": _mean_tokens(others),
        "truncated": sum(not answer["ended"] for answer in answers) / len(answers),
        "verdicts": {verdict.value: verdicts[verdict.value] for verdict in Verdict},
    }


def _is_right(answer: Mapping[str, Any]) -> bool:
    return answer["verdict"] == Verdict.CORRECT.value


def _mean_tokens(answers: Answers) -> float | None:
    """None for those of no answers."""
    return sum(answer["num_tokens"] for answer in answers) / len(answers) if answers else None
