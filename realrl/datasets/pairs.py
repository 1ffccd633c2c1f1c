"""Prompts with a better and a worse response, for reward models and for policies that learn from pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from realrl.api.batch import PackedBatch, Sample, cu_seqlens_of
from realrl.api.data import DataPart
from realrl.api.traits import ReadingData
from realrl.datasets.encode import EncodedRows
from realrl.datasets.fields import QUESTIONS, Names
from realrl.datasets.records import Row, read_rows
from realrl.datasets.sides import check_no_rewards, load_sides
from realrl.datasets.sources import names_key

EXAMPLE = '{"prompt": "What is 1 + 1?", "chosen": "2", "rejected": "3"}'


class Pair(Row):
    """A better and a worse response to a prompt."""

    NAMES: ClassVar[Names] = {"prompt": QUESTIONS}

    chosen: str
    rejected: str
    margin: Any = None
    """A number: by how much the chosen response is better."""


@dataclass(frozen=True)
class TwoSequences:
    """A prompt with one response, and then the prompt with another response.

    Shapes: `input_ids` int64 `[T]`, `loss_mask` bool `[T]`; T = tokens of both sequences.
    """

    input_ids: Tensor
    loss_mask: Tensor
    first_tokens: int
    """The number of tokens of the first sequence, with its prompt."""

    @property
    def longest(self) -> int:
        """The number of tokens of the longer sequence."""
        second_tokens = len(self.input_ids) - self.first_tokens
        return max(self.first_tokens, second_tokens)


class PairDataset(EncodedRows[Pair]):
    """Pairs by row; a `realrl.api.recipe.Dataset`.

    Its keys are `input_ids`, `loss_mask`, `chosen_tokens` and `margin`. A row's tensors hold both sequences
    end to end; `sequences_of` separates them.
    """

    def __init__(
        self,
        rows: Sequence[Pair],
        tokenizer: Any,
        part: DataPart,
        *,
        held_out: bool,
        notes: Sequence[str] = (),
        has_margins: bool = False,
    ) -> None:
        """Encode the pairs; without `has_margins`, all margins are 0.

        Raises:
            ValueError: as `EncodedRows`; or a margin that is no number.
        """
        responses = (attrgetter("chosen"), attrgetter("rejected"))
        super().__init__(
            rows,
            tokenizer,
            part,
            held_out=held_out,
            notes=notes,
            responses=responses,
        )
        self._pairs: list[TwoSequences] = []
        for prompt, both in zip(self.prompts, self.responses, strict=True):
            chosen, rejected = map(torch.tensor, both)
            pair = two_sequences(prompt, chosen, rejected)
            self._pairs.append(pair)
        self._margins = [margin_of(row) if has_margins else 0.0 for row in self.rows]

    def append(self, other: Self) -> None:
        """Append the rows of another data set; notes and sets stay as they are."""
        super().append(other)
        self._pairs += other._pairs
        self._margins += other._margins

    def length(self, row: int) -> int:
        """Return the number of tokens of both sequences together."""
        return len(self._pairs[row].input_ids)

    def longest_sequence(self, row: int) -> int:
        """Return the number of tokens of the longer sequence."""
        return self._pairs[row].longest

    def tensors(self, row: int) -> dict[str, Tensor]:
        """Return both sequences end to end, the chosen one first.

        Shapes: `input_ids` int64 `[T]`, `loss_mask` bool `[T]`, `chosen_tokens` int64 `[1]`, `margin` float32
            `[1]`; T = tokens of both sequences.
        """
        pair = self._pairs[row]
        return {
            "input_ids": pair.input_ids,
            "loss_mask": pair.loss_mask,
            "chosen_tokens": torch.tensor([pair.first_tokens]),
            "margin": torch.tensor([self._margins[row]]),
        }


def load_pairs(
    config: ReadingData, tokenizer: Any, *, has_margins: bool = False
) -> tuple[PairDataset, PairDataset | None]:
    """Return the training rows of `config.data`, and its held-out rows or None.

    With `has_margins`, rows may have a `margin`.

    Raises:
        ValueError: a source that cannot be read, or a bad row; the message names its place.
    """
    check_no_rewards(config.data)

    def load(part: DataPart, held_out: bool) -> PairDataset:
        with names_key(part, held_out=held_out):
            rows, notes = read_rows(part, Pair, EXAMPLE, held_out=held_out)
            return PairDataset(rows, tokenizer, part, held_out=held_out, notes=notes, has_margins=has_margins)

    return load_sides(config.data, tokenizer, load)


def margin_of(row: Pair) -> float:
    """Return by how much a row's chosen response is better; 0 if the row does not say it.

    Raises:
        ValueError: it is no number, or not finite.
    """
    value = row.margin
    if value is None:
        return 0.0
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value):
        raise ValueError(
            f"{row.place}: `margin` must be a number, by how much `chosen` is better than `rejected`, got"
            f" {value!r}; correct it, leave the field out, or give the name of another one as"
            " data.fields.margin"
        )
    return float(value)


def sequences_of(pairs: PackedBatch, first: str = "chosen_tokens") -> PackedBatch:
    """Return the same tokens as two samples per pair, the first one first; both have the pair's row.

    The key `first` has the number of tokens of each first sequence. The tokens keep their positions, so what
    is computed per token of the result also belongs to `pairs`. Both samples have what the pair has of its
    other keys per sample.

    Shapes: the tensors of `pairs.tokens` `[T]`, T = packed tokens; `cu_seqlens` grows from `[N + 1]` to
        `[2N + 1]`, and those of `pairs.per_sample` from `[N]` to `[2N]`, N = pairs.
    """
    lengths = []
    samples = []
    first_lengths = pairs[first].tolist()
    for sample, length, first_length in zip(pairs.samples, pairs.lengths, first_lengths):
        second_length = length - first_length
        lengths += [first_length, second_length]
        # Two ids per pair: each sample's is unique, and a pair's are neighbours.
        first_id = 2 * sample.id
        first_sample = Sample(first_id, sample.row)
        second_sample = Sample(first_id + 1, sample.row)
        samples += [first_sample, second_sample]
    cu_seqlens = cu_seqlens_of(lengths)
    per_sample = {}
    for key, values in pairs.per_sample.items():
        if key != first:
            per_sample[key] = values.repeat_interleave(2)
    return PackedBatch(tuple(samples), cu_seqlens, pairs.tokens, per_sample)


def two_sequences(prompt: Tensor, first: Tensor, second: Tensor) -> TwoSequences:
    """Return the prompt with each response, end to end; only the responses are learned from.

    Shapes: int64 `[P]`, `[F]` and `[S]`.
    """
    input_ids = torch.cat((prompt, first, prompt, second))
    no_prompt = torch.zeros_like(prompt)
    learned = torch.cat((no_prompt, torch.ones_like(first), no_prompt, torch.ones_like(second)))
    return TwoSequences(input_ids, learned.bool(), len(prompt) + len(first))
