"""What every rank of a run holds while its nodes run one by one, predicted from the config."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from realrl.api.config import ModelConfig, RunConfig, TrainingConfig
from realrl.api.graph import OWN_ENGINE, CallKind
from realrl.api.mesh import ExecutionPlan
from realrl.api.recipe import Recipe
from realrl.api.traits import generation_of, needed_generation
from realrl.layouts.plan import cached_plan
from realrl.models.layout import decoder_layout
from realrl.parallel.groups import links_of
from realrl.planner import vllm_memory as vllm
from realrl.planner.engine_memory import (
    GenerationLoad,
    Load,
    MemoryUse,
    context,
    generation,
    inference,
    resident,
    states_bytes,
    training,
)
from realrl.planner.model_memory import Stage
from realrl.planner.run_inputs import FoundModel, RowFacts, RunInputs
from realrl.planner.transfer_memory import peak_memory
from realrl.program.instructions import Call, Offload, Reallocate, Release, Weights
from realrl.program.jobs import Programs, compile_run
from realrl.program.program import Program
from realrl.realloc.hosts import topology_of

ITEMSIZE_BYTES = {"float32": 4, "bfloat16": 2}


class Moment(NamedTuple):
    """The fullest rank while a node runs."""

    node: str
    rank: int
    use: MemoryUse


@dataclass(frozen=True)
class _Rows:
    """What one pass works on, at most."""

    num_rows: int
    samples_per_row: int
    longest: int
    """Tokens of a row, of all rows as long as the longest."""


def moments(recipe: Recipe, config: RunConfig, plan: ExecutionPlan, inputs: RunInputs) -> list[Moment]:
    """Of a step, then of an evaluation: each call of a model, and each reallocation."""
    programs = compile_run(recipe, config, plan)
    walk = _Walk(config, inputs.models, programs, plan)
    of_a_step = _rows(inputs.rows, config.batch_size, recipe.samples_per_row(config))
    found = list(walk.through(programs.step, of_a_step))
    if inputs.held_out is not None:
        of_an_evaluation = _rows(inputs.held_out, len(inputs.held_out), 1)
        for node, *rest in walk.through(programs.evaluate, of_an_evaluation):
            found.append(Moment(f"{node}, evaluating", *rest))
    return found


def _rows(rows: RowFacts, num_rows: int, samples_per_row: int) -> _Rows:
    return _Rows(num_rows, samples_per_row, rows.longest)


class _Walk:
    """Follows which weights are where."""

    def __init__(
        self,
        config: RunConfig,
        models: Mapping[str, FoundModel],
        programs: Programs,
        plan: ExecutionPlan,
    ) -> None:
        self._config, self._models, self._homes = config, models, programs.homes
        self._placements, self._num_workers = plan.placements.values(), plan.num_workers
        calls = [node for node in programs.step.nodes if isinstance(node, Call)]
        self._is_interruptible = any(call.interruptible for call in calls)
        self._elsewhere = {w for call in calls if call.engine != OWN_ENGINE for w in call.weights}
        """Weights of engines in processes of their own."""
        self._standing: dict[int, MemoryUse] = {}
        """What generation takes, by rank, where it steps aside for other work."""
        self._present: set[Weights] = set()
        self._present |= {
            w for w in map(Weights, *zip(*programs.homes.items())) if not self._model(w).offload
        }

    def through(self, program: Program, rows: _Rows) -> Iterator[Moment]:
        for node in program.nodes:
            if isinstance(node, Reallocate):
                self._present.update(node.writes)
                staging = self._staging(node)
                yield self._fullest(f"reallocate {node.model}", self._in_breaks(node, staging))
            elif isinstance(node, Release):
                self._present.difference_update(node.weights)
            elif isinstance(node, Offload):
                change = self._present.add if node.back else self._present.discard
                change(Weights(node.model, node.placement))
            elif isinstance(node, Call) and node.model:
                working = self._working(node, rows)
                if node.steps_aside:
                    self._standing.update(working)
                else:
                    working = self._in_breaks(node, working)
                yield self._fullest(node.call, working)

    def _in_breaks(self, node: Call | Reallocate, uses: dict[int, MemoryUse]) -> dict[int, MemoryUse]:
        """Beside what generation takes on the ranks that step aside for a node."""
        if isinstance(node, Reallocate) and not self._is_interruptible:
            return uses
        return {rank: use + self._standing.get(rank, MemoryUse()) for rank, use in uses.items()}

    def _fullest(self, node: str, uses: Mapping[int, MemoryUse]) -> Moment:
        held = {rank: self._held(rank) + use for rank, use in uses.items()}
        rank = max(held, key=lambda r: held[r].total_bytes)
        return Moment(node, rank, held[rank])

    def _held(self, rank: int) -> MemoryUse:
        total = context(links_of(self._placements, rank, self._num_workers), self._config.device)
        for weights in {*self._present, *self._elsewhere, *map(Weights, *zip(*self._homes.items()))}:
            if rank in weights.placement.ranks:
                total += self._resident(weights, rank)
        return total

    def _resident(self, weights: Weights, rank: int) -> MemoryUse:
        """On the CPU, what is offloaded counts too."""
        is_home, is_present = self._is_home(weights), weights in self._present
        spec, stage = self._models[weights.model].spec, self._stage(weights, rank)
        if weights.engine != OWN_ENGINE:
            return vllm.standing(stage, needed_generation(self._config), is_present=is_present)
        optimizer = spec.optimizer if is_home else None
        states_elsewhere = optimizer is not None and optimizer.offload
        held = resident(stage, trained=optimizer is not None, states_elsewhere=states_elsewhere)
        if not (is_home and spec.model.offload):
            return held
        use = held if is_present else MemoryUse()
        if self._config.device == "cpu" and (optimizer is None or not is_present):
            use += MemoryUse(held.weights_bytes, states_bytes(stage) if optimizer else 0)
        return use

    def _staging(self, node: Reallocate) -> dict[int, MemoryUse]:
        (goal,) = node.writes
        ends = Weights(node.model, node.source), goal
        layouts = [decoder_layout(self._models[m].decoder, p, self._models[m].spec.head) for m, p, _ in ends]
        found = peak_memory(
            cached_plan(*layouts, topology_of({}, self._config.device)),
            *layouts,
            itemsizes=tuple(map(self._itemsize, ends)),
            staging_bytes=self._config.staging_mib << 20,
            device=self._config.device,
        )
        return {rank: MemoryUse(staging_bytes=memory.staging_bytes) for rank, memory in found.items()}

    def _working(self, node: Call, rows: _Rows) -> dict[int, MemoryUse]:
        (weights,) = node.weights
        return {rank: self._call(node, self._stage(weights, rank), rows) for rank in node.ranks}

    def _call(self, node: Call, stage: Stage, rows: _Rows) -> MemoryUse:
        kind, config = node.function.kind, self._config
        num_rows = -(-rows.num_rows // stage.layout.dp)
        if node.engine != OWN_ENGINE:
            longest = rows.longest + needed_generation(config).max_new_tokens
            num_tokens = num_rows * rows.samples_per_row * longest
            return vllm.generating(stage, needed_generation(config), num_tokens=num_tokens)
        if kind is CallKind.GENERATE:
            sequences = GenerationLoad(
                num_sequences=num_rows * rows.samples_per_row,
                longest_prompt=rows.longest,
                num_prompt_tokens=num_rows * rows.longest,
            )
            budget = config.max_tokens_per_microbatch
            return generation(stage, sequences, needed_generation(config), max_prefill_tokens=budget)
        load = self._load(num_rows, rows, node.function.num_minibatches)
        if kind is CallKind.TRAIN:
            recompute = isinstance(config, TrainingConfig) and config.gradient_checkpointing
            return training(stage, load, recompute=recompute)
        return inference(stage, load)

    def _load(self, num_rows: int, rows: _Rows, num_minibatches: int) -> Load:
        """Full micro-batches, each of whose tokens may be a response's."""
        generated = generation_of(self._config)
        new = 0 if generated is None else generated.max_new_tokens
        num_samples = num_rows * rows.samples_per_row
        shares = isinstance(self._config, TrainingConfig) and self._config.share_prompts
        prompts = num_rows if shares else num_samples
        total = -(-(prompts * rows.longest + num_samples * new) // num_minibatches)
        num_tokens = min(max(self._config.max_tokens_per_microbatch, rows.longest + new), total)
        num_micros = -(-total // num_tokens)
        most = num_samples * new if new else num_tokens
        return Load(num_micros=num_micros, num_tokens=num_tokens, num_logits=min(num_tokens, most))

    def _stage(self, weights: Weights, rank: int) -> Stage:
        model, placement = self._models[weights.model], weights.placement
        return Stage(
            decoder=model.decoder,
            layout=placement.layout,
            place=placement.coordinate(rank),
            head=model.spec.head,
            itemsize=self._itemsize(weights),
            device=self._config.device,
        )

    def _itemsize(self, weights: Weights) -> int:
        model = self._model(weights)
        return ITEMSIZE_BYTES[model.dtype if self._is_home(weights) else model.away_dtype]

    def _is_home(self, weights: Weights) -> bool:
        return weights == Weights(weights.model, self._homes[weights.model])

    def _model(self, weights: Weights) -> ModelConfig:
        return self._models[weights.model].spec.model
