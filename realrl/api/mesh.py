"""Where a call runs: on which ranks, and how a model is sharded over them.

ExecutionPlan ── call ──▶ Placement ──┬─▶ DeviceMesh: global ranks
                                      └─▶ ParallelLayout: pp x dp x tp, a Coordinate for each rank
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple


class Coordinate(NamedTuple):
    """One rank's place on each axis of a mesh."""

    pp_rank: int
    dp_rank: int
    tp_rank: int


@dataclass(frozen=True, kw_only=True, order=True)
class ParallelLayout:
    """A 3D-parallel layout of `pp * dp * tp` ranks, pipeline axis outermost, tensor axis innermost."""

    pp: int = 1
    """Pipeline stages."""
    dp: int = 1
    """Data-parallel replicas."""
    tp: int = 1
    """Tensor-parallel shards of each weight."""
    vp: int = 1
    """Model chunks per pipeline stage: a micro-batch passes every stage `vp` times (interleaved stages;
    Narayanan et al. 2021, arXiv:2104.04473, section 2.2.2). It is not an axis of the mesh."""

    def __post_init__(self) -> None:
        for axis in ("pp", "dp", "tp", "vp"):
            degree = getattr(self, axis)
            if degree < 1:
                raise ValueError(f"layout.{axis} must be at least 1, got {degree}")
        if self.vp > 1 and self.pp == 1:
            raise ValueError(f"layout.vp must be 1 where there is one pipeline stage, got {self.vp}")

    @property
    def size(self) -> int:
        """The number of ranks."""
        return self.pp * self.dp * self.tp

    def coordinate(self, index: int) -> Coordinate:
        """Return the place of the mesh's `index`-th rank."""
        rest, tp_rank = divmod(index, self.tp)
        pp_rank, dp_rank = divmod(rest, self.dp)
        return Coordinate(pp_rank, dp_rank, tp_rank)

    def index(self, pp_rank: int, dp_rank: int, tp_rank: int) -> int:
        """Return the index of the rank at a place: the inverse of `coordinate`."""
        row = pp_rank * self.dp + dp_rank
        return row * self.tp + tp_rank

    def __str__(self) -> str:
        interleaved = f"v{self.vp}" if self.vp > 1 else ""
        return f"p{self.pp}{interleaved}d{self.dp}t{self.tp}"


@dataclass(frozen=True, order=True)
class DeviceMesh:
    """A set of global ranks in ascending order, which is also their order in a process group."""

    ranks: tuple[int, ...]

    def __post_init__(self) -> None:
        ranks = list(self.ranks)
        is_ascending = ranks == sorted(set(ranks))
        if not ranks or not is_ascending or ranks[0] < 0:
            raise ValueError(f"a mesh needs distinct ranks from 0 up in ascending order, got {ranks}")

    def __str__(self) -> str:
        first = self.ranks[0]
        last = self.ranks[-1]
        # Distinct ranks in order leave no gap if there are as many as numbers.
        if last > first and last - first + 1 == len(self.ranks):
            return f"[{first}-{last}]"
        names = ",".join(map(str, self.ranks))
        return f"[{names}]"


@dataclass(frozen=True, order=True)
class Placement:
    """A layout laid over a mesh."""

    mesh: DeviceMesh
    layout: ParallelLayout

    def __post_init__(self) -> None:
        num_ranks = len(self.mesh.ranks)
        if num_ranks != self.layout.size:
            raise ValueError(
                f"layout {self.layout} needs {self.layout.size} ranks, the mesh {self.mesh} has {num_ranks}"
            )

    @property
    def ranks(self) -> tuple[int, ...]:
        """The global ranks, in ascending order."""
        return self.mesh.ranks

    def coordinate(self, rank: int) -> Coordinate:
        """Return the place of a global rank."""
        index = self.mesh.ranks.index(rank)
        return self.layout.coordinate(index)

    def rank(self, *, pp_rank: int = 0, dp_rank: int = 0, tp_rank: int = 0) -> int:
        """Return the global rank at a place."""
        index = self.layout.index(pp_rank, dp_rank, tp_rank)
        return self.mesh.ranks[index]

    def data_parallel(self) -> Placement:
        """Return the same ranks with a data-parallel share for each."""
        layout = ParallelLayout(dp=self.layout.size)
        return Placement(self.mesh, layout)

    def dp_slice(self, dp_rank: int) -> tuple[int, ...]:
        """Return the ranks that work on one data-parallel share of a batch."""
        found = []
        for rank in self.ranks:
            place = self.coordinate(rank)
            if place.dp_rank == dp_rank:
                found.append(rank)
        return tuple(found)

    def output_ranks(self, dp_rank: int) -> tuple[int, ...]:
        """Return the ranks that hold a call's outputs for one share: the tensor-parallel ranks of the last
        stage.
        """
        last = self.layout.pp - 1
        found = []
        for tp_rank in range(self.layout.tp):
            rank = self.rank(pp_rank=last, dp_rank=dp_rank, tp_rank=tp_rank)
            found.append(rank)
        return tuple(found)

    def __str__(self) -> str:
        return f"{self.layout}@{self.mesh}"


@dataclass(frozen=True)
class ExecutionPlan:
    """Where each call of a graph runs."""

    placements: Mapping[str, Placement]

    @property
    def num_workers(self) -> int:
        """The number of workers: ranks are numbered from 0 without gaps."""
        last_ranks = [max(placement.ranks) for placement in self.placements.values()]
        return 1 + max(last_ranks)

    def __getitem__(self, call: str) -> Placement:
        return self.placements[call]
