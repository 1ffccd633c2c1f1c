"""What a recipe gives the runtime: its graph, its models, and the body of each call.

Who writes a recipe finds the names of engines and metrics that bodies use here too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias

from realrl.api.config import ModelConfig, OptimizerConfig, RunConfig
from realrl.api.engine import NO_BREAKS as NO_BREAKS
from realrl.api.engine import Breaks as Breaks
from realrl.api.engine import CallEngine as CallEngine
from realrl.api.graph import DataflowGraph
from realrl.api.metrics import Mean as Mean
from realrl.api.metrics import Metrics as Metrics
from realrl.api.metrics import Peak as Peak
from realrl.api.metrics import joined as joined
from realrl.base.progress import Progress, no_progress

if TYPE_CHECKING:  # configs and the command line's help load this module, and have no need of torch
    from torch import Tensor

    from realrl.api.batch import PackedBatch


@dataclass(frozen=True)
class ModelSpec:
    """A model that a graph uses."""

    model: ModelConfig
    head: Literal["lm", "scalar"] = "lm"
    optimizer: OptimizerConfig | None = None
    """Set for a model that some call trains."""


class Dataset(Protocol):
    """Rows that any worker can look up by number; the same on every worker."""

    levels: Sequence[float]
    """Each row's, if those of a lower one come first in an epoch; else empty."""

    def __len__(self) -> int: ...

    def length(self, row: int) -> int:
        """Tokens of the row's longest key."""

    def tensors(self, row: int) -> Mapping[str, Tensor]:
        """The row's source keys, each 1-D."""


@dataclass(frozen=True)
class CallContext:
    """All that the body of a call may use, on one rank."""

    config: Any
    """The recipe's config."""
    step: int
    evaluating: bool
    engine: CallEngine
    """The call's model on this rank; the engine of a compute call, which has no model, refuses everything."""
    dataset: Any
    tokenizer: Any
    reduce: Callable[[Tensor], Tensor]
    """Sum over the call's data-parallel ranks; the same result on each. Collective."""
    reduce_mesh: Callable[[Tensor], Tensor]
    """Sum over all of the call's ranks. Collective."""
    memory: dict[str, Tensor] = field(default_factory=dict)
    """What the call keeps from one step to the next; the same on every rank."""
    progress: Progress = no_progress
    """To be called with each piece of work that is done, as an engine does of its own: what says nothing for
    `call_timeout_s` is taken to hang."""
    breaks: Breaks = NO_BREAKS
    """For what takes long and can be stopped."""


@dataclass(frozen=True)
class CallOutput:
    """What a body returns: the samples with the call's output keys, and metrics.

    On ranks that hold no outputs (a pipeline's earlier stages) both may be left out.
    """

    batch: PackedBatch | None = None
    metrics: Metrics = field(default_factory=dict)
    records: list[dict[str, Any]] = field(default_factory=list)
    """Rollouts worth writing down, as JSON objects."""
    rejected: tuple[int, ...] = ()
    """Ids of samples whose rows are to give way to others, all samples of a row alike: a `Redraw`'s judge
    says so."""


class Criterion(NamedTuple):
    """What tells better weights from worse ones in evaluations."""

    metric: str
    larger_is_better: bool = True


LEAST_LOSS = Criterion("loss", larger_is_better=False)


@dataclass(frozen=True)
class Observed:
    """What a step, or a whole run, looks like from outside."""

    metrics: Mapping[str, float]
    records: Sequence[Mapping[str, Any]] = ()
    """Some rollouts, to show one."""
    is_first_step: bool = False
    """Whether the weights are still those that the run began with."""

    def __getitem__(self, name: str) -> float:
        """Return a metric; 0 where it was not reported."""
        return self.metrics.get(name, 0.0)


class CourseWatch(Protocol):
    """Watches the course of a training run, step by step."""

    def observe(self, step: int, records: Sequence[Mapping[str, Any]]) -> list[str]:
        """Take in the records of a step; return what they show to be wrong for the first time, in words."""

    def warnings(self) -> list[str]:
        """Return everything that was wrong so far, with the step in which it was first found."""


class NoWatch:
    """Watches nothing."""

    def observe(self, step: int, records: Sequence[Mapping[str, Any]]) -> list[str]:
        return []

    def warnings(self) -> list[str]:
        return []


CallBody: TypeAlias = "Callable[[CallContext, PackedBatch], CallOutput]"


@dataclass(frozen=True)
class Recipe:
    """An algorithm."""

    name: str
    default_config: RunConfig
    """Its type is the recipe's config class."""
    graph: Callable[[Any], DataflowGraph]
    eval_graph: Callable[[Any], DataflowGraph]
    """Calls made on held-out rows; a call of the same name as in `graph` runs on the same placement."""
    models: Callable[[Any], Mapping[str, ModelSpec]]
    samples_per_row: Callable[[Any], int]
    """Samples that a step makes of each dataset row."""
    datasets: Callable[[Any, Any], tuple[Dataset, Dataset | None]]
    """`(config, tokenizer) -> (training rows, held-out rows)`; raises ValueError for bad data."""
    bodies: Mapping[str, CallBody]
    best_by: Callable[[Any], Criterion] = lambda config: LEAST_LOSS
    symptoms: Callable[[Any, Any, Observed], list[str]] = lambda config, tokenizer, seen: []
    """`(config, tokenizer, observed)`: what the first step, or the whole run, shows to be wrong, in words."""
    course_watch: Callable[[Any], CourseWatch] = lambda config: NoWatch()
    """`(config)`: what looks at every training step for faults that show in several of them."""
    validate: Callable[[Any, Mapping[str, Any]], None] = lambda config, decoders: None
    """`(config, decoder configs by model)`: checks of the recipe's own; raises ValueError."""
