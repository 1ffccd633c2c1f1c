"""What the master knows of a batch: which ranks hold which keys of which samples, and how long they are."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence

from realrl.api.batch import Sample
from realrl.api.graph import CallKind, ModelFunctionCall
from realrl.api.mesh import Placement
from realrl.api.messages import Done, KeyMove
from realrl.runtime.balance import assign

Shares = list[list[Sample]]
"""A call's samples by dp_rank."""


class Ledger:
    """One job's samples."""

    def __init__(
        self,
        samples: Sequence[Sample],
        row_lengths: Mapping[int, int],
        group_size: int,
        spare_rows: Sequence[int] = (),
    ) -> None:
        self.samples = list(samples)
        self.row_lengths = row_lengths
        self.group_size = group_size
        self._spare_rows = deque(spare_rows)
        self._rejected: set[int] = set()
        self.lengths: dict[str, dict[int, int]] = defaultdict(dict)
        self.dtypes: dict[str, str] = {}
        self.holders: dict[str, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
        self._shares: dict[str, Shares] = {}

    @property
    def num_tokens(self) -> int:
        """Tokens of every sample, by its longest key."""
        return sum(self._length(sample, tuple(self.lengths)) for sample in self.samples)

    def record_outputs(self, rank: int, done: Done) -> None:
        """`rank` now holds the outputs that `done` reports."""
        self._rejected.update(done.rejected)
        if not done.samples:
            return
        for key, lengths in done.lengths.items():
            assert self.dtypes.setdefault(key, done.dtypes[key]) == done.dtypes[key], f"{key} has two types"
            for sample, length in zip(done.samples, lengths, strict=True):
                known = self.lengths[key].setdefault(sample, length)
                assert known == length, (
                    f"{key} of sample {sample} has {length} elements on rank {rank}, not {known}"
                )
                self.holders[key][sample].add(rank)

    def record_move(self, keys: Sequence[KeyMove]) -> None:
        """The ranks that lacked samples hold them after this move."""
        for move in keys:
            for rank, samples in move.target.items():
                for sample in samples:
                    self.holders[move.key][sample].add(rank)

    def redraw(self, calls: Sequence[ModelFunctionCall]) -> None:
        """Give rejected samples other rows, as long as there are, and forget what `calls` made of them."""
        groups = sorted({sample // self.group_size for sample in self._rejected})
        for group in groups[: len(self._spare_rows)]:
            row = self._spare_rows.popleft()
            for id in range(group * self.group_size, (group + 1) * self.group_size):
                self.samples[id] = Sample(id, row)
                for key in (key for call in calls for key in call.outputs):
                    del self.lengths[key][id], self.holders[key][id]
        self._rejected.clear()
        for call in calls:
            del self._shares[call.name]

    def shares(self, call: ModelFunctionCall, placement: Placement) -> Shares:
        """The samples that lack the call's outputs by dp_rank, balanced by its inputs' tokens; settled when
        first asked for.
        """
        if call.name not in self._shares:
            dp = placement.layout.dp
            samples = [s for s in self.samples if not any(s.id in self.lengths[k] for k in call.outputs)]
            dp_ranks = assign(
                [self._length(sample, call.inputs) for sample in samples],
                dp,
                num_minibatches=call.num_minibatches,
                group_size=self.group_size if call.kind is CallKind.GENERATE else 1,
            )
            shares: Shares = [[] for _ in range(dp)]
            for sample, dp_rank in zip(samples, dp_ranks, strict=True):
                shares[dp_rank].append(sample)
            self._shares[call.name] = shares
        return self._shares[call.name]

    def lacking(self, keys: Sequence[str], shares: Shares, placement: Placement) -> tuple[KeyMove, ...]:
        """What must move so that each rank of `placement` holds `keys` of its share."""
        moves = (self._lacking(key, shares, placement) for key in keys)
        return tuple(move for move in moves if move.target)

    def _lacking(self, key: str, shares: Shares, placement: Placement) -> KeyMove:
        holders = self.holders[key]
        target = {}
        for rank in placement.ranks:
            share = shares[placement.coordinate(rank).dp_rank]
            if lacks := tuple(sample.id for sample in share if rank not in holders[sample.id]):
                target[rank] = lacks
        wanted = {sample for samples in target.values() for sample in samples}
        source: dict[int, list[int]] = defaultdict(list)
        for sample in sorted(wanted):
            for rank in sorted(holders[sample]):
                source[rank].append(sample)
        return KeyMove(
            key=key,
            dtype=self.dtypes[key],
            lengths={sample: self.lengths[key][sample] for sample in sorted(wanted)},
            source={rank: tuple(samples) for rank, samples in sorted(source.items())},
            target=target,
        )

    def _length(self, sample: Sample, keys: Sequence[str]) -> int:
        known = [self.lengths[key][sample.id] for key in keys if sample.id in self.lengths[key]]
        return max(known, default=self.row_lengths[sample.row])
