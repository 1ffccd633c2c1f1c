"""Results as Markdown: a row for each model, then the details."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Results = Mapping[str, Any]
_NONE = "-"


def render(results: Sequence[Results]) -> str:
    """Tables of several models' results; the first one's is in detail."""
    first = results[0]
    parts = [_table(_overview(results)), _NOTE, _settings(first), _table(_details(first))]
    return "\n".join(parts)


_NOTE = """\
In percent; pass@1 is the mean over a problem's samples, ± half of a 95 % interval (bootstrap over problems).
Answers whose check took too long or broke are not counted as right; how many they are stands below.
"""


def _overview(results: Sequence[Results]) -> Iterator[list[str]]:
    """Greedy accuracy and pass@1 by benchmark."""
    titles = {name: of["title"] for result in results for name, of in result["benchmarks"].items()}
    columns = [(name, which) for name in titles for which in ("greedy", "pass@1")]
    yield ["model", *(f"{titles[name]} {which}" for name, which in columns)]
    for result in results:
        found = [result["benchmarks"].get(name, {}).get("accuracy", {}).get(which) for name, which in columns]
        yield [result["name"], *(_percent(value) for value in found)]


def _percent(accuracy: Mapping[str, float] | None) -> str:
    if accuracy is None:
        return _NONE
    return f"{100 * accuracy['mean']:.1f} ± {50 * (accuracy['high'] - accuracy['low']):.1f}"


def _settings(result: Results) -> str:
    settings = ", ".join(f"{key} {value}" for key, value in result["settings"].items())
    return f"{result['name']}: {settings}.\n"


def _details(result: Results) -> Iterator[list[str]]:
    """Two rows a benchmark: of its greedy answers, and of its samples."""
    benchmarks = result["benchmarks"].values()
    more = [name for name in next(iter(benchmarks))["accuracy"] if name not in ("greedy", "pass@1")]
    verdicts = list(next(iter(benchmarks))["greedy"]["verdicts"])
    lengths = ("tokens", "tokens_right", "tokens_not_right")
    words = [name.replace("_", " ") for name in (*lengths, "truncated", *verdicts)]
    yield ["benchmark", "answers", "problems", "right, 95 % interval", *more, *words]
    for benchmark in benchmarks:
        for how, which in (("greedy", "greedy"), ("samples", "pass@1")):
            if of := benchmark.get(how):
                yield [
                    benchmark["title"],
                    "greedy" if how == "greedy" else f"{benchmark['num_samples']} samples",
                    str(benchmark["num_problems"]),
                    _interval(benchmark["accuracy"][which]),
                    *(_percent(benchmark["accuracy"][name] if how == "samples" else None) for name in more),
                    *(_NONE if of[name] is None else f"{of[name]:.0f}" for name in lengths),
                    f"{100 * of['truncated']:.1f}",
                    *(str(of["verdicts"][verdict]) for verdict in verdicts),
                ]


def _interval(accuracy: Mapping[str, float]) -> str:
    mean, low, high = (100 * accuracy[key] for key in ("mean", "low", "high"))
    return f"{mean:.1f} [{low:.1f}, {high:.1f}]"


def _table(rows: Iterator[list[str]]) -> str:
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
