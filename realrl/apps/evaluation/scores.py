"""The scores of the answers to a benchmark."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from realrl.algorithms.pass_at_k import mean_intervals, pass_at_k, powers_of_two
from realrl.rewards.verdict import Verdict

Answers = list[dict[str, Any]]
_OF_ANSWER = ("verdict", "answer", "num_tokens", "ended", "response")


def problems_of(records: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield one object for each problem, from records of single answers in order, as `gen` writes them."""
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
    """Return all numbers of a benchmark: accuracies with their intervals, lengths, verdicts."""
    greedy = [problem["greedy"] for problem in problems]
    samples: Answers = []
    for problem in problems:
        samples += problem["samples"]
    found = {
        "num_problems": len(problems),
        "num_samples": len(problems[0]["samples"]),
        "accuracy": _accuracies(problems),
        "greedy": _described(greedy),
    }
    if samples:
        found["samples"] = _described(samples)
    return found


def _accuracies(problems: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Return means over problems, each with its 95 % interval: of greedy answers, and pass@k of samples.

    An answer that could not be checked does not count as right.
    """
    num_samples = len(problems[0]["samples"])
    greedy = []
    num_right = []
    for problem in problems:
        greedy.append(float(_is_right(problem["greedy"])))
        num_right.append(_count_right(problem["samples"]))
    columns = {"greedy": greedy}
    for k in powers_of_two(num_samples):
        columns[f"pass@{k}"] = [pass_at_k(num_samples, number, k) for number in num_right]

    return {name: interval._asdict() for name, interval in mean_intervals(columns).items()}


def _described(answers: Answers) -> dict[str, Any]:
    """Return mean lengths, the truncated fraction, and the number of answers by verdict."""
    counts = Counter(answer["verdict"] for answer in answers)
    right: Answers = []
    others: Answers = []
    num_truncated = 0
    for answer in answers:
        if _is_right(answer):
            right.append(answer)
        else:
            others.append(answer)
        if not answer["ended"]:
            num_truncated += 1
    return {
        "tokens": _mean_tokens(answers),
        "tokens_right": _mean_tokens(right),
        "tokens_not_right": _mean_tokens(others),
        "truncated": num_truncated / len(answers),
        "verdicts": {verdict.value: counts[verdict.value] for verdict in Verdict},
    }


def _is_right(answer: Mapping[str, Any]) -> bool:
    """Return whether an answer was found to be right."""
    right = Verdict.CORRECT.value
    return answer["verdict"] == right


def _count_right(answers: Answers) -> int:
    """Return how many answers are right."""
    return sum(map(_is_right, answers))


def _mean_tokens(answers: Answers) -> float | None:
    """Return the mean length of answers, or None without any."""
    if not answers:
        return None
    lengths = [answer["num_tokens"] for answer in answers]
    return sum(lengths) / len(lengths)
