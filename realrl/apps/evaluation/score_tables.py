"""Writes results as Markdown: a table with a row for each model, then the details of the first one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Results = Mapping[str, Any]
_NONE = "-"
_LENGTHS = ("tokens", "tokens_right", "tokens_not_right")
_NOTE = """\
In percent; pass@1 is the mean over a problem's samples, ± half of a 95 % interval (bootstrap over problems).
Answers whose check took too long or broke are not counted as right; how many they are stands below.
"""


def render(results: Sequence[Results]) -> str:
    """Return the tables of several models' results."""
    first = results[0]
    parts = [
        _table(_overview(results)),
        _NOTE,
        _settings(first),
        _table(_details(first)),
    ]
    return "\n".join(parts)


def _overview(results: Sequence[Results]) -> Iterator[list[str]]:
    """Yield the head, then greedy accuracy and pass@1 on each benchmark, a row for each model."""
    titles = {}
    for result in results:
        for name, benchmark in result["benchmarks"].items():
            titles[name] = benchmark["title"]
    head = ["model"]
    for title in titles.values():
        head += [f"{title} greedy", f"{title} pass@1"]
    yield head
    for result in results:
        row = [result["name"]]
        for name in titles:
            benchmark = result["benchmarks"].get(name, {})
            accuracy = benchmark.get("accuracy", {})
            row.append(_percent(accuracy.get("greedy")))
            row.append(_percent(accuracy.get("pass@1")))
        yield row


def _percent(accuracy: Mapping[str, float] | None) -> str:
    """Return an accuracy in percent, with half of its interval."""
    if accuracy is None:
        return _NONE
    width = accuracy["high"] - accuracy["low"]
    mean = 100 * accuracy["mean"]
    return f"{mean:.1f} ± {50 * width:.1f}"


def _settings(result: Results) -> str:
    """Return a line with the settings of an evaluation."""
    words = [f"{key} {value}" for key, value in result["settings"].items()]
    settings = ", ".join(words)
    return f"{result['name']}: {settings}.\n"


def _details(result: Results) -> Iterator[list[str]]:
    """Yield the head, then two rows for each benchmark: its greedy answers, and its samples if any."""
    benchmarks = list(result["benchmarks"].values())
    first = benchmarks[0]
    more = [name for name in first["accuracy"] if name not in ("greedy", "pass@1")]
    verdicts = list(first["greedy"]["verdicts"])
    names = (*_LENGTHS, "truncated", *verdicts)
    yield [
        "benchmark",
        "answers",
        "problems",
        "right, 95 % interval",
        *more,
        *(name.replace("_", " ") for name in names),
    ]
    for benchmark in benchmarks:
        yield _row(benchmark, "greedy", "greedy", [_NONE] * len(more))
        if benchmark.get("samples"):
            passes = [_percent(benchmark["accuracy"][name]) for name in more]
            yield _row(benchmark, "samples", "pass@1", passes)


def _row(benchmark: Results, how: str, which: str, more: Sequence[str]) -> list[str]:
    """Return the row of a benchmark's answers.

    `how` names the answers, `which` their accuracy, `more` has further accuracies as text.
    """
    answers = benchmark[how]
    title = "greedy" if how == "greedy" else f"{benchmark['num_samples']} samples"
    truncated = 100 * answers["truncated"]
    return [
        benchmark["title"],
        title,
        str(benchmark["num_problems"]),
        _interval(benchmark["accuracy"][which]),
        *more,
        *(_number(answers[name]) for name in _LENGTHS),
        f"{truncated:.1f}",
        *map(str, answers["verdicts"].values()),
    ]


def _number(value: float | None) -> str:
    """Return a number without decimals."""
    if value is None:
        return _NONE
    return f"{value:.0f}"


def _interval(accuracy: Mapping[str, float]) -> str:
    """Return an accuracy in percent, with both ends of its interval."""
    mean = 100 * accuracy["mean"]
    low = 100 * accuracy["low"]
    high = 100 * accuracy["high"]
    return f"{mean:.1f} [{low:.1f}, {high:.1f}]"


def _table(rows: Iterator[list[str]]) -> str:
    """Return rows as a table, the first one as its head."""
    head, *body = rows
    rule = ["---"] * len(head)
    text = ""
    for row in (head, rule, *body):
        cells = " | ".join(row)
        text += f"| {cells} |\n"
    return text
