"""Bookkeeping of a batch: which ranks hold which keys of which samples, and how long those are.

The tensors themselves stay on the workers; `KeyMove` says which of them must travel.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from realrl.api.batch import Sample
from realrl.api.graph import CallKind, ModelFunctionCall
from realrl.api.mesh import Placement
from realrl.api.messages import Done, KeyMove
from realrl.program.balance import assign

Shares = list[list[Sample]]
"""A call's samples by dp_rank."""


class LedgerState(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a ledger knows, as data; see `Ledger`."""

    samples: list[Sample]
    row_lengths: dict[int, int]
    group_size: int
    spare_rows: list[int]
    rejected: list[int]
    lengths: dict[str, dict[int, int]]
    dtypes: dict[str, str]
    holders: dict[str, dict[int, list[int]]]
    shares: dict[str, list[list[Sample]]]


class Ledger:
    """One job's samples."""

    def __init__(
        self,
        samples: Sequence[Sample],
        row_lengths: Mapping[int, int],
        group_size: int,
        spare_rows: Sequence[int] = (),
    ) -> None:
        """`row_lengths`: tokens of each dataset row; `spare_rows`: rows that may replace rejected ones."""
        self.samples = list(samples)
        self.row_lengths = row_lengths
        self.group_size = group_size
        self._spare_rows = deque(spare_rows)
        self._rejected: set[int] = set()
        self.lengths: dict[str, dict[int, int]] = defaultdict(dict)
        """Elements of each key of each sample."""
        self.dtypes: dict[str, str] = {}
        """Type of each key."""
        self.holders: dict[str, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
        """Ranks that hold each key of each sample."""
        self._shares: dict[str, Shares] = {}
        self._lacks: dict[str, tuple[KeyMove, ...]] = {}

    def state(self) -> LedgerState:
        """Return all that it knows, as data."""
        holders: dict[str, dict[int, list[int]]] = {}
        for key, by_sample in self.holders.items():
            holders[key] = {sample: sorted(ranks) for sample, ranks in by_sample.items()}
        return LedgerState(
            samples=list(self.samples),
            row_lengths=dict(self.row_lengths),
            group_size=self.group_size,
            spare_rows=list(self._spare_rows),
            rejected=sorted(self._rejected),
            lengths={key: dict(lengths) for key, lengths in self.lengths.items()},
            dtypes=dict(self.dtypes),
            holders=holders,
            shares={call: [list(share) for share in shares] for call, shares in self._shares.items()},
        )

    @classmethod
    def resumed(cls, state: LedgerState) -> Ledger:
        """Return a ledger that knows what `state` says."""
        ledger = cls(state.samples, state.row_lengths, state.group_size, state.spare_rows)
        ledger._rejected = set(state.rejected)
        ledger.dtypes = dict(state.dtypes)
        ledger._shares = dict(state.shares)
        for key, lengths in state.lengths.items():
            ledger.lengths[key].update(lengths)
        for key, by_sample in state.holders.items():
            for sample, ranks in by_sample.items():
                ledger.holders[key][sample] = set(ranks)
        return ledger

    @property
    def num_tokens(self) -> int:
        """Tokens of every sample, by its longest key."""
        return sum(self._length(sample, tuple(self.lengths)) for sample in self.samples)

    def record_outputs(self, rank: int, done: Done) -> None:
        """Record that `rank` holds the outputs that `done` reports."""
        self._rejected.update(done.rejected)
        if not done.samples:
            return
        for key, lengths in done.lengths.items():
            dtype = self.dtypes.setdefault(key, done.dtypes[key])
            assert dtype == done.dtypes[key], f"{key} has two types"
            for sample, length in zip(done.samples, lengths, strict=True):
                known = self.lengths[key].setdefault(sample, length)
                assert known == length, (
                    f"{key} of sample {sample} has {length} elements on rank {rank}, not {known}"
                )
                self.holders[key][sample].add(rank)

    def record_move(self, keys: Sequence[KeyMove]) -> None:
        """Record that the ranks that lacked samples hold them after this move."""
        for move in keys:
            for key in move.dtypes:
                holders = self.holders[key]
                for rank, samples in move.target.items():
                    for sample in samples:
                        holders[sample].add(rank)
        self._lacks.clear()

    def redraw(self, calls: Sequence[ModelFunctionCall]) -> None:
        """Give rejected samples other rows while there are spare ones; forget what `calls` made of them."""
        groups = sorted({sample // self.group_size for sample in self._rejected})
        made_keys: list[str] = []
        for call in calls:
            made_keys += call.outputs
        for group in groups[: len(self._spare_rows)]:
            row = self._spare_rows.popleft()
            first = group * self.group_size
            for sample in range(first, first + self.group_size):
                self.samples[sample] = Sample(sample, row)
                for key in made_keys:
                    del self.lengths[key][sample]
                    del self.holders[key][sample]
        self._rejected.clear()
        self._lacks.clear()
        for call in calls:
            del self._shares[call.name]

    def shares(self, call: ModelFunctionCall, placement: Placement) -> Shares:
        """Return the samples that lack the call's outputs by dp_rank, balanced by the tokens of its inputs.

        Settled by the first request, until rows are resampled.
        """
        if call.name not in self._shares:
            dp = placement.layout.dp
            samples = [sample for sample in self.samples if not self._has_outputs(call, sample)]
            lengths = [self._length(sample, call.inputs) for sample in samples]
            stays_whole = call.whole_rows or call.kind is CallKind.GENERATE
            dp_ranks = assign(
                lengths,
                dp,
                num_minibatches=call.num_minibatches,
                group_size=self.group_size if stays_whole else 1,
            )
            shares: Shares = [[] for _ in range(dp)]
            for sample, dp_rank in zip(samples, dp_ranks, strict=True):
                shares[dp_rank].append(sample)
            self._shares[call.name] = shares
        return self._shares[call.name]

    def lacking(
        self, call: ModelFunctionCall, keys: Sequence[str], placement: Placement
    ) -> tuple[KeyMove, ...]:
        """Return what must move so that each rank of `placement` holds `keys` of its share of the call.

        Settled by the first request, until samples move or rows are resampled.
        """
        if call.name not in self._lacks:
            self._lacks[call.name] = tuple(self._moves(keys, self._wanted(call, placement)))
        return self._lacks[call.name]

    def _wanted(self, call: ModelFunctionCall, placement: Placement) -> dict[int, list[int]]:
        """Return the samples that each rank is to hold."""
        shares = self.shares(call, placement)
        wanted = {}
        for index, rank in enumerate(placement.ranks):
            dp_rank = placement.layout.coordinate(index).dp_rank
            wanted[rank] = [sample.id for sample in shares[dp_rank]]
        return wanted

    def _moves(self, keys: Sequence[str], wanted: Mapping[int, Sequence[int]]) -> Iterator[KeyMove]:
        """Return one move for all keys of the same lengths and holders, unless no rank lacks them."""
        for group in self._groups_of_keys(keys):
            move = self._move(group, wanted)
            if move.target:
                yield move

    def _groups_of_keys(self, keys: Sequence[str]) -> list[list[str]]:
        groups: list[list[str]] = []
        for key in keys:
            for group in groups:
                if self._are_alike(key, group[0]):
                    group.append(key)
                    break
            else:
                groups.append([key])
        return groups

    def _are_alike(self, one: str, other: str) -> bool:
        return self.lengths[one] == self.lengths[other] and self.holders[one] == self.holders[other]

    def _move(self, keys: Sequence[str], wanted: Mapping[int, Sequence[int]]) -> KeyMove:
        holders = self.holders[keys[0]]
        lengths = self.lengths[keys[0]]
        target = {}
        for rank, samples in wanted.items():
            lacking = [sample for sample in samples if rank not in holders[sample]]
            if lacking:
                target[rank] = tuple(lacking)
        moving = sorted(set().union(*target.values()))
        source: dict[int, list[int]] = defaultdict(list)
        for sample in moving:
            for rank in holders[sample]:
                source[rank].append(sample)
        return KeyMove(
            dtypes={key: self.dtypes[key] for key in keys},
            lengths={sample: lengths[sample] for sample in moving},
            source={rank: tuple(samples) for rank, samples in sorted(source.items())},
            target=target,
        )

    def _has_outputs(self, call: ModelFunctionCall, sample: Sample) -> bool:
        return any(sample.id in self.lengths[key] for key in call.outputs)

    def _length(self, sample: Sample, keys: Sequence[str]) -> int:
        known = [self.lengths[key][sample.id] for key in keys if sample.id in self.lengths[key]]
        return max(known, default=self.row_lengths[sample.row])
