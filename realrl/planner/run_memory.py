"""Predicts, from the config, what every rank of a run holds while its nodes run one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from realrl.api.config import GenerationConfig, ModelConfig, RunConfig
from realrl.api.evals import OF_HELD_OUT, EvalConfig
from realrl.api.graph import OWN_ENGINE, CallKind
from realrl.api.mesh import ExecutionPlan
from realrl.api.recipe import Recipe
from realrl.api.traits import evals_of, needed_generation, with_generation
from realrl.layouts.layout import Layout
from realrl.layouts.plan import cached_plan
from realrl.models.layout import decoder_layout
from realrl.parallel.groups import links_of
from realrl.planner import vllm_memory as vllm
from realrl.planner.engine_memory import (
    MemoryUse,
    context,
    generation,
    inference,
    resident,
    states_bytes,
    training,
)
from realrl.planner.loads import PassRows, generation_load, model_load, recomputes
from realrl.planner.model_memory import Stage
from realrl.planner.run_inputs import FoundModel, RowFacts, RunInputs
from realrl.planner.transfer_memory import peak_memory
from realrl.program.instructions import Offload, Reallocate, Release, RunCall
from realrl.program.jobs import Programs, compile_run
from realrl.program.program import Program
from realrl.program.resources import Weights
from realrl.realloc.hosts import topology_of
from realrl.realloc.transports.by_name import open_transport

ITEMSIZE_BYTES = {"float32": 4, "bfloat16": 2}


class Moment(NamedTuple):
    """The fullest rank while a node runs."""

    node: str
    rank: int
    use: MemoryUse


def moments(recipe: Recipe, config: RunConfig, plan: ExecutionPlan, inputs: RunInputs) -> list[Moment]:
    """Return the moments of a step, then those of the evaluation on each set.

    Each call of a model and each reallocation is a moment.
    """
    programs = compile_run(recipe, config, plan)
    walk = _Walk(config, inputs.models, programs, plan)
    samples_per_row = recipe.samples_per_row(config)
    rows = PassRows(
        num_rows=config.batch_size,
        samples_per_row=samples_per_row,
        longest=inputs.rows.longest,
    )
    found = list(walk.through(programs.step, rows))
    if inputs.held_out is not None:
        found += walk.evaluation(inputs.held_out, OF_HELD_OUT, config, "evaluating")
    for name, facts in inputs.more_sets.items():
        own = evals_of(config)[name]
        sampled_so = with_generation(config, own.generation(needed_generation(config)))
        found += walk.evaluation(facts, own, sampled_so, f"evaluating on {name}")
    return found


class _Walk:
    """Follows where the weights of all models are, from one node of a run to the next."""

    def __init__(
        self,
        config: RunConfig,
        models: Mapping[str, FoundModel],
        programs: Programs,
        plan: ExecutionPlan,
    ) -> None:
        self._config = config
        """The settings of the pass that is followed: an evaluation may generate in its own way."""
        self._models = models
        self._evaluate = programs.evaluate
        self._placements = plan.placements.values()
        self._num_workers = plan.num_workers
        self._homes: dict[str, Weights] = {}
        for model, home in programs.homes.items():
            self._homes[model] = Weights(model, home)
        self._present: set[Weights] = set()
        """Weights that are on the device now."""
        for weights in self._homes.values():
            if not self._model(weights).offload:
                self._present.add(weights)

        calls = [node for node in programs.step.instructions if isinstance(node, RunCall)]
        self._is_interruptible = any(call.interruptible for call in calls)
        self._in_other_engines = _weights_in_other_engines(calls)
        self._standing: dict[int, MemoryUse] = {}
        """What generation takes, by rank, where it is preempted by other work."""

    def through(self, program: Program, rows: PassRows) -> Iterator[Moment]:
        """Yield the fullest rank of each node that takes memory, in the order of the program."""
        for node in program.instructions:
            if isinstance(node, Reallocate):
                self._present.add(_written(node))
                staging = self._staging(node)
                uses = self._while_preempting(node, staging)
                yield self._fullest(f"reallocate {node.model}", uses)
            elif isinstance(node, Release):
                self._present.difference_update(node.weights)
            elif isinstance(node, Offload):
                self._follow_offload(node)
            elif isinstance(node, RunCall) and node.model:
                working = self._working(node, rows)
                yield self._fullest(node.call, working)

    def evaluation(
        self, facts: RowFacts, each: EvalConfig, config: RunConfig, suffix: str
    ) -> Iterator[Moment]:
        """Yield the moments of the evaluation on a set, with `suffix` in their names.

        `config` has the generation of its answers.
        """
        rows = PassRows(
            num_rows=len(facts),
            samples_per_row=each.n,
            longest=facts.longest,
        )
        of_step = self._config
        self._config = config
        for moment in self.through(self._evaluate, rows):
            yield moment._replace(node=f"{moment.node}, {suffix}")
        self._config = of_step

    def _follow_offload(self, node: Offload) -> None:
        """Note that weights were brought to host memory or back."""
        weights = Weights(node.model, node.placement)
        if node.back:
            self._present.add(weights)
        else:
            self._present.discard(weights)

    def _working(self, node: RunCall, rows: PassRows) -> dict[int, MemoryUse]:
        """Return what a call takes on each of its ranks."""
        (weights,) = node.weights
        working = {}
        for rank in node.ranks:
            stage = self._stage(weights, rank)
            working[rank] = self._call(node, stage, rows)
        if not node.preemptible:
            return self._while_preempting(node, working)
        self._standing.update(working)
        return working

    def _while_preempting(
        self, node: RunCall | Reallocate, uses: dict[int, MemoryUse]
    ) -> dict[int, MemoryUse]:
        """Add what generation holds on the ranks where this node preempts it."""
        if isinstance(node, Reallocate) and not self._is_interruptible:
            return uses
        sums = {}
        for rank, use in uses.items():
            standing = self._standing.get(rank, MemoryUse())
            sums[rank] = use + standing
        return sums

    def _fullest(self, node: str, uses: Mapping[int, MemoryUse]) -> Moment:
        """Return the rank that holds most when each takes `uses` in addition to what it holds."""
        found = []
        for rank, use in uses.items():
            held = self._held(rank)
            found.append(Moment(node, rank, held + use))
        return max(found, key=lambda moment: moment.use.total_bytes)

    def _held(self, rank: int) -> MemoryUse:
        """Return what a rank holds between nodes."""
        links = links_of(self._placements, rank, self._num_workers)
        total = context(links, self._config.device)
        everywhere = {
            *self._present,
            *self._in_other_engines,
            *self._homes.values(),
        }
        for weights in everywhere:
            if rank in weights.placement.ranks:
                total += self._resident(weights, rank)
        return total

    def _resident(self, weights: Weights, rank: int) -> MemoryUse:
        """Return what a rank holds of these weights; on the CPU, what is offloaded counts too."""
        is_home = self._is_home(weights)
        is_present = weights in self._present
        stage = self._stage(weights, rank)
        if weights.engine != OWN_ENGINE:
            return vllm.standing(stage, self._generation, is_present=is_present)

        spec = self._models[weights.model].spec
        optimizer = spec.optimizer if is_home else None
        trained = optimizer is not None
        states_elsewhere = optimizer is not None and optimizer.offload
        held = resident(stage, trained=trained, states_elsewhere=states_elsewhere)
        if not (is_home and spec.model.offload):
            return held

        use = held if is_present else MemoryUse()
        if self._config.device != "cpu" or (trained and is_present):
            return use
        host_copy = MemoryUse(
            weights_bytes=held.weights_bytes,
            optimizer_bytes=states_bytes(stage) if trained else 0,
        )
        return use + host_copy

    def _staging(self, node: Reallocate) -> dict[int, MemoryUse]:
        """Return the staging buffers of a reallocation, by rank."""
        origin = Weights(node.model, node.source)
        goal = _written(node)
        source = self._layout(origin)
        destination = self._layout(goal)
        transport = open_transport(self._config.transport, self._config.device)
        topology = topology_of({}, transport)
        found = peak_memory(
            cached_plan(source, destination, topology),
            source,
            destination,
            itemsizes=(self._itemsize(origin), self._itemsize(goal)),
            staging_bytes=self._config.staging_mib << 20,
            device=self._config.device,
            transport=transport,
        )
        staging = {}
        for rank, memory in found.items():
            assert isinstance(rank, int), f"the ranks of a run are numbers, not {rank!r}"
            staging[rank] = MemoryUse(staging_bytes=memory.staging_bytes)
        return staging

    def _call(self, node: RunCall, stage: Stage, rows: PassRows) -> MemoryUse:
        """Return what a call takes on one rank in addition to what the rank holds."""
        config = self._config
        kind = node.function.kind
        own_rows = rows.on_each(stage.layout.dp)
        if node.engine != OWN_ENGINE:
            longest = own_rows.longest + self._generation.max_new_tokens
            num_tokens = own_rows.num_samples * longest
            return vllm.generating(stage, self._generation, num_tokens=num_tokens)
        if kind is CallKind.GENERATE:
            return generation(
                stage,
                generation_load(own_rows),
                self._generation,
                max_prefill_tokens=config.max_tokens_per_microbatch,
            )
        load = model_load(config, own_rows, node.function.num_minibatches)
        if kind is CallKind.TRAIN:
            return training(stage, load, recompute=recomputes(config))
        return inference(stage, load)

    @property
    def _generation(self) -> GenerationConfig:
        """How this run generates."""
        return needed_generation(self._config)

    def _stage(self, weights: Weights, rank: int) -> Stage:
        """Return a rank's part of these weights."""
        model = self._models[weights.model]
        placement = weights.placement
        return Stage(
            decoder=model.decoder,
            layout=placement.layout,
            place=placement.coordinate(rank),
            head=model.spec.head,
            itemsize=self._itemsize(weights),
            device=self._config.device,
        )

    def _layout(self, weights: Weights) -> Layout:
        """Return which rank holds which boxes of these weights."""
        model = self._models[weights.model]
        return decoder_layout(model.decoder, weights.placement, model.spec.head)

    def _itemsize(self, weights: Weights) -> int:
        """Return the bytes of an element of these weights."""
        model = self._model(weights)
        dtype = model.dtype if self._is_home(weights) else model.away_dtype
        return ITEMSIZE_BYTES[dtype]

    def _is_home(self, weights: Weights) -> bool:
        """Return whether these are the model's own weights, and not a replica."""
        home = self._homes[weights.model]
        return weights == home

    def _model(self, weights: Weights) -> ModelConfig:
        """Return the settings of the model that these weights are of."""
        found = self._models[weights.model]
        return found.spec.model


def _written(node: Reallocate) -> Weights:
    """Return the weights that a reallocation writes."""
    return Weights(node.into, node.target, node.engine)


def _weights_in_other_engines(calls: Iterable[RunCall]) -> set[Weights]:
    """Return the weights that calls use in engines that are processes of their own."""
    found: set[Weights] = set()
    for call in calls:
        if call.engine != OWN_ENGINE:
            found.update(call.weights)
    return found
