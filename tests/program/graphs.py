"""Random dataflow graphs and placements, and workers that only pretend."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

from hypothesis import strategies as st

from realrl.api.config import ModelConfig
from realrl.api.graph import OWN_ENGINE, CallKind, DataflowGraph, ModelFunctionCall, Redraw
from realrl.api.mesh import DeviceMesh, ExecutionPlan, ParallelLayout, Placement
from realrl.api.messages import Done, Preempt
from realrl.program.events import Closed, Job, Reported, Stage
from realrl.program.instructions import Instruction, Move, RunCall
from realrl.program.jobs import in_order, samples_of
from realrl.program.program import (
    SYNCHRONOUS,
    Asynchrony,
    compile_program,
    compile_recovery,
    compile_save,
    home_placements,
)
from realrl.program.scheduler import Scheduler

LAYOUTS = [
    ParallelLayout(pp=pp, dp=dp, tp=tp)
    for pp in (1, 2)
    for dp in (1, 2, 3)
    for tp in (1, 2)
    if pp * dp * tp <= 4
]


def ppo_graph(redraw: Redraw | None = None) -> DataflowGraph:
    rollout = ("input_ids", "logprobs")
    scored = (*rollout, "rewards", "values")
    return DataflowGraph(
        ModelFunctionCall("actor_gen", "actor", CallKind.GENERATE, ("prompts",), rollout),
        ModelFunctionCall("reward", None, CallKind.COMPUTE, ("input_ids",), ("rewards",)),
        ModelFunctionCall("critic_inf", "critic", CallKind.INFERENCE, ("input_ids",), ("values",)),
        ModelFunctionCall("actor_train", "actor", CallKind.TRAIN, scored),
        ModelFunctionCall("critic_train", "critic", CallKind.TRAIN, scored, num_minibatches=2),
        per_sample=("rewards",),
        redraw=redraw,
    )


def place(first: int, layout: ParallelLayout) -> Placement:
    return Placement(DeviceMesh(tuple(range(first, first + layout.size))), layout)


@st.composite
def placements(draw) -> Placement:
    layout = draw(st.sampled_from(LAYOUTS))
    ranks = sorted(draw(st.permutations(range(4)))[: layout.size])
    return Placement(DeviceMesh(tuple(ranks)), layout)


@st.composite
def graphs(draw) -> DataflowGraph:
    """Up to six calls of up to three models, each using keys of calls before it."""
    calls, made = [], []
    for i in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(list(CallKind)))
        model = None if kind is CallKind.COMPUTE else draw(st.sampled_from(["a", "b", "c"]))
        inputs = draw(st.sets(st.sampled_from(["source", *made]), min_size=1))
        outputs = () if kind is CallKind.TRAIN else (f"k{i}",)
        engine = draw(st.sampled_from([OWN_ENGINE, "other"])) if kind is CallKind.GENERATE else OWN_ENGINE
        calls.append(
            ModelFunctionCall(f"call{i}", model, kind, tuple(sorted(inputs)), outputs, engine=engine)
        )
        made += outputs
    return DataflowGraph(*calls)


@st.composite
def plans(draw, graph: DataflowGraph) -> ExecutionPlan:
    """Anything goes, but all calls that train a model share a placement."""
    trained = {model: draw(placements()) for model in graph.models}
    return ExecutionPlan(
        {
            name: trained[call.model] if call.kind is CallKind.TRAIN else draw(placements())
            for name, call in graph.calls.items()
        }
    )


@st.composite
def model_configs(draw, graph: DataflowGraph) -> dict[str, ModelConfig]:
    """Some models keep their replicas, and some are offloaded."""
    return {
        model: ModelConfig(keep_replicas=draw(st.booleans()), offload=draw(st.booleans()))
        for model in graph.models
    }


def make_jobs(
    graph: DataflowGraph,
    plan: ExecutionPlan,
    num_steps: int,
    num_rows: int = 5,
    models: dict[str, ModelConfig] | None = None,
    asynchrony: Asynchrony = SYNCHRONOUS,
    num_spare: int = 0,
    recovers: bool = False,
) -> list[Job]:
    """Training steps with a checkpoint after each, and before each but the first, if so wanted, what recovery
    goes on from; spare rows are numbered from 1,000.
    """
    homes = home_placements(graph, plan)
    train = compile_program(graph, plan, homes, models, asynchrony)
    save, recovery = compile_save(graph, homes, models), compile_recovery(graph, plan, homes, models)
    jobs = []
    for step in range(num_steps):
        rows = [7 * step + i for i in range(num_rows)]
        spare = tuple(1000 * (step + 1) + i for i in range(num_spare))
        lengths = {row: 3 + row % 4 for row in (*rows, *spare)}
        samples = samples_of(rows, 2)
        about_samples = {"samples": samples, "row_lengths": lengths, "group_size": 2, "spare_rows": spare}
        if recovers and step and recovery.instructions:
            jobs.append(Job(3 * step, recovery, step, directory="here", recovers=True))
        jobs.append(Job(3 * step + 1, train, step, **about_samples))
        if save.instructions:
            jobs.append(Job(3 * step + 2, save, step + 1, directory="there"))
    return jobs


def _counted(jobs: list[Job]) -> int:
    return sum(not job.recovers for job in jobs)


class PretendWorkers:
    """Serial workers. Ranks that share an instruction wait for each other, which is the worst case.

    Those that generate may step aside, all ranks of a data-parallel slice together, once they were told to.
    """

    def __init__(
        self,
        graph: DataflowGraph,
        plan: ExecutionPlan,
        seed: int,
        may_end: Callable[[Instruction], bool] = lambda instruction: True,
        rejects: Callable[[int], bool] = lambda row: False,
    ) -> None:
        self._graph, self._plan, self._random = graph, plan, random.Random(seed)
        self._may_end, self._rejects = may_end, rejects
        self._queues: dict[int, list[Instruction | Preempt]] = {}
        self._generating: set[int] = set()
        """Ranks of calls that step aside."""
        self._aside: set[int] = set()
        """Ranks whose first instruction has stepped aside."""
        self.emitted: list[Instruction] = []
        self.finished: list[int] = []
        """Seqs, in the order in which they ended everywhere."""
        self.ended_before: dict[int, set[int]] = {}
        """What had ended when an instruction was emitted."""

    def run(
        self,
        jobs: list[Job],
        window: int = 2,
        max_staleness: int = 0,
        make_scheduler: Callable[[], Scheduler] = Scheduler,
    ) -> None:
        """Feed the scheduler until every job has ended; asserts that something can always go on."""
        scheduler, waiting, open_jobs = make_scheduler(), deque(in_order(jobs, max_staleness)), []
        while waiting or open_jobs:
            while waiting and (waiting[0].job in open_jobs or _counted(open_jobs) < window + max_staleness):
                stage = waiting.popleft()
                open_jobs += [] if stage.job in open_jobs else [stage.job]
                self.note_generation(stage)
                self._take(scheduler.handle(stage))
            for rank, done in self._go_on():
                self._take(scheduler.handle(Reported(rank, done)))
            for job in [job for job in open_jobs if not scheduler.is_open(job)]:
                scheduler.handle(Closed(job.number))
                open_jobs.remove(job)

    def note_generation(self, stage: Stage) -> None:
        """The ranks that step aside from when a stage begins."""
        calls = [i for i in stage.instructions if isinstance(i, RunCall) and i.preemptible]
        self._generating.update(rank for call in calls for rank in call.ranks)

    def _take(self, instructions: list[Instruction | Preempt]) -> None:
        for instruction in instructions:
            if isinstance(instruction, Instruction):
                self._check_busy(instruction)
                self.emitted.append(instruction)
                self.ended_before[instruction.seq] = set(self.finished)
            else:
                later = [i for i in instructions if isinstance(i, Instruction) and i.seq > instruction.seq]
                assert any(set(i.ranks) & set(instruction.ranks) for i in later), "there is nothing to do"
            for rank in instruction.ranks:
                self._queues.setdefault(rank, []).append(instruction)

    def _check_busy(self, instruction: Instruction) -> None:
        """What ranks that generate are to do with others waits until these have nothing else to do."""
        others = set(instruction.ranks) - self._generating
        if len(others) < len(instruction.ranks):
            assert not any(self._queues.get(rank) for rank in others), "generation would stand still"

    def _go_on(self) -> list[tuple[int, Done]]:
        """Something that can happen does: a slice steps aside, or an instruction ends."""
        self._skip_signs()
        heads = {h.seq: h for rank in self._queues if (h := self._head(rank))}
        able = [i for _, i in sorted(heads.items()) if all(self._head(rank) is i for rank in i.ranks)]
        told = [members for i in heads.values() if isinstance(i, RunCall) for members in self._told(i)]
        able = [i for i in able if self._may_end(i)]
        assert able or told, "every worker waits for another"
        chosen = self._random.choice([*able, *told])
        if isinstance(chosen, tuple):
            self._aside.update(chosen)
            return []
        self.finished.append(chosen.seq)
        for rank in chosen.ranks:
            self._queues[rank].remove(chosen)
        ranks = self._random.sample(chosen.ranks, len(chosen.ranks))
        return [(rank, self._done(rank, chosen)) for rank in ranks]

    def _skip_signs(self) -> None:
        """A rank that has stepped aside goes on at the sign; elsewhere it means nothing."""
        for rank, queue in self._queues.items():
            while (sign := self._head(rank)) and isinstance(sign, Preempt):
                queue.remove(sign)
                if rank in self._aside and sign.seq == queue[0].seq:
                    self._aside.remove(rank)

    def _head(self, rank: int) -> Instruction | Preempt | None:
        place = int(rank in self._aside)
        return self._queues[rank][place] if len(self._queues[rank]) > place else None

    def _told(self, call: RunCall) -> list[tuple[int, ...]]:
        """The slices all of whose ranks are to step aside, and have not."""
        placement = self._plan[call.call]
        slices = [tuple(placement.dp_slice(d)) for d in range(placement.layout.dp)]
        return [
            members
            for members in slices
            if call.preemptible
            and all(
                self._head(rank) is call
                and any(isinstance(i, Preempt) and i.seq == call.seq for i in self._queues[rank])
                for rank in members
            )
        ]

    def _done(self, rank: int, instruction: Instruction) -> Done:
        times = {"seq": instruction.seq, "started_s": 0.0, "ended_s": 1.0}
        if not isinstance(instruction, RunCall):
            return Done(**times)
        placement = self._plan[instruction.call]
        dp_rank = placement.coordinate(rank).dp_rank
        if rank not in placement.output_ranks(dp_rank):
            return Done(**times)
        samples = tuple(sample for sample, _ in instruction.shares[dp_rank])
        keys = self._graph.calls[instruction.call].outputs
        judges = self._graph.redraw is not None and self._graph.redraw.judge == instruction.call
        rejected = [id for id, row in instruction.shares[dp_rank] if judges and self._rejects(row)]
        return Done(
            **times,
            samples=samples,
            rejected=tuple(rejected),
            lengths={key: tuple(5 + sample % 3 for sample in samples) for key in keys},
            dtypes=dict.fromkeys(keys, "float32"),
        )


def holders_after(emitted: list[Instruction], graph: DataflowGraph, plan: ExecutionPlan) -> None:
    """Replay who holds what: each move's senders hold, and each call finds, what is needed."""
    held: set[tuple[int, int, str, int]] = set()
    for instruction in emitted:
        if isinstance(instruction, Move):
            for key, move in ((key, m) for m in instruction.moves for key in m.dtypes):
                for rank, samples in move.source.items():
                    assert all((instruction.job, rank, key, s) in held for s in samples)
                for rank, samples in move.target.items():
                    assert not any((instruction.job, rank, key, s) in held for s in samples)
                    held |= {(instruction.job, rank, key, s) for s in samples}
        if isinstance(instruction, RunCall):
            call, placement = graph.calls[instruction.call], plan[instruction.call]
            for dp_rank, share in enumerate(instruction.shares):
                for rank in placement.dp_slice(dp_rank):
                    for key in set(call.inputs) & graph.producer.keys():
                        assert all((instruction.job, rank, key, sample) in held for sample, _ in share)
                for rank in placement.output_ranks(dp_rank):
                    held |= {(instruction.job, rank, key, s) for key in call.outputs for s, _ in share}
