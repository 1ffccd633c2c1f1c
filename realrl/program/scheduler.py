"""The pure heart of the master: events in, instructions out.

    Stage, Reported ──▶ Scheduler.handle ──▶ Instruction, StepAside

An instruction is emitted when everything that it waits for is done, and has its place (`seq`) in one linear
order. Workers carry theirs out in that order, one at a time, so collectives of different calls never cross.
The states of a task and what orders tasks are in `realrl.program.tasks`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple

from realrl.api import messages
from realrl.program import instructions
from realrl.program.events import Event, Job, Reported, Stage
from realrl.program.explain import edge
from realrl.program.ledger import Ledger, Shares
from realrl.program.tasks import Hazards, Task, TaskState


class Waiting(NamedTuple):
    """A task that cannot start yet."""

    ranks: tuple[int, ...]
    edges: Mapping[int, str]
    """From each running instruction that it waits for, by `seq`: why, in words."""
    seqs: frozenset[int]
    """Every running instruction that must end first, directly or through other tasks."""


class Scheduler:
    """Decides what runs next from what was reported so far; it starts nothing itself."""

    def __init__(self, versions: Mapping[str, int] | None = None) -> None:
        """`versions`: the version of each model whose weights differ from its checkpoint."""
        self.ledgers: dict[int, Ledger] = {}
        """The samples of each job that has begun and not ended, by its number."""
        self._waiting: list[Task] = []
        """Tasks that are pending or ready, in the run's order."""
        self._running: dict[int, Task] = {}
        """By `seq` of their instruction."""
        self._versions: dict[str | None, int] = defaultdict(int, versions or {})
        """What each model is trained to once every task so far is done."""
        self._replicas: dict[instructions.Weights, int] = {}
        """The version that each replica holds."""
        self._hazards = Hazards()
        self._next_seq = 0
        self._places = count()
        self._complete: set[int] = set()
        """Jobs whose last stage has begun, by number."""
        self._changing: set[int] = set()
        """Jobs that have begun to change weights, by number."""
        self._num_left: Counter[int] = Counter()
        """Tasks of each job that are not done, by its number."""
        self._generating: set[int] = set()
        """Ranks of calls that can be preempted."""
        self._watched: set[int] = set()
        """One busy rank of each ready task."""

    def handle(self, event: Event) -> list[messages.Instruction | messages.StepAside]:
        """Return the instructions that `event` allows, in order; stages come in the run's order."""
        if isinstance(event, Stage):
            self._begin(event)
        elif not self._record_report(event) and event.rank not in self._watched:
            return []
        return self._emit_with_preemptions()

    def is_open(self, job: Job) -> bool:
        """Whether any part of the job is still to be done."""
        return job.number not in self._complete or self._num_left[job.number] > 0

    def has_all_of(self, job: Job) -> bool:
        """Whether the job's last stage has begun."""
        return job.number in self._complete

    @property
    def last_changing(self) -> int | None:
        """The last open job that has begun to change weights; None where none has."""
        return max(self._changing, default=None)

    def withdraw(self, jobs: Collection[int]) -> list[messages.Instruction | messages.StepAside]:
        """Drop the waiting tasks of jobs, by number, that have changed no weights; what is running ends.

        Returns the instructions that this allows.
        """
        withdrawn = [task for task in self._waiting if task.job.number in jobs]
        for task in withdrawn:
            if model := _changed_model(task.node):
                self._versions[model] = min(self._versions[model], task.job.step)
        kept = [task for task in self._waiting if task.job.number not in jobs]
        self._reorder([*self._running.values(), *kept])
        return self._emit_with_preemptions()

    def _reorder(self, tasks: Sequence[Task]) -> None:
        """Let each task wait for these tasks alone; before, it may have waited through one that is gone."""
        self._hazards = Hazards()
        self._waiting = []
        for task in sorted(tasks, key=lambda task: task.place):
            if task.state is not TaskState.RUNNING:
                task.state = TaskState.PENDING
                task.waits_for = self._hazards.of(task.job, task.node)
                self._waiting.append(task)
            self._hazards.add(task)

    def waiting(self) -> list[Waiting]:
        """Return what has begun and cannot start yet, in order."""
        found: dict[Task, Waiting] = {}
        for task in self._waiting:
            edges: dict[int, str] = {}
            behind: set[int] = set()
            for other in task.waits_for:
                if other.state is TaskState.RUNNING and other.instruction is not None:
                    of_one_pass = other.job is task.job
                    edges[other.instruction.seq] = edge(other.node, task.node, of_one_pass=of_one_pass)
                if other in found:
                    behind |= found[other].seqs
            found[task] = Waiting(_all_ranks(task.node), edges, frozenset(edges) | behind)
        return list(found.values())

    def close(self, job: Job) -> Ledger:
        """Drop what is known of an ended job's samples, and return it."""
        assert not self.is_open(job), f"job {job.number} has not ended"
        self._complete.remove(job.number)
        self._changing.discard(job.number)
        del self._num_left[job.number]
        return self.ledgers.pop(job.number)

    def _begin(self, stage: Stage) -> None:
        job = stage.job
        if job.number not in self.ledgers:
            self.ledgers[job.number] = Ledger(job.samples, job.row_lengths, job.group_size, job.spare_rows)
        if stage.is_last:
            self._complete.add(job.number)
        for node in stage.nodes:
            self._add(job, node)

    def _add(self, job: Job, node: instructions.Node) -> None:
        """Add a pending task for a node; it comes after every task so far."""
        version = self._versions[getattr(node, "model", None)]
        task = Task(job, node, version, self._hazards.of(job, node), next(self._places))
        self._hazards.add(task)
        self._waiting.append(task)
        self._num_left[job.number] += 1
        if task.is_preemptible:
            self._generating.update(node.ranks)
        if model := _changed_model(node):
            self._versions[model] = job.step + 1

    def _record_report(self, event: Reported) -> bool:
        """Take in a rank's report; returns whether the task is done by it."""
        task = self._running[event.done.seq]
        task.awaited.remove(event.rank)
        if isinstance(task.node, instructions.Call):
            self.ledgers[task.job.number].record_outputs(event.rank, event.done)
        if task.awaited:
            return False
        del self._running[event.done.seq]
        self._finish(task)
        return True

    def _finish(self, task: Task) -> None:
        """running or ready -> done."""
        task.state = TaskState.DONE
        if isinstance(task.node, instructions.Call) and task.node.redraws:
            self.ledgers[task.job.number].redraw(task.node.redraws)
        self._num_left[task.job.number] -= 1
        for other in self._waiting:
            other.waits_for.discard(task)
        self._hazards.remove(task)

    def _emit_with_preemptions(self) -> list[messages.Instruction | messages.StepAside]:
        emitted = self._emit()
        return [*emitted, *self._preemptions(emitted)]

    def _emit(self) -> list[messages.Instruction]:
        """Start every task that can start, and return their instructions."""
        emitted: list[messages.Instruction] = []
        while startable := self._update_ready():
            # Generation comes last, so that it is not preempted at once.
            for task in sorted(startable, key=lambda task: task.is_preemptible):
                # A task that was started in this round may have taken the ranks.
                if self._busy_rank(task) is None:
                    emitted += self._start(task)
        return emitted

    def _update_ready(self) -> list[Task]:
        """pending -> ready, for tasks with nothing to wait for; returns those whose ranks are free."""
        startable = []
        self._watched = set()
        for task in self._waiting:
            if task.state is TaskState.PENDING and _may_start(task):
                task.state = TaskState.READY
            if task.state is not TaskState.READY:
                continue
            busy_rank = self._busy_rank(task)
            if busy_rank is None:
                startable.append(task)
            else:
                self._watched.add(busy_rank)
        return startable

    def _start(self, task: Task) -> list[messages.Instruction]:
        """ready -> running; or ready -> done, where nothing is to be done. Returns its instruction."""
        self._waiting.remove(task)
        instruction = self._instruction(task)
        task.instruction = instruction
        is_needless = self._is_needless(task, instruction)
        self._record_start(task, instruction)
        if is_needless:
            self._finish(task)
            return []
        self._next_seq += 1
        self._running[instruction.seq] = task
        task.state = TaskState.RUNNING
        task.awaited = set(instruction.ranks)
        if _changed_model(task.node):
            self._changing.add(task.job.number)
        return [instruction]

    def _busy_rank(self, task: Task) -> int | None:
        """Return a rank that is at other work while ranks that generate would wait for it; else None."""
        if not self._generating:
            return None
        ranks = self._ranks(task)
        others = ranks - self._generating
        if others == ranks:
            return None
        for other in self._running.values():
            for rank in others & other.awaited:
                return rank
        return None

    def _ranks(self, task: Task) -> set[int]:
        """Return the ranks that would take part if the task started now."""
        if not isinstance(task.node, instructions.Move):
            return set(task.node.ranks)
        return _ranks_of_keys(self._lacking(task.job, task.node))

    def _preemptions(self, emitted: Sequence[messages.Instruction]) -> list[messages.StepAside]:
        """Return one for each generation under way on whose ranks a later instruction is due."""
        found = []
        for seq, task in self._running.items():
            if not task.is_preemptible:
                continue
            later = (instruction for instruction in emitted if instruction.seq > seq)
            if any(not task.awaited.isdisjoint(instruction.ranks) for instruction in later):
                ranks = _instruction_of(task).ranks
                found.append(messages.StepAside(seq=seq, ranks=ranks))
        return found

    def _is_needless(self, task: Task, instruction: messages.Instruction) -> bool:
        """Whether everything is in its place already, or no sample is to be resampled."""
        node = task.node
        match instruction:
            case messages.RunCall():
                assert isinstance(node, instructions.Call)
                return bool(node.again) and not any(instruction.shares)
            case messages.Move():
                return not instruction.keys
            case messages.Reallocate() if instruction.into == instruction.model:
                return self._replicas.get(_replica_of(instruction)) == task.version
        return False

    def _record_start(self, task: Task, instruction: messages.Instruction) -> None:
        """Note what an instruction brings, from its start on: workers keep the one order."""
        match instruction:
            case messages.Move():
                self.ledgers[task.job.number].record_move(instruction.keys)
            case messages.Reallocate() if instruction.into == instruction.model:
                self._replicas[_replica_of(instruction)] = task.version
            case messages.Release():
                replica = instructions.Weights(instruction.model, instruction.placement, instruction.engine)
                self._replicas.pop(replica, None)

    def _instruction(self, task: Task) -> messages.Instruction:
        job, node = task.job, task.node
        common = {
            "seq": self._next_seq,
            "job": job.number,
            "step": job.step,
            "evaluating": job.evaluating,
            "call": node.call,
        }
        match node:
            case instructions.Call():
                return messages.RunCall(**common, ranks=node.ranks, **self._what_to_run(task, node))
            case instructions.Move():
                keys = self._lacking(job, node)
                return messages.Move(**common, ranks=tuple(sorted(_ranks_of_keys(keys))), keys=keys)
            case instructions.Reallocate():
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
            case instructions.Forget():
                return messages.Forget(**common, ranks=node.ranks)
        of_model = {**common, "ranks": node.ranks, "model": node.model, "placement": node.placement}
        match node:
            case instructions.Release():
                return messages.Release(**of_model, engine=node.engine)
            case instructions.Offload():
                return messages.Offload(**of_model, back=node.back)
            case instructions.Save():
                return messages.Save(**of_model, directory=job.directory)
            case instructions.Snapshot():
                return messages.Snapshot(**of_model, directory=job.directory)
            case instructions.Flush():
                return messages.Flush(**of_model)

    def _what_to_run(self, task: Task, node: instructions.Call) -> dict[str, Any]:
        ledger = self.ledgers[task.job.number]
        shares = ledger.shares(node.function, node.placement)
        dtypes = {key: ledger.dtypes[key] for key in node.function.inputs if key in ledger.dtypes}
        return {
            "shares": _pairs(shares),
            "version": task.version,
            "steps_aside": node.steps_aside,
            "dtypes": dtypes,
        }

    def _lacking(self, job: Job, move: instructions.Move) -> tuple[messages.KeyMove, ...]:
        """Return what a move must bring."""
        return self.ledgers[job.number].lacking(move.function, move.keys, move.placement)


def _changed_model(node: instructions.Node) -> str | None:
    """Return the model that has other weights after the node, if there is one."""
    if isinstance(node, instructions.Call) and node.trains:
        return node.model
    if isinstance(node, instructions.Reallocate) and node.into != node.model:
        return node.into
    return None


def _may_start(task: Task) -> bool:
    """Whether nothing is left to wait for.

    New weights need not wait for a running generation that accepts them.
    """
    if not task.waits_for:
        return True
    if not isinstance(task.node, instructions.Reallocate):
        return False
    for other in task.waits_for:
        if other.state is not TaskState.RUNNING or not other.accepts_new_weights:
            return False
    return True


def _instruction_of(task: Task) -> messages.Instruction:
    assert task.instruction is not None, f"{task.node} has no instruction before it starts"
    return task.instruction


def _replica_of(instruction: messages.Reallocate) -> instructions.Weights:
    return instructions.Weights(instruction.into, instruction.target, instruction.engine)


def _ranks_of_keys(keys: Sequence[messages.KeyMove]) -> set[int]:
    """Return the ranks that send or receive."""
    ranks: set[int] = set()
    for key in keys:
        ranks.update(key.source, key.target)
    return ranks


def _all_ranks(node: instructions.Node) -> tuple[int, ...]:
    """Return the ranks that a node may need; a move's are those of the call that it serves."""
    return node.placement.ranks if isinstance(node, instructions.Move) else node.ranks


def _pairs(shares: Shares) -> tuple[tuple[tuple[int, int], ...], ...]:
    """Return (sample id, dataset row) pairs of each share."""
    pairs = []
    for share in shares:
        pairs.append(tuple((sample.id, sample.row) for sample in share))
    return tuple(pairs)
