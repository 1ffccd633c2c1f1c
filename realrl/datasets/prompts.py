"""Problems with checkable answers, from a file or made on the spot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from torch import Tensor

from realrl.api.data import DataConfig
from realrl.datasets.encode import EncodedRows
from realrl.datasets.messages import words_of
from realrl.datasets.records import Row, read_rows
from realrl.rewards.gym import GymItem

EXAMPLE = '{"query_id": "1", "prompt": "What is 1 + 1?", "solutions": ["2"]}'


class Problem(Row):
    """A question and the answers that are right, in AReaL's schema."""

    solutions: list[str] | None = None
    """None only in a file whose solutions stand in one of their own."""
    gym: GymItem | None = None
    """For a row of reasoning-gym, what scores answers to it."""


class _Info(msgspec.Struct):
    """What a file of solutions has under a `query_id`."""

    solutions: list[str]


class PromptDataset(EncodedRows[Problem]):
    """Problems by row; a `realrl.api.recipe.Dataset` with the key `prompts`."""

    def length(self, row: int) -> int:
        """Tokens of the prompt."""
        return len(self.prompts[row])

    def tensors(self, row: int) -> dict[str, Tensor]:
        return {"prompts": self.prompts[row]}

    def prompt(self, row: int) -> str:
        """The question, without any template."""
        return words_of(self.rows[row].prompt)

    def solutions(self, row: int) -> list[str]:
        return self.rows[row].solutions

    def gym(self, row: int) -> GymItem | None:
        """What scores answers to a row of reasoning-gym."""
        return self.rows[row].gym


def load_prompts(
    data: DataConfig, tokenizer: Any, *, needs_solutions: bool = True
) -> tuple[PromptDataset, PromptDataset | None]:
    """Training rows and held-out rows, if there are any, of `data`.

    Raises:
        ValueError: a source that cannot be read, a bad row, by its place, or one without solutions, where
            these are needed.
    """

    def load(held_out: bool) -> PromptDataset:
        rows = load_problems(data, held_out=held_out, needs_solutions=needs_solutions)
        return PromptDataset(rows, tokenizer, data, held_out=held_out)

    return load(False), load(True) if data.held_out_path else None


def load_questions(data: DataConfig, tokenizer: Any) -> PromptDataset:
    """The rows of `data.path` alone; those without solutions have an empty list of them."""
    rows = load_problems(data, held_out=False, needs_solutions=False)
    return PromptDataset(rows, tokenizer, data, held_out=False)


def load_problems(data: DataConfig, *, held_out: bool, needs_solutions: bool = True) -> list[Problem]:
    """The rows of one side of `load_prompts`, too long ones among them. Without `needs_solutions`, a row may
    have none.
    """
    rows = read_rows(data, Problem, EXAMPLE, held_out=held_out)
    info = _read_info(data.solutions_path) if data.solutions_path else {}
    for row in rows:
        found = _solutions(row, info)
        row.solutions = _required(row, found) if needs_solutions else found or []
    return rows


def _read_info(path: str) -> dict[str, _Info]:
    try:
        return msgspec.json.decode(Path(path).expanduser().read_bytes(), type=dict[str, _Info])
    except (OSError, ValueError) as error:  # msgspec's errors are ValueErrors
        raise ValueError(
            f"data.solutions_path: {path!r}: cannot read solutions ({error}); expected a JSON file like"
            ' {"1": {"solutions": ["2"]}}'
        ) from None


def _solutions(row: Problem, info: Mapping[str, _Info]) -> list[str] | None:
    if row.solutions is None and row.query_id in info:
        return info[row.query_id].solutions
    return row.solutions


def _required(row: Problem, solutions: list[str] | None) -> list[str]:
    if solutions or row.gym:
        return solutions
    if solutions is None:
        raise ValueError(
            f"{row.place}: no `solutions`, here or in data.solutions_path; expected a line like {EXAMPLE}"
        )
    raise ValueError(f"{row.place}: `solutions` is empty; expected a line like {EXAMPLE}")
