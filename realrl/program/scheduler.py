"""The pure heart of the master: events in, instructions out.

Each instruction is emitted when all that it waits for is done, and has its place (`seq`) in one linear
order. Workers take theirs in that order, one at a time, so collectives of different calls never cross.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple

from realrl.api import messages
from realrl.api.batch import Sample
from realrl.program import instructions as nodes
from realrl.program.explain import edge
from realrl.program.ledger import Ledger, Shares
from realrl.program.program import Program


@dataclass(frozen=True)
class Job:
    """One pass over a program: a training step, an evaluation or a checkpoint."""

    number: int
    """Its place among the run's jobs."""
    program: Program
    step: int
    """Training steps done before it."""
    evaluating: bool = False
    samples: tuple[Sample, ...] = ()
    row_lengths: Mapping[int, int] = field(default_factory=dict)
    """Tokens by dataset row."""
    group_size: int = 1
    """Samples of one row, which are neighbours."""
    spare_rows: tuple[int, ...] = ()
    """Rows that take the place of those that a call rejects."""
    directory: str = ""
    """Where a checkpoint goes."""
    recovers: bool = False
    """The checkpoint is of all that the run needs to be gone on with."""
    only_if_best: bool = False
    """A checkpoint that is left out unless the evaluation before it is the best so far."""


@dataclass(frozen=True)
class Stage:
    """Nodes of a job that take their place in a run's one order together."""

    job: Job
    nodes: tuple[nodes.Node, ...]
    is_last: bool
    """Whether the job has no more."""


@dataclass(frozen=True)
class Reported:
    """A rank has done its part of an instruction."""

    rank: int
    done: messages.Done


Event = Stage | Reported


class Waiting(NamedTuple):
    """Something that cannot start yet."""

    ranks: tuple[int, ...]
    edges: Mapping[int, str]
    """From what is under way to this, by the instruction's number."""
    seqs: frozenset[int]
    """Of every instruction under way that must end first, also where another node stands between."""


@dataclass(eq=False)
class _Task:
    """A node of a job, until it is done."""

    job: Job
    node: nodes.Node
    version: int
    """What the node's model has been trained to when it runs."""
    waits_for: set[_Task]
    place: int
    """In the run's one order of nodes."""
    instruction: messages.Instruction | None = None
    awaited: set[int] = field(default_factory=set)
    """Ranks yet to report."""


class Scheduler:
    """Decides what runs next, from what was reported so far; starts nothing itself."""

    def __init__(self, versions: Mapping[str, int] | None = None) -> None:
        """`versions`: of models that have been trained before."""
        self.ledgers: dict[int, Ledger] = {}
        """By number, of the jobs that have begun and not ended."""
        self._pending: list[_Task] = []
        self._running: dict[int, _Task] = {}
        self._versions: dict[str, int] = defaultdict(int, versions or {})
        self._replicas: dict[nodes.Weights, int] = {}
        """The versions of replicas that have weights."""
        self._writer: dict[object, _Task] = {}
        self._readers: dict[object, list[_Task]] = defaultdict(list)
        self._next_seq = 0
        self._places = count()
        self._begun: set[int] = set()
        """Numbers of jobs with all of their stages."""
        self._changing: set[int] = set()
        """Numbers of jobs that have begun to change weights."""
        self._num_left: Counter[int] = Counter()
        """Tasks that are not done, by their job's number."""
        self._generating: set[int] = set()
        """Ranks of calls that step aside."""
        self._watched: set[int] = set()
        """Of what could start, but for ranks that are busy, one such rank each."""

    def handle(self, event: Event) -> list[messages.Instruction | messages.StepAside]:
        """The instructions that `event` allows, in order; a stage of a run comes after those before it."""
        if isinstance(event, Stage):
            self._begin(event)
        elif not self._report(event) and event.rank not in self._watched:
            return []
        emitted = self._emit()
        return [*emitted, *self._signs(emitted)]

    def is_open(self, job: Job) -> bool:
        """Whether any part of the job is still to be done."""
        return job.number not in self._begun or self._num_left[job.number] > 0

    def has_all_of(self, job: Job) -> bool:
        """Whether the job's last stage has begun."""
        return job.number in self._begun

    @property
    def last_changing(self) -> int | None:
        """The last open job that has begun to change weights; None where none has."""
        return max(self._changing, default=None)

    def withdraw(self, jobs: Collection[int]) -> list[messages.Instruction | messages.StepAside]:
        """Drop what is left of jobs, by number, that have changed no weights; what that allows is returned.

        What is under way of them ends.
        """
        withdrawn = [task for task in self._pending if task.job.number in jobs]
        for task in withdrawn:
            if trained := _changed(task.node):
                self._versions[trained] = min(self._versions[trained], task.job.step)
        left = [task for task in (*self._running.values(), *self._pending) if task not in withdrawn]
        self._order_anew(sorted(left, key=lambda task: task.place))
        emitted = self._emit()
        return [*emitted, *self._signs(emitted)]

    def _order_anew(self, tasks: Sequence[_Task]) -> None:
        """Have each task wait for these alone: it may have waited for others by way of one that is gone."""
        self._writer.clear()
        self._readers.clear()
        self._pending = []
        for task in tasks:
            if task.instruction is None:
                task.waits_for = self._hazards(task.job, task.node)
                self._pending.append(task)
            self._note(task)

    def waiting(self) -> list[Waiting]:
        """What has begun and cannot start yet, in order."""
        found: dict[_Task, Waiting] = {}
        for task in self._pending:
            edges = {
                other.instruction.seq: edge(other.node, task.node, of_one_pass=other.job is task.job)
                for other in task.waits_for
                if other.awaited
            }
            behind = [found[other].seqs for other in task.waits_for if other in found]
            ranks = task.node.placement.ranks if isinstance(task.node, nodes.Move) else task.node.ranks
            found[task] = Waiting(ranks, edges, frozenset(edges).union(*behind))
        return list(found.values())

    def close(self, job: Job) -> Ledger:
        """Drop what is known of an ended job's samples."""
        assert not self.is_open(job), f"job {job.number} has not ended"
        self._begun.remove(job.number)
        self._changing.discard(job.number)
        del self._num_left[job.number]
        return self.ledgers.pop(job.number)

    def _begin(self, stage: Stage) -> None:
        job = stage.job
        if job.number not in self.ledgers:
            self.ledgers[job.number] = Ledger(job.samples, job.row_lengths, job.group_size, job.spare_rows)
        if stage.is_last:
            self._begun.add(job.number)
        for node in stage.nodes:
            model = getattr(node, "model", None)
            task = _Task(job, node, self._versions[model], self._hazards(job, node), next(self._places))
            self._note(task)
            self._pending.append(task)
            self._num_left[job.number] += 1
            if _steps_aside(task):
                self._generating.update(node.ranks)
            if trained := _changed(node):
                self._versions[trained] = job.step + 1

    def _hazards(self, job: Job, node: nodes.Node) -> set[_Task]:
        """Unfinished tasks that wrote what `node` reads, or that use what it overwrites."""
        used = [_scoped(job, resource) for resource in (*node.reads, *node.writes)]
        waits_for = {self._writer[resource] for resource in used if resource in self._writer}
        for resource in node.writes:
            waits_for.update(self._readers[_scoped(job, resource)])
        return waits_for

    def _note(self, task: _Task) -> None:
        for resource in task.node.reads:
            self._readers[_scoped(task.job, resource)].append(task)
        for resource in task.node.writes:
            scoped = _scoped(task.job, resource)
            # A generation that lets new weights in goes on reading them.
            going_on = [reader for reader in self._readers[scoped] if _lets_in(reader.node)]
            self._writer[scoped], self._readers[scoped] = task, going_on

    def _report(self, event: Reported) -> bool:
        """Whether that was the last of its instruction."""
        task = self._running[event.done.seq]
        task.awaited.remove(event.rank)
        if isinstance(task.node, nodes.Call):
            self.ledgers[task.job.number].record_outputs(event.rank, event.done)
        if task.awaited:
            return False
        del self._running[event.done.seq]
        self._finish(task)
        return True

    def _finish(self, task: _Task) -> None:
        if isinstance(task.node, nodes.Call) and task.node.redraws:
            self.ledgers[task.job.number].redraw(task.node.redraws)
        self._num_left[task.job.number] -= 1
        for other in self._pending:
            other.waits_for.discard(task)
        self._forget(task)

    def _forget(self, task: _Task) -> None:
        """Nothing is to wait for it any more."""
        for resource in task.node.writes:
            scoped = _scoped(task.job, resource)
            if self._writer.get(scoped) is task:
                del self._writer[scoped]
        for resource in task.node.reads:
            scoped = _scoped(task.job, resource)
            left = [reader for reader in self._readers.pop(scoped, ()) if reader is not task]
            if left:
                self._readers[scoped] = left

    def _emit(self) -> list[messages.Instruction]:
        emitted: list[messages.Instruction] = []
        while ready := self._ready():
            # Generation comes last, so that it does not have to step aside at once.
            for task in sorted(ready, key=_steps_aside):
                if self._busy_rank(task) is not None:
                    continue
                self._pending.remove(task)
                task.instruction = self._instruction(task)
                if self._is_needless(task):
                    self._finish(task)
                    continue
                self._next_seq += 1
                self._running[task.instruction.seq] = task
                task.awaited = set(task.instruction.ranks)
                if _changed(task.node):
                    self._changing.add(task.job.number)
                emitted.append(task.instruction)
        return emitted

    def _ready(self) -> list[_Task]:
        """What waits for nothing, and holds up nobody."""
        found = [(task, self._busy_rank(task)) for task in self._pending if self._may_start(task)]
        self._watched = {rank for _, rank in found if rank is not None}
        return [task for task, rank in found if rank is None]

    def _may_start(self, task: _Task) -> bool:
        """New weights do not wait until a generation that is under way, and lets them in, has ended."""
        brings_weights = isinstance(task.node, nodes.Reallocate)
        return all(brings_weights and other.awaited and _lets_in(other.node) for other in task.waits_for)

    def _busy_rank(self, task: _Task) -> int | None:
        """One that has yet to do what it is at, and for which ranks that generate would stand still."""
        if not self._generating:
            return None
        ranks = self._ranks(task)
        others = ranks - self._generating
        if others == ranks:
            return None
        return next((rank for other in self._running.values() for rank in others & other.awaited), None)

    def _ranks(self, task: _Task) -> set[int]:
        if isinstance(task.node, nodes.Move):
            return {rank for key in self._lacking(task) for rank in (*key.source, *key.target)}
        return set(task.node.ranks)

    def _signs(self, emitted: Sequence[messages.Instruction]) -> list[messages.StepAside]:
        """For each generation under way on whose ranks something else is due."""
        return [
            messages.StepAside(seq=task.instruction.seq, ranks=task.instruction.ranks)
            for task in self._running.values()
            if _steps_aside(task)
            and any(i.seq > task.instruction.seq and task.awaited & set(i.ranks) for i in emitted)
        ]

    def _is_needless(self, task: _Task) -> bool:
        """Whether everything is already where it is to be brought, or no sample is to be drawn again."""
        match task.node:
            case nodes.Call():
                return bool(task.node.again) and not any(task.instruction.shares)
            case nodes.Move():
                return not task.instruction.keys
            case nodes.Reallocate() if task.node.into == task.node.model:
                (replica,) = task.node.writes
                before = self._replicas.get(replica)
                self._replicas[replica] = task.version
                return before == task.version
            case nodes.Release():
                self._replicas.pop(*task.node.weights, None)
        return False

    def _instruction(self, task: _Task) -> messages.Instruction:
        job, node = task.job, task.node
        common = {
            "seq": self._next_seq,
            "job": job.number,
            "step": job.step,
            "evaluating": job.evaluating,
            "call": node.call,
        }
        match node:
            case nodes.Call():
                return messages.RunCall(**common, ranks=node.ranks, **self._what_to_run(task))
            case nodes.Move():
                return messages.Move(**common, **self._what_to_move(task))
            case nodes.Reallocate():
                return messages.Reallocate(
                    **common,
                    ranks=node.ranks,
                    model=node.model,
                    source=node.source,
                    target=node.target,
                    into=node.into,
                    eta=node.eta,
                    engine=node.engine,
                    version=task.version,
                )
            case nodes.Forget():
                return messages.Forget(**common, ranks=node.ranks)
        of_model = {**common, "ranks": node.ranks, "model": node.model, "placement": node.placement}
        match node:
            case nodes.Release():
                return messages.Release(**of_model, engine=node.engine)
            case nodes.Offload():
                return messages.Offload(**of_model, back=node.back)
            case nodes.Save():
                return messages.Save(**of_model, directory=job.directory)
            case nodes.Snapshot():
                return messages.Snapshot(**of_model, directory=job.directory)
            case nodes.Flush():
                return messages.Flush(**of_model)

    def _what_to_run(self, task: _Task) -> dict[str, Any]:
        ledger, node = self.ledgers[task.job.number], task.node
        return {
            "shares": _pairs(ledger.shares(node.function, node.placement)),
            "version": task.version,
            "steps_aside": node.steps_aside,
            "dtypes": {key: ledger.dtypes[key] for key in node.function.inputs if key in ledger.dtypes},
        }

    def _what_to_move(self, task: _Task) -> dict[str, Any]:
        keys = self._lacking(task)
        # They count as brought from now on: workers keep the one order.
        self.ledgers[task.job.number].record_move(keys)
        ranks = sorted({rank for key in keys for rank in (*key.source, *key.target)})
        return {"ranks": tuple(ranks), "keys": keys}

    def _lacking(self, task: _Task) -> tuple[messages.KeyMove, ...]:
        """What a move must bring."""
        move = task.node
        return self.ledgers[task.job.number].lacking(move.function, move.keys, move.placement)


def _changed(node: nodes.Node) -> str | None:
    """The model that has other weights after the node."""
    if isinstance(node, nodes.Call) and node.trains:
        return node.model
    return node.into if isinstance(node, nodes.Reallocate) and node.into != node.model else None


def _steps_aside(task: _Task) -> bool:
    return isinstance(task.node, nodes.Call) and task.node.steps_aside


def _lets_in(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Call) and node.interruptible


def _pairs(shares: Shares) -> tuple[tuple[tuple[int, int], ...], ...]:
    return tuple(tuple((sample.id, sample.row) for sample in share) for share in shares)


def _scoped(job: Job, resource: nodes.Resource) -> object:
    """A call's inputs and outputs belong to its job; weights and turns are the run's."""
    is_of_job = isinstance(resource, nodes.Inputs | nodes.Outputs)
    return (job.number, resource) if is_of_job else resource
