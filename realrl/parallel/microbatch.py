"""Splits a batch into micro-batches by a token budget.

Samples that share a prompt may share its computation. The prompt is then laid once before what follows it:

    samples     p p p a a | p p p b | q c c        T = 12 tokens
    computed    p p p | a a | b | q c c            U = 9 tokens, in four segments; a's and b's prefix is p
    index       0 1 2 3 4   0 1 2 5   6 7 8        the computed token of each token of the samples
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from realrl.api.batch import PackedBatch, cu_seqlens_of
from realrl.ops.packing import first_fit_decreasing, karmarkar_karp
from realrl.ops.segments import Segments
from realrl.ops.upload import upload

Prompt = tuple[int, ...]


@dataclass(frozen=True)
class Microbatch:
    """The input of one pass through a model: samples, and the tokens to compute, a shared prompt's once.

    Shapes: T tokens of the samples, U <= T computed ones, R of `loss_mask`. All tensors but the segments are
        on the batch's device.
    """

    batch: PackedBatch
    """With `responses`, which are empty if it has no `loss_mask`."""
    ids: Tensor
    """int64 `[U]`."""
    segments: Segments
    index: Tensor
    """int64 `[T]`: the computed token of each token of the samples."""
    sources: Tensor
    """int64 `[R]`: the computed token before each of the batch's `responses`."""

    @property
    def num_tokens(self) -> int:
        """The number of computed tokens."""
        return len(self.ids)


class _Units(NamedTuple):
    """Samples that stay together, as indices into a batch."""

    members: list[list[int]]
    """The samples of each unit."""
    weights: list[int]
    """The number of tokens to compute for each unit."""


def split(
    batch: PackedBatch,
    max_tokens: int,
    *,
    share_prompts: bool,
    whole_rows: bool = False,
    device: torch.device | str = "cpu",
) -> list[Microbatch]:
    """Return the micro-batches of a batch, of at most `max_tokens` computed tokens each, on `device`.

    A longer sample has a micro-batch of its own. A prompt is the tokens before the first of `loss_mask`.
    Samples that share a prompt stay together as far as they fit. With `whole_rows`, all samples of a dataset
    row stay together.
    """
    batch = batch.to("cpu")
    prompts: list[Prompt | None] = [None] * len(batch)
    if share_prompts and "loss_mask" in batch.tokens:
        prompts = _prompts(batch)
    if whole_rows:
        units = _rows(batch, prompts)
    else:
        units = _units(batch.lengths, prompts, max_tokens)

    micros = []
    for chosen_units in microbatches(units.weights, max_tokens):
        chosen: list[int] = []
        for unit in chosen_units:
            chosen += units.members[unit]
        if chosen:
            own_prompts = [prompts[sample] for sample in chosen]
            micro = _microbatch(batch.select(chosen), own_prompts, device)
            micros.append(micro)
    return micros


def microbatches(weights: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Return the items of each micro-batch of at most `max_tokens` tokens; a longer item goes alone.

    First-fit decreasing finds the number of micro-batches, and Karmarkar-Karp evens their tokens. If one of
    these is over the budget, the result of first-fit is kept: its micro-batches are nearly full. Items of a
    micro-batch, and micro-batches by their first item, keep the batch's order.
    """
    bins = first_fit_decreasing(weights, max_tokens)
    # First-fit begins with the longest items: bins of too long ones come first.
    num_alone = 0
    for members in bins:
        longest = members[0]
        if weights[longest] > max_tokens:
            num_alone += 1
    alone = bins[:num_alone]
    evened = _evened(weights, bins[num_alone:], max_tokens)
    return sorted(alone + evened)


def _evened(weights: Sequence[int], bins: list[list[int]], max_tokens: int) -> list[list[int]]:
    """Return as many bins of the same items with more even weights, if they keep to the budget."""
    items: list[int] = []
    for members in bins:
        items += members
    items.sort()
    own_weights = [weights[item] for item in items]
    num_bins = max(len(bins), 1)
    chosen = karmarkar_karp(own_weights, num_bins)

    evened: list[list[int]] = [[] for _ in bins]
    sums = [0] * len(bins)
    for item, index in zip(items, chosen):
        evened[index].append(item)
        sums[index] += weights[item]

    fits = max(sums, default=0) <= max_tokens
    return evened if fits else bins


def _prompts(batch: PackedBatch) -> list[Prompt | None]:
    """Return each sample's prompt; None if no token follows it or precedes the response."""
    prompts: list[Prompt | None] = []
    all_ids = batch.unpacked("input_ids")
    masks = batch.unpacked("loss_mask")
    for ids, mask in zip(all_ids, masks, strict=True):
        first = 0
        if len(mask):
            first = int(mask.int().argmax())
        prompt = tuple(ids[:first].tolist())
        prompts.append(prompt or None)
    return prompts


def _units(lengths: Sequence[int], prompts: Sequence[Prompt | None], max_tokens: int) -> _Units:
    """Join samples that share a prompt, as far as they fit into the budget."""
    units = _Units([], [])
    open_unit: dict[Prompt, int] = {}
    for sample, (length, prompt) in enumerate(zip(lengths, prompts, strict=True)):
        if prompt is not None and prompt in open_unit:
            unit = open_unit[prompt]
            new_tokens = length - len(prompt)
            new_weight = units.weights[unit] + new_tokens
            if new_weight <= max_tokens:
                units.members[unit].append(sample)
                units.weights[unit] = new_weight
                continue

        if prompt is not None:
            open_unit[prompt] = len(units.members)
        units.members.append([sample])
        units.weights.append(length)
    return units


def _rows(batch: PackedBatch, prompts: Sequence[Prompt | None]) -> _Units:
    """Join the samples of each row."""
    rows: dict[int, list[int]] = defaultdict(list)
    for index, sample in enumerate(batch.samples):
        rows[sample.row].append(index)

    lengths = batch.lengths
    units = _Units([], [])
    for members in rows.values():
        num_tokens = 0
        own_prompts = []
        for index in members:
            num_tokens += lengths[index]
            own_prompts.append(prompts[index])

        num_saved = _saved_tokens(own_prompts)
        units.members.append(members)
        units.weights.append(num_tokens - num_saved)
    return units


def _saved_tokens(prompts: Sequence[Prompt | None]) -> int:
    """Count the tokens that need not be computed if equal prompts are computed once."""
    saved = 0
    for prompt, count in Counter(prompts).items():
        if prompt is not None:
            saved += (count - 1) * len(prompt)
    return saved


def _microbatch(
    batch: PackedBatch, prompts: Sequence[Prompt | None], device: torch.device | str
) -> Microbatch:
    """Lay a prompt that several samples share before what follows it in each of them."""
    laid = _Laid()
    places = _lay(laid, batch, prompts)
    index = torch.tensor(places, dtype=torch.long)
    if "loss_mask" in batch.tokens:
        responses = batch["loss_mask"].nonzero()[:, 0]
    else:
        responses = index[:0]
    sources = index[responses - 1]
    ids = laid.tokens(batch["input_ids"])

    # One copy, which the host does not wait for.
    own = ids, index, responses, sources
    host = (*own, *batch.tokens.values(), *batch.per_sample.values())
    ids, index, responses, sources, *columns = upload(host, device)
    num_tokens = len(batch.tokens)
    of_tokens = columns[:num_tokens]
    of_samples = columns[num_tokens:]

    on_device = replace(
        batch,
        tokens=dict(zip(batch.tokens, of_tokens, strict=True)),
        per_sample=dict(zip(batch.per_sample, of_samples, strict=True)),
        responses=responses,
    )
    return Microbatch(on_device, ids, laid.segments(), index, sources)


def _lay(laid: _Laid, batch: PackedBatch, prompts: Sequence[Prompt | None]) -> list[int]:
    """Lay the samples' tokens, and return the place of each of them."""
    index: list[int] = []
    sharers = Counter(prompts)
    shared_runs: dict[Prompt, _SharedRun] = {}
    starts = batch.cu_seqlens.tolist()
    for start, stop, prompt in zip(starts, starts[1:], prompts):
        if prompt is None or sharers[prompt] == 1:
            run = range(start, stop)
            index += laid.add(run)
            continue

        end = start + len(prompt)
        if prompt not in shared_runs:
            segment = laid.num_segments
            places = laid.add(range(start, end))
            shared_runs[prompt] = _SharedRun(segment, places)

        shared = shared_runs[prompt]
        rest = range(end, stop)
        index += shared.places
        index += laid.add(rest, prefix=shared.segment)
    return index


class _SharedRun(NamedTuple):
    """A prompt that is laid once."""

    segment: int
    places: range


class _Laid:
    """Runs of a batch's tokens laid end to end, each with the number of the run that it sees in full."""

    def __init__(self) -> None:
        self._runs: list[range] = []
        self._prefix: list[int] = []
        self._num_tokens = 0

    @property
    def num_segments(self) -> int:
        """The number of runs."""
        return len(self._runs)

    def add(self, run: range, prefix: int = -1) -> range:
        """Add a run, and return the places of its tokens."""
        self._runs.append(run)
        self._prefix.append(prefix)
        first = self._num_tokens
        self._num_tokens += len(run)
        return range(first, self._num_tokens)

    def tokens(self, ids: Tensor) -> Tensor:
        """Return the tokens of all runs, of a batch's tokens.

        Shapes: `[T]` to `[U]`.
        """
        if not self._runs:
            return ids
        return torch.cat([ids[run.start : run.stop] for run in self._runs])

    def segments(self) -> Segments:
        """Return the runs as segments."""
        prefix = torch.tensor(self._prefix, dtype=torch.int32)
        return Segments(cu_seqlens_of(map(len, self._runs)), prefix)
