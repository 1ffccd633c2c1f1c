"""Prompts with the responses to learn, for supervised fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from realrl.api.data import DataConfig
from realrl.datasets.encode import EncodedRows
from realrl.datasets.fields import QUESTIONS, RESPONSES, Names
from realrl.datasets.records import Row, names_key, read_rows

EXAMPLE = '{"prompt": "What is 1 + 1?", "response": "2"}'


class Demonstration(Row):
    """What is asked and what to answer; a problem serves too, and its first solution is the response."""

    NAMES: ClassVar[Names] = {"response": RESPONSES, "prompt": QUESTIONS}

    response: str = ""
    solutions: list[str] = []
    verdict: Any = None
    """What a check said of the response, if it was generated."""
    ended: Any = None
    """False for a generated response that was cut off."""

    @property
    def is_cut_off(self) -> bool:
        return self.ended is False


class DemonstrationDataset(EncodedRows[Demonstration]):
    """Demonstrations by row; a `realrl.api.recipe.Dataset` with the keys `input_ids` and `loss_mask`.

    The token that ends a response is learned with it, unless the response was cut off.
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
            _with_mask(prompt, response[:-1] if row.is_cut_off else response)
            for row, prompt, (response,) in zip(self.rows, self.prompts, self.responses, strict=True)
        ]

    def length(self, row: int) -> int:
        """Tokens of prompt and response."""
        return len(self._tensors[row]["input_ids"])

    def tensors(self, row: int) -> dict[str, Tensor]:
        return self._tensors[row]


def load_demonstrations(
    config: Any, tokenizer: Any
) -> tuple[DemonstrationDataset, DemonstrationDataset | None]:
    """Training rows and held-out rows, if there are any, of `config.data` (a `DataConfig`), as far as
    `config.verdicts` and `config.truncated` let them be learned from.

    Raises:
        ValueError: a source that cannot be read, a bad row, by its place, or no row to learn from.
    """
    data = config.data

    def load(held_out: bool) -> DemonstrationDataset:
        with names_key(data, held_out=held_out):
            rows, notes = read_rows(data, Demonstration, EXAMPLE, held_out=held_out)
            rows = _fit_to_learn(rows, notes, config)
            return DemonstrationDataset(rows, tokenizer, data, held_out=held_out, notes=notes)

    return load(False), load(True) if data.held_out_path else None


def _fit_to_learn(rows: list[Demonstration], notes: list[str], config: Any) -> list[Demonstration]:
    """Leave out what is known to be wrong or cut off, as the config says, and add to the notes how many."""
    if config.verdicts:
        wanted = " or ".join(config.verdicts)
        is_right = [row.verdict is None or str(row.verdict) in config.verdicts for row in rows]
        rows = _kept(rows, is_right, notes, f"responses, whose `verdict` is not {wanted} (verdicts)")
    if config.truncated == "drop":
        is_whole = [not row.is_cut_off for row in rows]
        rows = _kept(rows, is_whole, notes, "responses, which were cut off (`ended: false`; truncated=drop)")
    return rows


def _kept(rows: list[Demonstration], keeps: list[bool], notes: list[str], what: str) -> list[Demonstration]:
    dropped = [row for row, keep in zip(rows, keeps) if not keep]
    if dropped:
        notes.append(f"dropped {len(dropped)} of {len(rows)} {what}; the first is {dropped[0].place}")
    if len(dropped) == len(rows):
        raise ValueError(f"data: no rows are left; {notes[-1]}")
    return [row for row, keep in zip(rows, keeps) if keep]


def _response(row: Demonstration) -> str:
    if row.response:
        return row.response
    if solution := next((solution for solution in row.solutions if solution.strip()), ""):
        return f"\\boxed{{{solution}}}"
    raise ValueError(f"{row.place}: neither `response` nor `solutions`; expected a line like {EXAMPLE}")


def _with_mask(prompt: Tensor, response: list[int]) -> dict[str, Tensor]:
    input_ids = torch.cat([prompt, torch.tensor(response)])
    return {"input_ids": input_ids, "loss_mask": torch.arange(len(input_ids)) >= len(prompt)}
