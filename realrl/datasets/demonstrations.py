"""Prompts with responses to learn, for supervised fine-tuning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor
from typing_extensions import Self

from realrl.api.data import DataPart
from realrl.api.traits import ReadingData
from realrl.datasets.encode import EncodedRows
from realrl.datasets.fields import QUESTIONS, RESPONSES, Names
from realrl.datasets.records import Row, read_rows
from realrl.datasets.responses import response_or_solution
from realrl.datasets.sides import check_no_rewards, load_sides
from realrl.datasets.sources import names_key
from realrl.datasets.turns import earlier_turns

EXAMPLE = '{"prompt": "What is 1 + 1?", "response": "2"}'


class Demonstration(Row):
    """A prompt and the response to learn; without a response, its first solution is learned, in a box."""

    NAMES: ClassVar[Names] = {"response": RESPONSES, "prompt": QUESTIONS}

    response: str = ""
    solutions: list[str] = []
    verdict: Any = None
    """The verdict of a check of a generated response."""
    ended: Any = None
    """False: the response was generated and cut off."""

    @property
    def is_cut_off(self) -> bool:
        """Whether the response was cut off."""
        return self.ended is False


class DemonstrationDataset(EncodedRows[Demonstration]):
    """Demonstrations by row; a `realrl.api.recipe.Dataset` with the keys `input_ids` and `loss_mask`.

    The token that ends a response is learned with it, unless the response was cut off.
    """

    def __init__(
        self,
        rows: Sequence[Demonstration],
        tokenizer: Any,
        part: DataPart,
        *,
        held_out: bool,
        notes: Sequence[str] = (),
        turns: Literal["last", "all"] = "last",
    ) -> None:
        """Encode the demonstrations; with `turns="all"`, an assistant's earlier turns are learned, too.

        Raises:
            ValueError: as `EncodedRows` and `earlier_turns`; or a row with neither a response nor solutions.
        """
        super().__init__(
            rows,
            tokenizer,
            part,
            held_out=held_out,
            notes=notes,
            responses=(_response,),
        )
        self._tensors: list[dict[str, Tensor]] = []
        masks: Sequence[Tensor | None] = [None] * len(self.rows)
        if turns == "all":
            masks = earlier_turns(self.rows, self.prompts, tokenizer, part)
        for row, prompt, mask, responses in zip(self.rows, self.prompts, masks, self.responses, strict=True):
            (learned,) = responses
            if row.is_cut_off:
                # Such a response did not end here: its end token is not learned.
                learned = learned[:-1]
            tensors = _with_mask(prompt, learned)
            if mask is not None:
                tensors["loss_mask"][: len(prompt)] = mask
            self._tensors.append(tensors)

    def append(self, other: Self) -> None:
        """Append the rows of another data set; notes and sets stay as they are."""
        super().append(other)
        self._tensors += other._tensors

    def length(self, row: int) -> int:
        """Return the number of tokens of prompt and response."""
        return len(self._tensors[row]["input_ids"])

    def tensors(self, row: int) -> dict[str, Tensor]:
        """Return the tokens of prompt and response, and the mask of the tokens to learn.

        Shapes: `input_ids` int64 `[T]`, `loss_mask` bool `[T]`.
        """
        return self._tensors[row]


class LearnsFromRows(ReadingData, Protocol):
    """A config that says which rows are learned from."""

    @property
    def verdicts(self) -> tuple[str, ...]:
        """The verdicts that a row may have, if it has one; empty: whatever the verdict."""

    @property
    def truncated(self) -> Literal["drop", "learn"]:
        """Whether responses that were cut off are learned from."""

    @property
    def turns(self) -> Literal["last", "all"]:
        """Which of an assistant's turns are learned."""


def load_demonstrations(
    config: LearnsFromRows, tokenizer: Any
) -> tuple[DemonstrationDataset, DemonstrationDataset | None]:
    """Return the training rows of `config.data`, and its held-out rows or None.

    `config.verdicts` and `config.truncated` select the rows to learn from.

    Raises:
        ValueError: a source that cannot be read, a bad row (the message names its place), or no row left.
    """
    check_no_rewards(config.data)

    def load(part: DataPart, held_out: bool) -> DemonstrationDataset:
        with names_key(part, held_out=held_out):
            rows, notes = read_rows(part, Demonstration, EXAMPLE, held_out=held_out)
            rows = _fit_to_learn(rows, notes, config)
            return DemonstrationDataset(
                rows, tokenizer, part, held_out=held_out, notes=notes, turns=config.turns
            )

    return load_sides(config.data, tokenizer, load)


def _fit_to_learn(rows: list[Demonstration], notes: list[str], config: LearnsFromRows) -> list[Demonstration]:
    """Drop responses with other verdicts and those cut off, as the config says; append to `notes`."""
    verdicts = config.verdicts
    if verdicts:
        wanted = " or ".join(verdicts)
        what = f"responses, whose `verdict` is not {wanted} (verdicts)"
        rows = _kept(rows, lambda row: _has_verdict(row, verdicts), notes, what)
    if config.truncated == "drop":
        what = "responses, which were cut off (`ended: false`; truncated=drop)"
        rows = _kept(rows, lambda row: not row.is_cut_off, notes, what)
    return rows


def _has_verdict(row: Demonstration, verdicts: Sequence[str]) -> bool:
    """Return whether the row's verdict is one of these; a row without a verdict passes."""
    return row.verdict is None or str(row.verdict) in verdicts


def _kept(
    rows: list[Demonstration],
    is_kept: Callable[[Demonstration], bool],
    notes: list[str],
    what: str,
) -> list[Demonstration]:
    """Return the rows to keep, and append a note on the others.

    Raises:
        ValueError: no rows are left.
    """
    kept: list[Demonstration] = []
    dropped: list[Demonstration] = []
    for row in rows:
        if is_kept(row):
            kept.append(row)
        else:
            dropped.append(row)
    if dropped:
        counts = f"{len(dropped)} of {len(rows)}"
        notes.append(f"dropped {counts} {what}; the first is {dropped[0].place}")
    if not kept:
        raise ValueError(f"data: no rows are left; {notes[-1]}")
    return kept


def _response(row: Demonstration) -> str:
    """Return the response to learn."""
    return response_or_solution(row.response, row.solutions, row.place, EXAMPLE)


def _with_mask(prompt: Tensor, response: list[int]) -> dict[str, Tensor]:
    """Return a row's tensors; only the response is learned.

    Shapes: `prompt` int64 `[P]`; returns `[P + R]` each.
    """
    learned = torch.tensor(response)
    input_ids = torch.cat([prompt, learned])
    positions = torch.arange(len(input_ids))
    loss_mask = positions >= len(prompt)
    return {"input_ids": input_ids, "loss_mask": loss_mask}
