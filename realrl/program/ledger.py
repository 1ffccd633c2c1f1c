"""What the master knows of a batch: which ranks hold which keys of which samples, and how long they are."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence

from realrl.api.batch import Sample
from realrl.api.graph import CallKind, ModelFunctionCall
from realrl.api.mesh import Placement
from realrl.api.messages import Done, KeyMove
from realrl.program.balance import assign

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
        self._lacks: dict[str, tuple[KeyMove, ...]] = {}

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
            dtype = self.dtypes.setdefault(key, done.dtypes[key])
            assert dtype == done.dtypes[key], f"{key} has two types"
            recorded, holders = self.lengths[key], self.holders[key]
            for sample, length in zip(done.samples, lengths, strict=True):
                known = recorded.setdefault(sample, length)
                assert known == length, (
                    f"{key} of sample {sample} has {length} elements on rank {rank}, not {known}"
                )
                holders[sample].add(rank)

    def record_move(self, keys: Sequence[KeyMove]) -> None:
        """The ranks that lacked samples hold them after this move."""
        for move in keys:
            for key in move.dtypes:
                holders = self.holders[key]
                for rank, samples in move.target.items():
                    for sample in samples:
                        holders[sample].add(rank)
        self._lacks.clear()

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
        self._lacks.clear()
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

    def lacking(
        self, call: ModelFunctionCall, keys: Sequence[str], placement: Placement
    ) -> tuple[KeyMove, ...]:
        """What must move so that each rank of `placement` holds `keys` of its share of the call; settled when
        first asked for, until samples move or are drawn again.
        """
        if call.name not in self._lacks:
            self._lacks[call.name] = tuple(self._moves(keys, self._wanted(call, placement)))
        return self._lacks[call.name]

    def _wanted(self, call: ModelFunctionCall, placement: Placement) -> dict[int, list[int]]:
        """The samples that each rank is to hold."""
        shares = [[sample.id for sample in share] for share in self.shares(call, placement)]
        coordinates = map(placement.layout.coordinate, range(placement.layout.size))
        return {rank: shares[c.dp_rank] for rank, c in zip(placement.ranks, coordinates, strict=True)}

    def _moves(self, keys: Sequence[str], wanted: Mapping[int, Sequence[int]]) -> Iterator[KeyMove]:
        """Keys of the same lengths and holders move as one."""
        groups: list[list[str]] = []
        for key in keys:
            alike = next((group for group in groups if self._are_alike(key, group[0])), None)
            if alike is None:
                groups.append([key])
            else:
                alike.append(key)
        moves = (self._move(group, wanted) for group in groups)
        return (move for move in moves if move.target)

    def _are_alike(self, one: str, other: str) -> bool:
        return self.lengths[one] == self.lengths[other] and self.holders[one] == self.holders[other]

    def _move(self, keys: Sequence[str], wanted: Mapping[int, Sequence[int]]) -> KeyMove:
        holders, lengths = self.holders[keys[0]], self.lengths[keys[0]]
        target = {}
        for rank, samples in wanted.items():
            if lacks := tuple([sample for sample in samples if rank not in holders[sample]]):
                target[rank] = lacks
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

    def _length(self, sample: Sample, keys: Sequence[str]) -> int:
        known = [self.lengths[key][sample.id] for key in keys if sample.id in self.lengths[key]]
        return max(known, default=self.row_lengths[sample.row])
