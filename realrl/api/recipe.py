"""What a recipe gives the runtime: its graph, its models, and the body of each call.

    Recipe ── graph(config) ──▶ calls ── the body of each: CallContext, PackedBatch ──▶ CallOutput
      └─ checked when it is made: every call has a body, every input a producer, every name is known

Who writes a recipe finds the names of engines and metrics that bodies use here too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, Protocol, TypeAlias, cast

from typing_extensions import TypeVar

from realrl.api.config import ModelConfig, OptimizerConfig, RunConfig, TrainingConfig
from realrl.api.data import RowSet
from realrl.api.engine import NO_PREEMPTION as NO_PREEMPTION
from realrl.api.engine import CallEngine as CallEngine
from realrl.api.engine import Preemption as Preemption
from realrl.api.graph import DataflowGraph
from realrl.api.metrics import Mean as Mean
from realrl.api.metrics import Metrics as Metrics
from realrl.api.metrics import Peak as Peak
from realrl.api.metrics import joined as joined
from realrl.base.progress import Progress, no_progress

if TYPE_CHECKING:  # configs and the command line's help load this module, and have no need of torch
    from torch import Tensor

    from realrl.api.batch import PackedBatch

C = TypeVar("C", bound=RunConfig, default=RunConfig)
"""The config of a recipe; the runtime's `Recipe` is of any."""
C_co = TypeVar("C_co", bound=RunConfig, covariant=True, default=RunConfig)
"""The config that a body reads: a body for a more general config serves every recipe of such configs."""


@dataclass(frozen=True)
class ModelSpec:
    """A model that a graph uses."""

    model: ModelConfig
    head: Literal["lm", "scalar"] = "lm"
    optimizer: OptimizerConfig | None = None
    """Set for a model that some call trains."""


class Dataset(Protocol):
    """Rows that any worker can look up by number; the same on every worker."""

    @property
    def levels(self) -> Sequence[float]:
        """The level of each row, if rows of a lower one come first in an epoch; else empty."""

    @property
    def sets(self) -> Sequence[RowSet]:
        """The data sets of which each batch has a share, in the order of their rows; else empty."""

    def __len__(self) -> int: ...

    def length(self, row: int) -> int:
        """Tokens of the row's longest key."""

    def tensors(self, row: int) -> Mapping[str, Tensor]:
        """The row's source keys, each 1-D."""


@dataclass(frozen=True)
class CallContext(Generic[C_co]):
    """All that the body of a call may use, on one rank."""

    config: C_co
    """The recipe's config."""
    step: int
    eval_set: str
    """The set that an evaluation is on; empty in a step."""
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
    preemption: Preemption = NO_PREEMPTION
    """For what takes long and can be stopped."""

    @property
    def evaluating(self) -> bool:
        """Whether this is an evaluation, and not a step."""
        return bool(self.eval_set)


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
    """Ids of samples whose rows are to be replaced by others, all samples of a row alike: a `Redraw`'s judge
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
        """Return nothing."""
        return []

    def warnings(self) -> list[str]:
        """Return nothing."""
        return []


Records: TypeAlias = "Sequence[Mapping[str, Any]]"
"""What calls recorded of each sample of a job, in order."""
CallBody: TypeAlias = "Callable[[CallContext[C], PackedBatch], CallOutput]"


@dataclass(frozen=True)
class Recipe(Generic[C]):
    """An algorithm.

    Raises:
        ValueError: with its own defaults, its graphs, models and bodies do not fit each other; see `check`.
    """

    name: str
    default_config: C
    """Its type is the recipe's config class."""
    graph: Callable[[C], DataflowGraph]
    eval_graph: Callable[[C], DataflowGraph]
    """Calls made on held-out rows; a call of the same name as in `graph` runs on the same placement."""
    models: Callable[[C], Mapping[str, ModelSpec]]
    samples_per_row: Callable[[C], int]
    """Samples that a step makes of each dataset row."""
    datasets: Callable[[C, Any], tuple[Dataset, Dataset | None]]
    """`(config, tokenizer) -> (training rows, held-out rows)`; raises ValueError for bad data."""
    row_keys: tuple[str, ...]
    """The keys that a dataset's row gives to calls."""
    bodies: Mapping[str, CallBody[C]]
    """By the name of the call; those of calls that only some configs have may be among them."""
    eval_sets: Callable[[C, Any], Mapping[str, Dataset]] = lambda config, tokenizer: {}
    """`(config, tokenizer)`: further sets of held-out rows, by name; raises ValueError for bad data."""
    criteria: Callable[[C, str], Sequence[Criterion]] = lambda config, eval_set: (LEAST_LOSS,)
    """`(config, set)`: what may tell better weights from worse ones in evaluations on a set; the first is the
    main one."""
    eval_scores: Callable[[C, str, Records], Mapping[str, float]] = lambda config, eval_set, records: {}
    """`(config, set, records)`: what an evaluation reports of all its samples together, from their records in
    order."""
    symptoms: Callable[[C, Any, Observed], list[str]] = lambda config, tokenizer, seen: []
    """`(config, tokenizer, observed)`: what the first step, or the whole run, shows to be wrong, in words."""
    course_watch: Callable[[C], CourseWatch] = lambda config: NoWatch()
    """`(config)`: what looks at every training step for faults that show in several of them."""
    beside_weights: Callable[[C, Mapping[str, float]], Mapping[str, str]] = lambda config, metrics: {}
    """`(config, metrics of the latest training step)`: text files to write next to a checkpoint's weights, by
    their paths in the checkpoint."""
    validate: Callable[[C, Mapping[str, Any]], None] = lambda config, decoders: None
    """`(config, decoder configs by model)`: checks of the recipe's own; raises ValueError."""

    def __post_init__(self) -> None:
        self.check(self.default_config)

    def check(self, config: C) -> None:
        """Check that the graphs of a config can run with the recipe's models, bodies and rows.

        Raises:
            ValueError: a call without a body, an input without a producer, or a name that is not known.
        """
        graph = self.graph(config)
        if graph.trains != isinstance(config, TrainingConfig):
            raise ValueError(
                f"recipe {self.name}: expected a TrainingConfig where the graph trains, and only there"
            )
        models = self.models(config)
        for each in (graph, self.eval_graph(config)):
            self._check_calls(each, models)
            self._check_keys(each)

    def _check_calls(self, graph: DataflowGraph, models: Mapping[str, ModelSpec]) -> None:
        for call in graph.calls.values():
            if call.name not in self.bodies:
                raise self._misfit(f"call {call.name} has no body", self.bodies)
            if call.model is not None and call.model not in models:
                what = f"call {call.name} uses the model {call.model!r}"
                raise self._misfit(what, models)

    def _check_keys(self, graph: DataflowGraph) -> None:
        made = {*graph.producer, *self.row_keys}
        for call in graph.calls.values():
            for key in call.inputs:
                if key not in made:
                    what = f"call {call.name} takes the key {key!r}, which nothing makes"
                    raise self._misfit(what, sorted(made))

    def of_any(self) -> Recipe:
        """Return the recipe as the runtime has it, which gives it no config but one of its own class."""
        return cast("Recipe", self)

    def _misfit(self, what: str, known: Iterable[str]) -> ValueError:
        return ValueError(f"recipe {self.name}: {what}; there are {', '.join(known) or 'none'}")
