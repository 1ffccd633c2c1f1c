"""Cutting a batch into micro-batches by a token budget, and putting their results together again."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from realrl.api.batch import PackedBatch, cu_seqlens_of
from realrl.ops.packing import first_fit_decreasing, karmarkar_karp
from realrl.ops.segments import Segments
from realrl.ops.upload import upload

Prompt = tuple[int, ...]


@dataclass(frozen=True)
class Microbatch:
    """What one pass through a model takes: samples, and the tokens to compute, a shared prompt's once.

    Shapes: T tokens of the samples, U <= T computed ones, R of `loss_mask`. All but the segments are on the
        batch's device.
    """

    batch: PackedBatch
    """With `responses`, which are none where it has no `loss_mask`."""
    ids: Tensor
    """int64 `[U]`."""
    segments: Segments
    index: Tensor
    """int64 `[T]`: which of the computed tokens each token of the samples is."""
    sources: Tensor
    """int64 `[R]`: the computed token before each of the batch's `responses`."""

    @property
    def num_tokens(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device) -> Microbatch:
        """The same on a device, by one copy that the host does not wait for."""
        tokens, per_sample = self.batch.tokens, self.batch.per_sample
        own = self.ids, self.index, self.batch.responses, self.sources
        ids, index, responses, sources, *columns = upload(
            (*own, *tokens.values(), *per_sample.values()), device
        )
        batch = replace(
            self.batch,
            tokens=dict(zip(tokens, columns)),
            per_sample=dict(zip(per_sample, columns[len(tokens) :], strict=True)),
            responses=responses,
        )
        return Microbatch(batch, ids, self.segments, index, sources)


def split(
    batch: PackedBatch, max_tokens: int, *, share_prompts: bool, whole_rows: bool = False
) -> list[Microbatch]:
    """The micro-batches of a batch, both on the host, of at most `max_tokens` computed tokens each.

    A longer sample goes alone.
    Samples that share a prompt, the tokens before the first of `loss_mask`, stay together as far as they fit;
    with `whole_rows`, those of a dataset row in any case.
    """
    shared = share_prompts and "loss_mask" in batch.tokens
    prompts = _prompts(batch) if shared else [None] * len(batch)
    items, weights = _rows(batch, prompts) if whole_rows else _items(batch.lengths, prompts, max_tokens)
    return [
        _microbatch(batch.select(chosen), [prompts[i] for i in chosen])
        for members in microbatches(weights, max_tokens)
        if (chosen := [i for item in members for i in items[item]])
    ]


def microbatches(weights: Sequence[int], max_tokens: int) -> list[list[int]]:
    """The items of each micro-batch, which has at most `max_tokens` tokens; a longer item goes alone.

    First-fit decreasing finds how many there are, Karmarkar-Karp evens the tokens of as many. Where one of
    these is over the budget, those of first-fit stay: then nearly all are full. Items of a micro-batch, and
    micro-batches by their first item, keep the batch's order.
    """
    bins = first_fit_decreasing(weights, max_tokens)
    alone = [members for members in bins if weights[members[0]] > max_tokens]
    return sorted(alone + _evened(weights, bins[len(alone) :], max_tokens))


def in_batch_order(batch: PackedBatch, micros: Sequence[Microbatch], outputs: Sequence[Tensor]) -> Tensor:
    """What `split`'s micro-batches gave, `[their samples' tokens]`, in the order of the batch's samples."""
    pieces = {
        sample: piece
        for micro, output in zip(micros, outputs, strict=True)
        for sample, piece in zip(micro.batch.samples, output.split(micro.batch.lengths), strict=True)
    }
    assert len(pieces) == len(batch), "each sample must be once in the batch, and in one micro-batch"
    return torch.cat([pieces[sample] for sample in batch.samples]) if pieces else torch.empty(0)


def _evened(weights: Sequence[int], bins: list[list[int]], max_tokens: int) -> list[list[int]]:
    items = sorted(item for members in bins for item in members)
    evened: list[list[int]] = [[] for _ in bins]
    for item, index in zip(items, karmarkar_karp([weights[i] for i in items], max(len(bins), 1))):
        evened[index].append(item)
    fits = all(sum(weights[i] for i in members) <= max_tokens for members in evened)
    return evened if fits else bins


def _prompts(batch: PackedBatch) -> list[Prompt | None]:
    """Each sample's prompt; None where no token follows it, or none is before."""
    prompts: list[Prompt | None] = []
    for ids, mask in zip(batch.unpacked("input_ids"), batch.unpacked("loss_mask"), strict=True):
        first = int(mask.int().argmax()) if len(mask) else 0
        prompts.append(tuple(ids[:first].tolist()) or None)
    return prompts


def _items(
    lengths: Sequence[int], prompts: Sequence[Prompt | None], max_tokens: int
) -> tuple[list[list[int]], list[int]]:
    """Samples that go together, and how many tokens they are to compute."""
    items: list[list[int]] = []
    weights: list[int] = []
    open_item: dict[Prompt, int] = {}
    for sample, (length, prompt) in enumerate(zip(lengths, prompts, strict=True)):
        item = open_item.get(prompt) if prompt is not None else None
        more = length if item is None else length - len(prompt)
        if item is None or weights[item] + more > max_tokens:
            open_item[prompt] = len(items)
            items.append([sample])
            weights.append(length)
        else:
            items[item].append(sample)
            weights[item] += more
    return items, weights


def _rows(batch: PackedBatch, prompts: Sequence[Prompt | None]) -> tuple[list[list[int]], list[int]]:
    """The samples of each row, and how many tokens they are to compute."""
    rows: dict[int, list[int]] = defaultdict(list)
    for index, sample in enumerate(batch.samples):
        rows[sample.row].append(index)
    lengths, weights = batch.lengths, []
    for members in rows.values():
        shared = Counter(prompts[i] for i in members if prompts[i] is not None)
        saved = sum((count - 1) * len(prompt) for prompt, count in shared.items())
        weights.append(sum(lengths[i] for i in members) - saved)
    return list(rows.values()), weights


def _microbatch(batch: PackedBatch, prompts: Sequence[Prompt | None]) -> Microbatch:
    """Lay a prompt that several samples share before what follows it in each of them."""
    sharers, starts = Counter(prompts), batch.cu_seqlens.tolist()
    laid, index = _Segments(), []
    first_of: dict[Prompt, tuple[int, range]] = {}
    for start, stop, prompt in zip(starts, starts[1:], prompts):
        if prompt is None or sharers[prompt] == 1:
            index += laid.add(range(start, stop))
            continue
        end = start + len(prompt)
        if prompt not in first_of:
            first_of[prompt] = len(laid.runs), laid.add(range(start, end))
        segment, shared = first_of[prompt]
        index += [*shared, *laid.add(range(end, stop), prefix=segment)]
    ids, computed = batch["input_ids"], torch.tensor(index, dtype=torch.long)
    responses = batch["loss_mask"].nonzero()[:, 0] if "loss_mask" in batch.tokens else computed[:0]
    return Microbatch(
        replace(batch, responses=responses),
        torch.cat([ids[run.start : run.stop] for run in laid.runs]) if laid.runs else ids,
        laid.segments(),
        computed,
        computed[responses - 1],
    )


class _Segments:
    """Runs of a batch's tokens, one behind another, each with the number of the one that it sees in full."""

    def __init__(self) -> None:
        self.runs: list[range] = []
        self._prefix: list[int] = []
        self._num_tokens = 0

    def add(self, run: range, prefix: int = -1) -> range:
        """Where its tokens come to lie."""
        self.runs.append(run)
        self._prefix.append(prefix)
        self._num_tokens += len(run)
        return range(self._num_tokens - len(run), self._num_tokens)

    def segments(self) -> Segments:
        return Segments(cu_seqlens_of(map(len, self.runs)), torch.tensor(self._prefix, dtype=torch.int32))
