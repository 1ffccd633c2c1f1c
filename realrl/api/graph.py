"""The algorithm as a graph: model function calls, joined by the keys that they make and use."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum

OWN_ENGINE = "realrl"


class CallKind(str, Enum):
    """What a call does with its model."""

    GENERATE = "generate"
    INFERENCE = "inference"
    TRAIN = "train"
    COMPUTE = "compute"
    """Plain Python on the samples, no model."""


@dataclass(frozen=True)
class ModelFunctionCall:
    """A node of the graph."""

    name: str
    model: str | None
    kind: CallKind
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    num_minibatches: int = 1
    """Optimizer steps that a train call makes of one batch, each balanced over its ranks."""
    engine: str = OWN_ENGINE
    """What runs it; another engine than realrl's own gets a replica of the weights to itself."""
    beside: str | None = None
    """The call whose ranks and layout this compute call gets, unless a plan places it by name. The ranks that
    hold one share of the samples then all do the same, so that each has the outputs that it needs there. With
    inputs of the same length and as many `num_minibatches`, both calls have the same samples on each rank."""
    whole_rows: bool = False
    """Whether all samples of a dataset row are on one data-parallel rank; a generate call always has them
    so. They must be in one mini-batch."""

    def __post_init__(self) -> None:
        has_model = self.model is not None
        needs_model = self.kind is not CallKind.COMPUTE
        if has_model != needs_model:
            raise ValueError(
                f"call {self.name}: a {self.kind.value} call and model={self.model!r} do not go together"
            )
        if self.beside is not None and self.kind is not CallKind.COMPUTE:
            raise ValueError(f"call {self.name}: beside is for compute calls, not {self.kind.value}")
        if self.whole_rows and self.num_minibatches > 1:
            raise ValueError(
                f"call {self.name}: whole_rows and {self.num_minibatches} mini-batches do not go together: a"
                " row may be in two of them"
            )
        if self.engine != OWN_ENGINE and self.kind is not CallKind.GENERATE:
            raise ValueError(f"call {self.name}: {self.engine} is for generate calls, not {self.kind.value}")


@dataclass(frozen=True)
class Blend:
    """Once a pass has trained `source`, `target` moves towards it by the share `eta`."""

    source: str
    target: str
    eta: float


@dataclass(frozen=True)
class Redraw:
    """Dynamic sampling: rows whose samples the call `judge` rejects are replaced by others of the dataset.

    The calls up to the judge are repeated for those.
    """

    judge: str
    max_draws: int
    """Rows tried in one place of the batch; what is rejected then stays."""


class DataflowGraph:
    """Calls in an order in which each key's producer stands before its consumers.

    Keys that no call makes are `source_keys`: the dataset gives them.

    Raises:
        ValueError: a name or a key made twice, a cycle, a name that is not known, or a blend or a redraw that
            does not fit.
    """

    def __init__(
        self,
        *calls: ModelFunctionCall,
        per_sample: tuple[str, ...] = (),
        blends: tuple[Blend, ...] = (),
        redraw: Redraw | None = None,
    ) -> None:
        self.per_sample = frozenset(per_sample)
        """Keys with one number a sample; every other key has one a token."""
        self.blends = blends
        """What models become of others at the end of a pass."""
        self.redraw = redraw
        self.producer = _producers(calls)
        self.calls = self._ordered({call.name: call for call in calls})
        self._check_beside()
        self._check_blends()
        self._check_redraw()
        self._check_per_sample()

    def _ordered(self, pending: dict[str, ModelFunctionCall]) -> dict[str, ModelFunctionCall]:
        done: dict[str, ModelFunctionCall] = {}
        while pending:
            ready = [call for call in pending.values() if self._is_fed(call, pending)]
            if not ready:
                raise ValueError(f"calls wait for each other in a circle: {sorted(pending)}")
            for call in ready:
                done[call.name] = pending.pop(call.name)
        return done

    def _is_fed(self, call: ModelFunctionCall, pending: Collection[str]) -> bool:
        """Whether no pending call makes an input of this one."""
        return all(self.producer.get(key) not in pending for key in call.inputs)

    def _check_beside(self) -> None:
        for call in self.calls.values():
            if call.beside is not None and call.beside not in self.calls:
                raise ValueError(f"call {call.name}: beside {call.beside!r}, which is no call")

    def _check_blends(self) -> None:
        for blend in self.blends:
            is_possible = blend.source in self.trained and blend.target not in self.trained
            if not is_possible or blend.target not in self.models:
                raise ValueError(
                    f"{blend}: expected a model that the graph trains, into one that it only uses"
                )

    def _check_redraw(self) -> None:
        if self.redraw is None:
            return
        if self.redraw.judge not in self.calls:
            raise ValueError(f"{self.redraw}: expected a call as the judge, one of {', '.join(self.calls)}")
        if any(call.kind is CallKind.TRAIN for call in self.redrawn):
            raise ValueError(f"{self.redraw}: expected a call that comes before training")

    def _check_per_sample(self) -> None:
        unknown = sorted(self.per_sample - self.producer.keys() - self.source_keys)
        if unknown:
            raise ValueError(f"per_sample: {', '.join(unknown)} is a key of no call")

    @property
    def source_keys(self) -> frozenset[str]:
        """The inputs of calls that no call makes."""
        used: set[str] = set()
        for call in self.calls.values():
            used.update(call.inputs)
        return frozenset(used - self.producer.keys())

    @property
    def redrawn(self) -> tuple[ModelFunctionCall, ...]:
        """The calls that are repeated for another row: the judge, and those that it waits for."""
        if self.redraw is None:
            return ()
        names = {self.redraw.judge}
        for name in reversed(self.calls):
            if name in names:
                names |= self.producers(name).keys()
        return tuple(call for name, call in self.calls.items() if name in names)

    def producers(self, call: str) -> dict[str, tuple[str, ...]]:
        """The calls that `call` waits for, each with the keys it gives."""
        given: dict[str, tuple[str, ...]] = {}
        for key in self.calls[call].inputs:
            maker = self.producer.get(key)
            if maker is not None:
                earlier = given.get(maker, ())
                given[maker] = (*earlier, key)
        return given

    @property
    def trains(self) -> bool:
        """Whether any call does."""
        return any(call.kind is CallKind.TRAIN for call in self.calls.values())

    @property
    def trained(self) -> tuple[str, ...]:
        """The models that some call trains."""
        models: dict[str, None] = {}
        for call in self.calls.values():
            if call.kind is CallKind.TRAIN and call.model is not None:
                models[call.model] = None
        return tuple(models)

    @property
    def changed(self) -> tuple[str, ...]:
        """The models that have other weights after a pass: trained ones, then targets of blends."""
        blended = [blend.target for blend in self.blends]
        return tuple(dict.fromkeys((*self.trained, *blended)))

    @property
    def models(self) -> tuple[str, ...]:
        """The models that calls use, each once."""
        used = [call.model for call in self.calls.values() if call.model]
        return tuple(dict.fromkeys(used))


def _producers(calls: Sequence[ModelFunctionCall]) -> dict[str, str]:
    """Return the name of the call that makes each key."""
    names = [call.name for call in calls]
    if len(set(names)) != len(names):
        raise ValueError(f"two calls have one name among {names}")
    producer: dict[str, str] = {}
    for call in calls:
        for key in call.outputs:
            if key in producer:
                raise ValueError(f"key {key!r} is made by both {producer[key]} and {call.name}")
            producer[key] = call.name
    return producer
