"""Problems with checkable answers, from a file or made on the spot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from torch import Tensor

from realrl.datasets.encode import encode_prompts
from realrl.datasets.jsonl import read_jsonl
from realrl.datasets.sums import SUMS, sums

EXAMPLE = '{"query_id": "1", "prompt": "What is 1 + 1?", "solutions": ["2"]}'


class ProblemLine(msgspec.Struct):
    """A line of a problem file, in AReaL's schema."""

    query_id: str
    prompt: str
    solutions: list[str]
    task: str = "math"


@dataclass(frozen=True)
class Problem:
    """A question and the answers that are right."""

    prompt: str
    solutions: list[str]
    place: str
    """Where it comes from, as `file:line`."""


class PromptDataset:
    """Problems by row, their prompts tokenized; a `realrl.api.recipe.Dataset` with the key `prompts`."""

    def __init__(
        self, rows: Sequence[Problem], tokenizer: Any, *, max_prompt_tokens: int, chat: bool
    ) -> None:
        self._rows = rows
        self._prompts = encode_prompts(
            [row.prompt for row in rows],
            [row.place for row in rows],
            tokenizer,
            chat=chat,
            max_prompt_tokens=max_prompt_tokens,
        )

    def __len__(self) -> int:
        return len(self._rows)

    def length(self, row: int) -> int:
        """Tokens of the prompt."""
        return len(self._prompts[row])

    def place(self, row: int) -> str:
        """Where the row comes from, as `file:line`."""
        return self._rows[row].place

    def tensors(self, row: int) -> dict[str, Tensor]:
        return {"prompts": self._prompts[row]}

    def prompt(self, row: int) -> str:
        """The question, without the chat template."""
        return self._rows[row].prompt

    def solutions(self, row: int) -> list[str]:
        return self._rows[row].solutions


def load_prompts(
    path: str, tokenizer: Any, *, max_prompt_tokens: int, chat: bool, eval: bool
) -> PromptDataset:
    """The problems of a JSONL file of `ProblemLine`, or one side of `sums`.

    Raises:
        ValueError: a missing or empty file, or a bad line, by its `file:line`.
    """
    rows = load_problems(path, held_out=eval)
    return PromptDataset(rows, tokenizer, max_prompt_tokens=max_prompt_tokens, chat=chat)


def load_problems(path: str, *, held_out: bool) -> list[Problem]:
    """The rows of `load_prompts`; `held_out` chooses the side of `sums`."""
    if path == SUMS:
        return [
            Problem(row.prompt, [row.solution], f"{SUMS}: {row.a} + {row.b}")
            for row in sums(held_out=held_out)
        ]
    lines = read_jsonl(path, ProblemLine, EXAMPLE, held_out=held_out)
    for place, line in lines:
        if not line.solutions:
            raise ValueError(f"{place}: `solutions` is empty; expected a line like {EXAMPLE}")
    return [Problem(line.prompt, line.solutions, place) for place, line in lines]
