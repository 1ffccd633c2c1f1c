"""Prompts with a better and a worse response, for reward models and direct preference optimisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import torch
from torch import Tensor

from realrl.api.batch import PackedBatch, Sample, cu_seqlens_of
from realrl.datasets.encode import encode_prompts, end_of_sequence
from realrl.datasets.jsonl import read_jsonl
from realrl.datasets.sums import SUMS, sums

EXAMPLE = '{"prompt": "What is 1 + 1?", "chosen": "2", "rejected": "3"}'


class PairLine(msgspec.Struct):
    """A line of a file of preferences."""

    prompt: str
    chosen: str
    rejected: str


@dataclass(frozen=True)
class _Pair:
    """Both sequences end to end, the chosen one first, each with the prompt before it."""

    input_ids: Tensor
    loss_mask: Tensor
    chosen_tokens: int


class PairDataset:
    """Pairs by row; a `realrl.api.recipe.Dataset` with the keys `input_ids`, `loss_mask` and `chosen_tokens`.

    A row's tensors have both sequences end to end: `sequences_of` takes them apart.
    """

    def __init__(
        self, rows: Sequence[tuple[str, PairLine]], tokenizer: Any, *, max_prompt_tokens: int, chat: bool
    ) -> None:
        self._places = [place for place, _ in rows]
        end = end_of_sequence(tokenizer)
        prompts = encode_prompts(
            [line.prompt for _, line in rows],
            self._places,
            tokenizer,
            chat=chat,
            max_prompt_tokens=max_prompt_tokens,
        )
        chosen, rejected = (
            tokenizer([getattr(line, which) for _, line in rows], add_special_tokens=False)["input_ids"]
            for which in ("chosen", "rejected")
        )
        self._rows = [
            _joined(prompt, torch.tensor([*a, end]), torch.tensor([*b, end]))
            for prompt, a, b in zip(prompts, chosen, rejected, strict=True)
        ]

    def __len__(self) -> int:
        return len(self._rows)

    def length(self, row: int) -> int:
        """Tokens of both sequences."""
        return len(self._rows[row].input_ids)

    def longest_sequence(self, row: int) -> int:
        """Tokens of the longer one."""
        pair = self._rows[row]
        return max(pair.chosen_tokens, len(pair.input_ids) - pair.chosen_tokens)

    def place(self, row: int) -> str:
        """Where the row comes from, as `file:line`."""
        return self._places[row]

    def tensors(self, row: int) -> dict[str, Tensor]:
        pair = self._rows[row]
        return {
            "input_ids": pair.input_ids,
            "loss_mask": pair.loss_mask,
            "chosen_tokens": torch.tensor([pair.chosen_tokens]),
        }


def load_pairs(config: Any, tokenizer: Any) -> tuple[PairDataset, PairDataset | None]:
    """Training rows and held-out rows that `config.data` (a `DataConfig`) names: JSONL files, or `sums`.

    Raises:
        ValueError: a missing or empty file, or a bad line, by its `file:line`.
    """
    data = config.data

    def load(path: str, held_out: bool) -> PairDataset:
        return PairDataset(
            _rows(path, held_out=held_out),
            tokenizer,
            max_prompt_tokens=data.max_prompt_tokens,
            chat=data.chat,
        )

    return load(data.path, False), load(data.held_out_path, True) if data.held_out_path else None


def _rows(path: str, *, held_out: bool) -> list[tuple[str, PairLine]]:
    """Of `sums`, the sum is better than the one after it."""
    if path != SUMS:
        return list(read_jsonl(path, PairLine, EXAMPLE, held_out=held_out))
    rows = sums(held_out=held_out)
    return [
        (f"{SUMS}: {row.a} + {row.b}", PairLine(row.prompt, row.solution, str(row.a + row.b + 1)))
        for row in rows
    ]


def sequences_of(pairs: PackedBatch) -> PackedBatch:
    """The same tokens as two samples a pair, the chosen one first; both have the pair's row.

    What is computed of it for each token fits the pairs too.
    """
    lengths = [
        length
        for whole, chosen in zip(pairs.lengths, pairs["chosen_tokens"].tolist())
        for length in (chosen, whole - chosen)
    ]
    samples = tuple(Sample(2 * s.id + which, s.row) for s in pairs.samples for which in (0, 1))
    return PackedBatch(samples, cu_seqlens_of(lengths), pairs.tokens)


def _joined(prompt: Tensor, chosen: Tensor, rejected: Tensor) -> _Pair:
    nothing = torch.zeros(len(prompt), dtype=torch.bool)
    masks = [part for response in (chosen, rejected) for part in (nothing, torch.ones_like(response).bool())]
    return _Pair(torch.cat((prompt, chosen, prompt, rejected)), torch.cat(masks), len(prompt) + len(chosen))
