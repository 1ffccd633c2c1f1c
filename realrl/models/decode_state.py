"""The state of each running sequence on the device, as decoding steps need it.

    host                                                  device
    begin, follow  -- one message, if anything changed -> fields, page table, lanes
                                                          a step reads its lanes,
                                                          draws, and advances the fields
    HostBlock     <-- one block a step ------------------ drawn tokens and log-probabilities

A running sequence has a row from its admission to its end. Lanes are the places in a step's batch. Each lane
names a row; lanes beyond the batch name the spare row, whose page belongs to no sequence.
Shapes: B lanes, R rows and the spare one, at most P pages per sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from realrl.base.waiting import wait_for_device
from realrl.models.graphs import size_of
from realrl.models.sequences import Rollout
from realrl.ops.upload import upload

_TOKEN, _PROMPT_LENGTH, _COUNT, _SEED = range(4)
"""Fields of a row: the newest token, the prompt's length, the number of drawn tokens, and the seed."""
_IS_BREAK_DUE = 3
"""The column of the drawn block after a token and its two log-probabilities."""


class Drawn(NamedTuple):
    """One token per lane, int64 `[B]`, and two log-probabilities of each, float32 `[B]`."""

    tokens: Tensor
    logprobs: Tensor
    """At the sampling temperature, before top-k and top-p."""
    raw_logprobs: Tensor
    """At temperature 1."""


class Lanes(NamedTuple):
    """A step's batch, all on the device."""

    ids: Tensor
    """The newest tokens, int64 `[B]`."""
    positions: Tensor
    """The positions of these tokens in their sequences, int64 `[B]`."""
    counts: Tensor
    """The numbers of tokens drawn so far, int64 `[B]`."""
    seeds: Tensor
    """int64 `[B]`."""
    table: Tensor
    """Pages, int32 `[B, P]`."""


class DecodeState:
    """The rows on the device, and a record of what the host has uploaded."""

    def __init__(self, num_rows: int, pages_each: int, spare_page: int, device: torch.device | str) -> None:
        num_lanes = size_of(num_rows)
        self._spare_row = num_rows
        self._fields = torch.zeros(4, num_rows + 1, dtype=torch.int64, device=device)
        self._tokens = self._fields[_TOKEN]
        self._counts = self._fields[_COUNT]
        # The spare row's newest token is at position 0.
        self._fields[_PROMPT_LENGTH].fill_(1)
        self._table = torch.full(
            (num_rows + 1, pages_each),
            spare_page,
            dtype=torch.int32,
            device=device,
        )
        self._lanes = torch.full(
            (num_lanes,),
            num_rows,
            dtype=torch.int64,
            device=device,
        )
        self._drawn = torch.zeros(
            num_lanes,
            4,
            dtype=torch.float64,
            device=device,
        )
        self._is_break_marked = False
        self._shown_lanes: list[int] = []
        self._shown_pages = [0] * num_rows

    @property
    def _device(self) -> torch.device:
        return self._fields.device

    def begin(self, rollouts: Sequence[Rollout], inputs: Sequence[Tensor]) -> list[Tensor]:
        """Upload admitted rollouts, which take the lanes, in one message with `inputs`.

        Returns the inputs on the device.
        """
        lanes = [rollout.row for rollout in rollouts]
        host = (
            torch.tensor(lanes),
            _fields_of(rollouts),
            self._pages(rollouts),
            *inputs,
        )
        rows, fields, table, *uploaded = upload(host, self._device)

        self._fields.index_copy_(1, rows, fields)
        self._table.index_copy_(0, rows, table)
        self._lanes[: len(lanes)].copy_(rows)
        self._shown_lanes = lanes
        return uploaded

    def follow(self, rollouts: Sequence[Rollout], size: int) -> None:
        """Upload which rollouts run, in `size` lanes, and new pages; nothing if nothing has changed."""
        lanes = [rollout.row for rollout in rollouts]
        num_spare = size - len(lanes)
        lanes += [self._spare_row] * num_spare
        grown = [rollout for rollout in rollouts if self._has_new_page(rollout)]
        if lanes == self._shown_lanes and not grown:
            return

        grown_rows = [rollout.row for rollout in grown]
        host = (
            torch.tensor(grown_rows, dtype=torch.int64),
            self._pages(grown),
            torch.tensor(lanes),
        )
        rows, table, shown = upload(host, self._device)

        self._table.index_copy_(0, rows, table)
        self._lanes[:size].copy_(shown)
        self._shown_lanes = lanes

    def _has_new_page(self, rollout: Rollout) -> bool:
        return len(rollout.pages) != self._shown_pages[rollout.row]

    def park_lanes(self, size: int) -> None:
        """Set all lanes to the spare row, so that a step changes no sequence."""
        self._lanes[:size].fill_(self._spare_row)
        self._shown_lanes = [self._spare_row] * size

    def read(self, size: int) -> Lanes:
        """Return the batch of the first `size` lanes."""
        lanes = self._lanes[:size]
        ids, prompt_lengths, counts, seeds = self._fields.index_select(1, lanes)
        table = self._table.index_select(0, lanes)
        positions = prompt_lengths + counts - 1
        return Lanes(ids, positions, counts, seeds, table)

    def write(self, drawn: Drawn) -> None:
        """Write what was drawn into the block, for the host and for `advance`."""
        block = self.drawn(len(drawn.tokens))
        for column, values in enumerate(drawn):
            block[:, column].copy_(values)

    def drawn(self, size: int) -> Tensor:
        """Return the drawn block: token, log-probabilities, whether a break is due; float64 `[size, 4]`."""
        return self._drawn[:size]

    def mark_break(self, is_due: bool) -> None:
        """Write into the block whether a break is due."""
        if is_due != self._is_break_marked:
            self._drawn[:, _IS_BREAK_DUE].fill_(is_due)
            self._is_break_marked = is_due

    def advance(self, size: int) -> Tensor:
        """Make the drawn tokens the newest ones of their rows, and return them: int64 `[size]`."""
        lanes = self._lanes[:size]
        tokens = self._drawn[:size, 0].long()
        is_running = lanes != self._spare_row
        counts = self._counts.index_select(0, lanes) + is_running
        self._tokens.index_copy_(0, lanes, tokens)
        self._counts.index_copy_(0, lanes, counts)
        return tokens

    def _pages(self, rollouts: Sequence[Rollout]) -> Tensor:
        """Return the rollouts' rows of the page table, and record that they are uploaded.

        Shapes: int32 `[rollouts, P]`.
        """
        width = self._table.shape[1]
        table = torch.zeros(len(rollouts), width, dtype=torch.int32)
        for row, rollout in zip(table, rollouts, strict=True):
            pages = torch.tensor(rollout.pages, dtype=torch.int32)
            num_pages = len(pages)
            row[:num_pages] = pages
            self._shown_pages[rollout.row] = num_pages
        return table


def _fields_of(rollouts: Sequence[Rollout]) -> Tensor:
    """Return the fields of rollouts whose newest token is not known yet: int64 `[4, rollouts]`."""
    lengths = [len(rollout.prompt) for rollout in rollouts]
    counts = [len(rollout.tokens) for rollout in rollouts]
    seeds = [rollout.seed for rollout in rollouts]
    fields = torch.zeros(4, len(rollouts), dtype=torch.int64)
    fields[_PROMPT_LENGTH] = torch.tensor(lengths)
    fields[_COUNT] = torch.tensor(counts)
    fields[_SEED] = torch.tensor(seeds)
    return fields


class HostBlock:
    """A drawn block on its way to the host, which waits for it only when it reads."""

    def __init__(self, block: Tensor) -> None:
        # From CUDA into pinned memory. It is always a copy, because the next step overwrites the block.
        self._block = block.to("cpu", non_blocking=True, copy=True)
        self._arrival: torch.cuda.Event | None = None
        if block.is_cuda:
            self._arrival = torch.cuda.Event()
            self._arrival.record()

    def read(self) -> tuple[list[tuple[int, float, float]], bool]:
        """Return token and two log-probabilities of each lane, and whether a break is due."""
        if self._arrival is not None:
            wait_for_device(self._arrival.synchronize)
        rows = self._block.tolist()
        drawn = [(int(token), logprob, raw) for token, logprob, raw, _ in rows]
        return drawn, bool(rows[0][_IS_BREAK_DUE])
