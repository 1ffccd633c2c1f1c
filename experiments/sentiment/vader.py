"""VADER's opinion of a continuation: the reward of the sentiment experiments, and the maker of their files.

Source: Hutto & Gilbert 2014, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media
    Text". Needs the package vaderSentiment.

python experiments/sentiment/vader.py prompts FOLDER                    # prompts.jsonl and held-out.jsonl
python experiments/sentiment/vader.py learn GENERATIONS.jsonl FOLDER    # shown.jsonl and pairs.jsonl
python experiments/sentiment/vader.py score GENERATIONS.jsonl           # its mean, and the standard error
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from statistics import mean, stdev

SUBJECTS = (
    "The film",
    "My new phone",
    "The hotel room",
    "Our holiday",
    "The meeting",
    "Her first book",
    "The weather today",
    "The soup",
    "His old car",
    "The concert",
    "This city",
    "The new teacher",
)
BEGINNINGS = ("was", "made me feel", "turned out to be", "is something that")
NUM_HELD_OUT = 8


def compound(prompt: str, response: str, solutions: Sequence[str]) -> float:
    """From -1, all negative, to 1, all positive."""
    return _analyzer().polarity_scores(response)["compound"]


@cache
def _analyzer():
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()


def write_prompts(folder: Path) -> None:
    """Every beginning of every subject, the last ones held out."""
    rows = [{"prompt": f"{subject} {beginning}"} for beginning in BEGINNINGS for subject in SUBJECTS]
    _write(folder / "prompts.jsonl", rows[:-NUM_HELD_OUT])
    _write(folder / "held-out.jsonl", rows[-NUM_HELD_OUT:])


def write_lessons(generations: Path, folder: Path) -> None:
    """Of a model's own continuations: all of them as demonstrations; as pairs, of each prompt the best one
    beside the worst, the second best beside the second worst, and so on.
    """
    by_prompt: dict[str, list[dict]] = defaultdict(list)
    for line in generations.read_text().splitlines():
        row = json.loads(line)
        by_prompt[row["prompt"]].append(row)
    rows = [{"prompt": r["prompt"], "response": r["response"]} for same in by_prompt.values() for r in same]
    _write(folder / "shown.jsonl", rows)
    _write(folder / "pairs.jsonl", (pair for same in by_prompt.values() for pair in _pairs(same)))


def mean_opinion(generations: Path) -> str:
    responses = [json.loads(line)["response"] for line in generations.read_text().splitlines()]
    opinions = [compound("", response, ()) for response in responses]
    error = stdev(opinions) / len(opinions) ** 0.5
    return f"{mean(opinions):.3f} +- {error:.3f} over {len(opinions)} responses"


def _pairs(rows: list[dict]) -> Iterable[dict]:
    ranked = sorted(rows, key=lambda row: compound("", row["response"], ()), reverse=True)
    for better, worse in zip(ranked[: len(ranked) // 2], reversed(ranked)):
        if compound("", better["response"], ()) > compound("", worse["response"], ()):
            yield {"prompt": better["prompt"], "chosen": better["response"], "rejected": worse["response"]}


def _write(path: Path, rows: Iterable[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["prompts", folder]:
            write_prompts(Path(folder))
        case ["learn", generations, folder]:
            write_lessons(Path(generations), Path(folder))
        case ["score", generations]:
            print(mean_opinion(Path(generations)))
        case _:
            sys.exit(__doc__)
