"""The samples that one worker holds, by job, key and sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from realrl.api.batch import PackedBatch, Sample, cu_seqlens_of, pack
from realrl.api.messages import KeyMove
from realrl.layouts.layout import Layout, Part, Pattern
from realrl.layouts.plan import plan
from realrl.layouts.topology import Topology
from realrl.program.instructions import Move
from realrl.realloc.transfer import TransferSettings, execute

Samples = dict[str, dict[int, Tensor]]
"""1-D tensors by key and sample."""


class _Arriving(NamedTuple):
    """A sample's tensor of a key that a move brings here."""

    key: str
    id: int
    tensor: Tensor


class SampleStore:
    """Keeps what calls made here, and what moves brought here, until the job is forgotten."""

    def __init__(self, rank: int, topology: Topology, settings: TransferSettings) -> None:
        self._rank = rank
        self._topology = topology
        self._settings = settings
        self._jobs: dict[int, Samples] = {}

    def put(self, job: int, batch: PackedBatch, keys: Sequence[str]) -> None:
        """Keep `keys` of a batch, with one tensor per sample."""
        for key in keys:
            kept = self._samples(job, key)
            for sample, tensor in zip(batch.samples, batch.unpacked(key), strict=True):
                kept[sample.id] = tensor.detach().cpu().contiguous()

    def get(self, job: int, key: str, sample: int) -> Tensor:
        """Return a sample's tensor of a key."""
        return self._jobs[job][key][sample]

    def forget(self, job: int) -> None:
        """Drop the samples of a job."""
        self._jobs.pop(job, None)

    def move(self, instruction: Move) -> None:
        """Carry out this rank's part of a move.

        Collective: over the instruction's ranks.
        """
        source: dict[str, Tensor] = {}
        target: dict[str, Tensor] = {}
        arriving: list[_Arriving] = []
        for move in instruction.moves:
            source |= self._sent(instruction.job, move)
            arriving += self._arriving(move)
        for sample in arriving:
            target[_local(sample.key, sample.id)] = sample.tensor

        held, lacked = move_layouts(instruction.moves)
        transfer = plan(held, lacked, self._topology)
        execute(transfer, source, target, rank=self._rank, settings=self._settings)

        # Kept only now: a transfer that fails must not leave samples without content.
        for sample in arriving:
            kept = self._samples(instruction.job, sample.key)
            kept[sample.id] = sample.tensor

    def _sent(self, job: int, move: KeyMove) -> dict[str, Tensor]:
        """Return the tensors that this rank sends in a move, by local name."""
        sent: dict[str, Tensor] = {}
        for key in move.dtypes:
            for sample in move.source.get(self._rank, ()):
                name = _local(key, sample)
                sent[name] = self.get(job, key, sample)
        return sent

    def _arriving(self, move: KeyMove) -> list[_Arriving]:
        """Return the tensors that this rank receives in a move, without content."""
        arriving: list[_Arriving] = []
        for key, name in move.dtypes.items():
            dtype = getattr(torch, name)
            for sample in move.target.get(self._rank, ()):
                tensor = torch.empty(move.lengths[sample], dtype=dtype)
                arriving.append(_Arriving(key, sample, tensor))
        return arriving

    def _samples(self, job: int, key: str) -> dict[int, Tensor]:
        """Return the tensors of a key, by sample."""
        keys = self._jobs.setdefault(job, {})
        return keys.setdefault(key, {})


def move_layouts(keys: Sequence[KeyMove]) -> tuple[Layout, Layout]:
    """Return which ranks hold which samples, and which ranks lack which: each key of a sample is a tensor."""
    source: list[Pattern] = []
    target: list[Pattern] = []
    for move in keys:
        source += _patterns(move, move.source)
        target += _patterns(move, move.target)
    return Layout(tuple(source)), Layout(tuple(target))


def batch_of(
    samples: Sequence[Sample],
    columns: Mapping[str, Sequence[Tensor]],
    per_sample: frozenset[str],
    dtypes: Mapping[str, torch.dtype],
) -> PackedBatch:
    """Return the packed inputs of a call.

    `columns` has the tensors of each key, one per sample; the keys of `per_sample` have one number each, the
    others one per token. `dtypes` are the types of keys without samples.
    """
    tokens: dict[str, Sequence[Tensor]] = {}
    singles: dict[str, Sequence[Tensor]] = {}
    for key, tensors in columns.items():
        kind = singles if key in per_sample else tokens
        kind[key] = tensors or [torch.empty(0, dtype=dtypes[key])]

    if tokens and samples:
        _check_lengths(samples, tokens)
        return pack(samples, tokens, singles)
    return PackedBatch(
        tuple(samples),
        cu_seqlens_of([0] * len(samples)),
        _joined(tokens),
        _joined(singles),
    )


def _joined(columns: Mapping[str, Sequence[Tensor]]) -> dict[str, Tensor]:
    return {key: torch.cat(list(tensors)) for key, tensors in columns.items()}


def _check_lengths(samples: Sequence[Sample], tokens: Mapping[str, Sequence[Tensor]]) -> None:
    """Check that all keys of a sample have the same number of elements."""
    (first, reference), *others = tokens.items()
    for key, tensors in others:
        for sample, one, other in zip(samples, reference, tensors, strict=True):
            assert len(one) == len(other), (
                f"sample {sample.id} has {len(one)} elements of {first} but {len(other)} of {key}"
            )


def _patterns(move: KeyMove, samples_by_rank: Mapping[int, Sequence[int]]) -> Iterator[Pattern]:
    """Yield one pattern per key and sample, each of one part, which its ranks hold or lack."""
    ranks_by_sample: dict[int, list[int]] = {}
    for rank, samples in samples_by_rank.items():
        for sample in samples:
            ranks_by_sample.setdefault(sample, []).append(rank)

    for key in move.dtypes:
        for sample, ranks in ranks_by_sample.items():
            name = _local(key, sample)
            length = move.lengths[sample]
            part = Part(tuple(ranks), (0,), (length,), name, (0,))
            yield Pattern(name, (part,))


def _local(key: str, sample: int) -> str:
    """Return the name of the tensor of a sample's key."""
    return f"{key}/{sample}"
