"""Prompts with the responses to learn, for supervised fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import torch
from torch import Tensor

from realrl.datasets.encode import encode_prompts, end_of_sequence
from realrl.datasets.jsonl import read_jsonl
from realrl.datasets.sums import SUMS, sums

EXAMPLE = '{"prompt": "What is 1 + 1?", "response": "2"}'


class DemonstrationLine(msgspec.Struct):
    """A line of a demonstration file; a problem's line serves too, and its first solution is the response."""

    prompt: str
    response: str = ""
    solutions: list[str] = []


@dataclass(frozen=True)
class Demonstration:
    """What is asked and what to answer."""

    prompt: str
    response: str
    place: str
    """Where it comes from, as `file:line`."""


class DemonstrationDataset:
    """Demonstrations by row; a `realrl.api.recipe.Dataset` with the keys `input_ids` and `loss_mask`.

    The end-of-sequence token ends each response and is learned with it.
    """

    def __init__(
        self, rows: Sequence[Demonstration], tokenizer: Any, *, max_prompt_tokens: int, chat: bool
    ) -> None:
        end = end_of_sequence(tokenizer)
        self._places = [row.place for row in rows]
        prompts = encode_prompts(
            [row.prompt for row in rows],
            self._places,
            tokenizer,
            chat=chat,
            max_prompt_tokens=max_prompt_tokens,
        )
        responses = tokenizer([row.response for row in rows], add_special_tokens=False)["input_ids"]
        self._rows = [
            _with_mask(prompt, [*response, end]) for prompt, response in zip(prompts, responses, strict=True)
        ]

    def __len__(self) -> int:
        return len(self._rows)

    def length(self, row: int) -> int:
        """Tokens of prompt and response."""
        return len(self._rows[row]["input_ids"])

    def place(self, row: int) -> str:
        """Where the row comes from, as `file:line`."""
        return self._places[row]

    def tensors(self, row: int) -> dict[str, Tensor]:
        return self._rows[row]


def load_demonstrations(
    config: Any, tokenizer: Any
) -> tuple[DemonstrationDataset, DemonstrationDataset | None]:
    """Training rows and held-out rows that `config.data` (a `DataConfig`) names: JSONL files, or `sums`.

    Raises:
        ValueError: a missing or empty file, or a bad line, by its `file:line`.
    """
    data = config.data

    def load(path: str, held_out: bool) -> DemonstrationDataset:
        rows = _rows(path, held_out=held_out)
        return DemonstrationDataset(rows, tokenizer, max_prompt_tokens=data.max_prompt_tokens, chat=data.chat)

    return load(data.path, False), load(data.held_out_path, True) if data.held_out_path else None


def _rows(path: str, *, held_out: bool) -> list[Demonstration]:
    if path == SUMS:
        rows = sums(held_out=held_out)
        return [Demonstration(row.prompt, row.solution, f"{SUMS}: {row.a} + {row.b}") for row in rows]
    return [
        Demonstration(line.prompt, _response(line, place), place)
        for place, line in read_jsonl(path, DemonstrationLine, EXAMPLE, held_out=held_out)
    ]


def _response(line: DemonstrationLine, place: str) -> str:
    if line.response:
        return line.response
    if line.solutions:
        return f"\\boxed{{{line.solutions[0]}}}"
    raise ValueError(f"{place}: neither `response` nor `solutions`; expected a line like {EXAMPLE}")


def _with_mask(prompt: Tensor, response: list[int]) -> dict[str, Tensor]:
    input_ids = torch.cat([prompt, torch.tensor(response)])
    return {"input_ids": input_ids, "loss_mask": torch.arange(len(input_ids)) >= len(prompt)}
