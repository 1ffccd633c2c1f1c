"""Prompts with the responses to learn, for supervised fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from realrl.api.data import DataConfig
from realrl.datasets.encode import EncodedRows
from realrl.datasets.fields import QUESTIONS, RESPONSES, Names
from realrl.datasets.records import Row, read_rows

EXAMPLE = '{"prompt": "What is 1 + 1?", "response": "2"}'


class Demonstration(Row):
    """What is asked and what to answer; a problem serves too, and its first solution is the response."""

    NAMES: ClassVar[Names] = {"response": RESPONSES, "prompt": QUESTIONS}

    response: str = ""
    solutions: list[str] = []


class DemonstrationDataset(EncodedRows[Demonstration]):
    """Demonstrations by row; a `realrl.api.recipe.Dataset` with the keys `input_ids` and `loss_mask`.

    The end-of-sequence token ends each response and is learned with it.
    """

    def __init__(
        self,
        rows: Sequence[Demonstration],
        tokenizer: Any,
        data: DataConfig,
        *,
        held_out: bool,
        notes: Sequence[str] = (),
    ) -> None:
        super().__init__(rows, tokenizer, data, held_out=held_out, notes=notes, responses=(_response,))
        self._tensors = [
            _with_mask(prompt, response)
            for prompt, (response,) in zip(self.prompts, self.responses, strict=True)
        ]

    def length(self, row: int) -> int:
        """Tokens of prompt and response."""
        return len(self._tensors[row]["input_ids"])

    def tensors(self, row: int) -> dict[str, Tensor]:
        return self._tensors[row]


def load_demonstrations(
    config: Any, tokenizer: Any
) -> tuple[DemonstrationDataset, DemonstrationDataset | None]:
    """Training rows and held-out rows, if there are any, of `config.data` (a `DataConfig`).

    Raises:
        ValueError: a source that cannot be read, or a bad row, by its place.
    """
    data = config.data

    def load(held_out: bool) -> DemonstrationDataset:
        rows, notes = read_rows(data, Demonstration, EXAMPLE, held_out=held_out)
        return DemonstrationDataset(rows, tokenizer, data, held_out=held_out, notes=notes)

    return load(False), load(True) if data.held_out_path else None


def _response(row: Demonstration) -> str:
    if row.response:
        return row.response
    if solution := next((solution for solution in row.solutions if solution.strip()), ""):
        return f"\\boxed{{{solution}}}"
    raise ValueError(f"{row.place}: neither `response` nor `solutions`; expected a line like {EXAMPLE}")


def _with_mask(prompt: Tensor, response: list[int]) -> dict[str, Tensor]:
    input_ids = torch.cat([prompt, torch.tensor(response)])
    return {"input_ids": input_ids, "loss_mask": torch.arange(len(input_ids)) >= len(prompt)}
