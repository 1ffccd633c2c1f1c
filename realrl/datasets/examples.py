"""Solved examples that prompts begin with (few-shot)."""

from __future__ import annotations

from typing import ClassVar

from realrl.api.data import DataPart
from realrl.datasets.conversations import words_of
from realrl.datasets.fields import QUESTIONS, RESPONSES, Names
from realrl.datasets.records import Row, read_examples
from realrl.datasets.responses import response_or_solution

EXAMPLE = '{"prompt": "What is 1 + 1?", "response": "2"}'


class Example(Row):
    """A question and its response; without a response, its first solution, in a box."""

    NAMES: ClassVar[Names] = {"response": RESPONSES, "prompt": QUESTIONS}

    response: str = ""
    solutions: list[str] = []


def load_examples(part: DataPart) -> list[Example]:
    """Return the examples that `part` names, with their responses; none if it names none.

    Raises:
        ValueError: a file that cannot be read, a bad row, or fewer rows than its `num_examples`.
    """
    data = part.data
    if not data.examples:
        return []
    rows, _ = read_examples(part, Example, EXAMPLE)
    number = len(rows) if data.num_examples is None else data.num_examples
    if number > len(rows):
        raise ValueError(
            f"{part.section}.num_examples: {number} are wanted, and {data.examples} has {len(rows)}; give"
            " fewer"
        )
    chosen = rows[:number]
    for row in chosen:
        row.response = response_or_solution(row.response, row.solutions, row.place, EXAMPLE)
    return chosen


def question_text(row: Row) -> str:
    """Return a row's question as it is compared with others."""
    return words_of(row.prompt).strip()
