"""Prompts with responses that are desirable or not, for KTO.

{prompt, response, label}    ──────────────────────────────▶ one row
{prompt, chosen, rejected}   ── unpaired ──▶ true, false ──▶ two rows
                                                              └─ each with a response to another prompt
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Any, ClassVar

import msgspec
import torch
from torch import Tensor
from typing_extensions import Self

from realrl.api.data import DataPart
from realrl.api.traits import ReadingData
from realrl.datasets.encode import EncodedRows
from realrl.datasets.fields import QUESTIONS, RESPONSES, Names
from realrl.datasets.pairs import TwoSequences, two_sequences
from realrl.datasets.records import Row, read_rows
from realrl.datasets.sides import check_no_rewards, load_sides
from realrl.datasets.sources import names_key
from realrl.datasets.tokens import decoder_of

EXAMPLE = '{"prompt": "What is 1 + 1?", "response": "2", "label": true}'
_WORDS = {"true": True, "false": False}
"""Labels as some files write them."""


class Labelled(Row):
    """A prompt with a response and its label, or with a desirable and an undesirable response."""

    NAMES: ClassVar[Names] = {"response": RESPONSES, "prompt": QUESTIONS}

    response: str = ""
    label: Any = None
    """Whether the response is desirable."""
    chosen: str | None = None
    rejected: str | None = None


class LabelledDataset(EncodedRows[Labelled]):
    """Labelled responses by row; a `realrl.api.recipe.Dataset`.

    Its keys are `input_ids`, `loss_mask`, `own_tokens` and `is_desirable`. A row's tensors hold two sequences
    end to end, which `pairs.sequences_of` separates: the prompt with its response, and the prompt with the
    response of an earlier row that has another prompt, cut to the model's context.
    """

    def __init__(
        self,
        rows: Sequence[Labelled],
        tokenizer: Any,
        part: DataPart,
        *,
        held_out: bool,
        notes: Sequence[str] = (),
    ) -> None:
        """Encode the responses.

        Raises:
            ValueError: as `EncodedRows`; or all rows have one prompt.
        """
        responses = (attrgetter("response"),)
        super().__init__(rows, tokenizer, part, held_out=held_out, notes=notes, responses=responses)
        decoder = decoder_of(tokenizer)
        context = sys.maxsize if decoder is None else decoder.max_position
        self._pairs: list[TwoSequences] = []
        for row, other in enumerate(self._rows_of_other_prompts()):
            pair = self._with_response_of(row, other, context)
            self._pairs.append(pair)

    def append(self, other: Self) -> None:
        """Append the rows of another data set; notes and sets stay as they are."""
        super().append(other)
        self._pairs += other._pairs

    def length(self, row: int) -> int:
        """Return the number of tokens of both sequences together."""
        return len(self._pairs[row].input_ids)

    def longest_sequence(self, row: int) -> int:
        """Return the number of tokens of the longer sequence."""
        return self._pairs[row].longest

    def tensors(self, row: int) -> dict[str, Tensor]:
        """Return both sequences end to end, the row's own first.

        Shapes: `input_ids` int64 `[T]`, `loss_mask` bool `[T]`, `own_tokens` int64 `[1]`, `is_desirable` bool
            `[1]`; T = tokens of both sequences.
        """
        pair = self._pairs[row]
        return {
            "input_ids": pair.input_ids,
            "loss_mask": pair.loss_mask,
            "own_tokens": torch.tensor([pair.first_tokens]),
            "is_desirable": torch.tensor([self.rows[row].label is True]),
        }

    def _with_response_of(self, row: int, other: int, context: int) -> TwoSequences:
        """Return a row's prompt with its own response, and with that of another row, cut to the context."""
        prompt = self.prompts[row]
        (own,) = self.responses[row]
        (others,) = self.responses[other]
        room = max(1, context - len(prompt))
        cut = others[:room]
        return two_sequences(prompt, torch.tensor(own), torch.tensor(cut))

    def _rows_of_other_prompts(self) -> list[int]:
        """Return for each row the nearest row before it with another prompt; before the first comes the last.

        Raises:
            ValueError: there is none.
        """
        number = len(self.rows)
        prompts = [row.prompt for row in self.rows]
        differing = (row for row in range(number - 1, 0, -1) if prompts[row] != prompts[0])
        before = next(differing, None)
        if before is None:
            raise ValueError(
                f"{self.place(0)}: all rows have one prompt, but the distance from the reference is measured"
                " on responses to other prompts; give rows with at least two prompts"
            )
        found = []
        for row in range(number):
            # Rows of one prompt often come together: they have the same row before them.
            if row and prompts[row] != prompts[row - 1]:
                before = row - 1
            found.append(before)
        return found


def load_labelled(config: ReadingData, tokenizer: Any) -> tuple[LabelledDataset, LabelledDataset | None]:
    """Return the training rows of `config.data`, and its held-out rows or None.

    Raises:
        ValueError: a source that cannot be read, or a bad row; the message names its place.
    """
    check_no_rewards(config.data)

    def load(part: DataPart, held_out: bool) -> LabelledDataset:
        with names_key(part, held_out=held_out):
            rows, notes = read_rows(part, Labelled, EXAMPLE, held_out=held_out)
            labelled = [each for row in rows for each in _unpaired(row)]
            return LabelledDataset(labelled, tokenizer, part, held_out=held_out, notes=notes)

    return load_sides(config.data, tokenizer, load)


def _unpaired(row: Labelled) -> Iterator[Labelled]:
    """Yield a row with its label as a bool, or the two rows of a pair, the desirable one first.

    Raises:
        ValueError: the row has no label and is no pair, or its label is no truth value.
    """
    if row.label is None and row.chosen is not None and row.rejected is not None:
        yield msgspec.structs.replace(row, response=row.chosen, label=True)
        yield msgspec.structs.replace(row, response=row.rejected, label=False)
        return
    if row.label is None:
        raise ValueError(
            f"{row.place}: no `label`, and not both `chosen` and `rejected`; give the name that the label has"
            f" there as data.fields.label; expected a line like {EXAMPLE}"
        )
    yield msgspec.structs.replace(row, label=_truth_of(row))


def _truth_of(row: Labelled) -> bool:
    """Return whether a row's response is desirable: a bool, 0 or 1, or one of these as text.

    Raises:
        ValueError: its label is something else.
    """
    label = row.label
    if isinstance(label, str):
        label = _WORDS.get(label.strip().lower(), label)
    if label not in (False, True):
        raise ValueError(
            f"{row.place}: `label` must be true for a desirable response or false for another, got"
            f" {row.label!r}; correct it, or give the name of another field as data.fields.label"
        )
    return bool(label)
