"""The samples that one worker holds, by job, key and sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from realrl.api.batch import PackedBatch
from realrl.api.messages import KeyMove
from realrl.layouts.layout import Layout, Part, Pattern
from realrl.layouts.plan import plan
from realrl.layouts.topology import Topology
from realrl.program.instructions import Move
from realrl.realloc.transfer import Transfer, TransferSettings

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
        transfer = Transfer(
            plan(held, lacked, self._topology),
            rank=self._rank,
            settings=self._settings,
        )
        transfer.run(source, target)

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
