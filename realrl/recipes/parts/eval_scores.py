"""What an evaluation on a named set reports of all answers together: avg@n, pass@k, maj@n, with intervals.

records of samples ──▶ groups of one problem ──▶ a number per problem and metric ──▶ means, 95 % intervals
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from realrl import algorithms
from realrl.api.evals import HELD_OUT, EvalConfig
from realrl.api.recipe import Criterion
from realrl.recipes.parts.config import PolicyConfig
from realrl.rewards.functions import GYM, MATH, weights_of
from realrl.rewards.verdict import Verdict

Answers = list[Mapping[str, Any]]
_RIGHT = ("right",)
"""The vote for the right answer, however it is written; no answer's own text is equal to it."""


def scores(config: PolicyConfig, eval_set: str, records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the scores of a set; none of the held-out rows, whose metrics are those of calls.

    Of the metric `avg@4`, `avg@4_low` and `avg@4_high` are the ends of the interval.
    """
    if eval_set == HELD_OUT or not records:
        return {}
    problems = _problems(records)
    if has_verdicts(config):
        columns = _accuracy_columns(config, config.evals[eval_set], problems)
    else:
        columns = {"reward": _mean_rewards(problems)}
    if not all(columns.values()):
        return {}
    found = {}
    for name, interval in algorithms.pass_at_k.mean_intervals(columns).items():
        found[name] = interval.mean
        found[f"{name}_low"] = interval.low
        found[f"{name}_high"] = interval.high
    return found


def criteria(config: PolicyConfig, eval_set: str) -> tuple[Criterion, ...]:
    """Return what may tell better weights from worse ones: right answers where they are known, and reward."""
    names = ["reward"]
    if eval_set == HELD_OUT:
        # A scorer that gives a part of its points says more by its rewards than by right answers alone.
        by_accuracy = ["greedy_accuracy"] if has_verdicts(config) else []
        is_by_verifier = MATH in weights_of(config.reward)
        names = by_accuracy + names if is_by_verifier else names + by_accuracy
    elif has_verdicts(config):
        names = accuracy_names(config.evals[eval_set]) + names
    return tuple(map(Criterion, names))


def accuracy_names(each: EvalConfig) -> list[str]:
    """Return the names of what a set's verdicts say, the main one first."""
    if each.is_greedy:
        return ["greedy_accuracy"]
    names = [f"avg@{each.n}"]
    names += [f"pass@{k}" for k in _several(each.n)]
    if each.n > 1:
        names.append(f"maj@{each.n}")
    return names


def has_verdicts(config: PolicyConfig) -> bool:
    """Return whether the verifier or a task's scorer says which answers are right."""
    return not {MATH, GYM}.isdisjoint(weights_of(config.reward))


def _several(n: int) -> list[int]:
    """Return the k of pass@k: powers of two, and n. With k = 1 it is avg@n."""
    return [k for k in algorithms.pass_at_k.powers_of_two(n) if k > 1]


def _problems(records: Iterable[Mapping[str, Any]]) -> list[Answers]:
    """Return the answers to each problem."""
    problems: dict[int, Answers] = {}
    for record in records:
        problems.setdefault(record["group"], []).append(record)
    return list(problems.values())


def _accuracy_columns(
    config: PolicyConfig, each: EvalConfig, problems: Sequence[Answers]
) -> dict[str, list[float]]:
    """Return, for each metric, a number per problem. An answer that could not be checked is not right."""
    num_right = []
    for answers in problems:
        is_right = map(_is_right, answers)
        num_right.append(sum(is_right))
    shares = [number / each.n for number in num_right]
    if each.is_greedy:
        return {"greedy_accuracy": shares}
    columns = {f"avg@{each.n}": shares}
    for k in _several(each.n):
        columns[f"pass@{k}"] = [algorithms.pass_at_k.pass_at_k(each.n, number, k) for number in num_right]
    if each.n > 1:
        columns[f"maj@{each.n}"] = [
            algorithms.pass_at_k.majority(_votes(config, answers), _RIGHT) for answers in problems
        ]
    return columns


def _votes(config: PolicyConfig, answers: Answers) -> list[object]:
    """Return what each answer votes for: the right answer, its own text without spaces, or nothing.

    Right answers are equal, since each is equal to a solution, however they are written.
    """
    votes: list[object] = []
    for answer in answers:
        is_cut_off = config.scores.truncated == "wrong" and not answer["ended"]
        text = answer.get("answer")
        if _is_right(answer):
            votes.append(_RIGHT)
        elif is_cut_off or text is None:
            votes.append(None)
        else:
            votes.append("".join(text.split()))
    return votes


def _mean_rewards(problems: Sequence[Answers]) -> list[float]:
    """Return the mean reward of each problem's answers, except problems of which none has a reward."""
    means = []
    for answers in problems:
        rewards = [answer["reward"] for answer in answers if answer["reward"] is not None]
        if rewards:
            means.append(sum(rewards) / len(rewards))
    return means


def _is_right(answer: Mapping[str, Any]) -> bool:
    return answer.get("verdict") == Verdict.CORRECT.value
