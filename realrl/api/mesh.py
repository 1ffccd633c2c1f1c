"""Where a call runs: ranks, and how a model is cut over them."""

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
    """Chunks of layers on each pipeline stage: the model goes through the stages so often (interleaved
    stages; Narayanan et al. 2021, arXiv:2104.04473, section 2.2.2). No axis of the mesh."""

    def __post_init__(self) -> None:
        for axis in ("pp", "dp", "tp", "vp"):
            if (degree := getattr(self, axis)) < 1:
                raise ValueError(f"layout.{axis} must be at least 1, got {degree}")
        if self.vp > 1 and self.pp == 1:
            raise ValueError(f"layout.vp must be 1 where there is one pipeline stage, got {self.vp}")

    @property
    def size(self) -> int:
        return self.pp * self.dp * self.tp

    def coordinate(self, index: int) -> Coordinate:
        """The place of the mesh's `index`-th rank."""
        rest, tp_rank = divmod(index, self.tp)
        pp_rank, dp_rank = divmod(rest, self.dp)
        return Coordinate(pp_rank, dp_rank, tp_rank)

    def index(self, pp_rank: int, dp_rank: int, tp_rank: int) -> int:
        """The inverse of `coordinate`."""
        return (pp_rank * self.dp + dp_rank) * self.tp + tp_rank

    def __str__(self) -> str:
        interleaved = f"v{self.vp}" if self.vp > 1 else ""
        return f"p{self.pp}{interleaved}d{self.dp}t{self.tp}"


@dataclass(frozen=True, order=True)
class DeviceMesh:
    """A set of global ranks, in ascending order: the order that a process group gives them too."""

    ranks: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.ranks or list(self.ranks) != sorted(set(self.ranks)) or self.ranks[0] < 0:
            raise ValueError(f"a mesh needs distinct ranks from 0 up in ascending order, got {[*self.ranks]}")

    def __str__(self) -> str:
        first, last = self.ranks[0], self.ranks[-1]
        if len(self.ranks) > 1 and self.ranks == tuple(range(first, last + 1)):
            return f"[{first}-{last}]"
        return "[" + ",".join(map(str, self.ranks)) + "]"


@dataclass(frozen=True, order=True)
class Placement:
    """A layout laid over a mesh."""

    mesh: DeviceMesh
    layout: ParallelLayout

    def __post_init__(self) -> None:
        if len(self.mesh.ranks) != self.layout.size:
            raise ValueError(
                f"layout {self.layout} needs {self.layout.size} ranks,"
                f" the mesh {self.mesh} has {len(self.mesh.ranks)}"
            )

    @property
    def ranks(self) -> tuple[int, ...]:
        return self.mesh.ranks

    def coordinate(self, rank: int) -> Coordinate:
        """The place of a global rank."""
        return self.layout.coordinate(self.mesh.ranks.index(rank))

    def rank(self, *, pp_rank: int = 0, dp_rank: int = 0, tp_rank: int = 0) -> int:
        """The global rank at a place."""
        return self.mesh.ranks[self.layout.index(pp_rank, dp_rank, tp_rank)]

    def data_parallel(self) -> Placement:
        """The same ranks, each with a share of its own."""
        return Placement(self.mesh, ParallelLayout(dp=self.layout.size))

    def dp_slice(self, dp_rank: int) -> tuple[int, ...]:
        """The ranks that work on one data-parallel share of a batch."""
        return tuple(r for r in self.ranks if self.coordinate(r).dp_rank == dp_rank)

    def output_ranks(self, dp_rank: int) -> tuple[int, ...]:
        """The ranks that hold a call's outputs for one share: the last stage's tensor-parallel ranks."""
        last = self.layout.pp - 1
        return tuple(self.rank(pp_rank=last, dp_rank=dp_rank, tp_rank=t) for t in range(self.layout.tp))

    def __str__(self) -> str:
        return f"{self.layout}@{self.mesh}"


@dataclass(frozen=True)
class ExecutionPlan:
    """Where each call of a graph runs."""

    placements: Mapping[str, Placement]

    @property
    def num_workers(self) -> int:
        return 1 + max(max(p.ranks) for p in self.placements.values())

    def __getitem__(self, call: str) -> Placement:
        return self.placements[call]
