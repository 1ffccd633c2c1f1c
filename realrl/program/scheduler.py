"""The pure heart of the master: events in, instructions out.

    Stage, Reported, Withdrawn, Closed ──▶ Scheduler.handle ──▶ instructions, Preempt

An instruction is emitted when everything that it waits for is done, and has its place (`seq`) in one linear
order. Workers carry theirs out in that order, one at a time, so collectives of different calls never cross.
The states of a task are in `realrl.program.tasks`; `Hazards` says which tasks must wait for which.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from realrl.api.messages import Preempt
from realrl.program.events import Closed, Event, Job, Reported, Stage, Withdrawn
from realrl.program.explain import edge
from realrl.program.instructions import AnyInstruction, Reallocate, Release, Replicas, RunCall, Start
from realrl.program.ledger import Ledger
from realrl.program.resources import Inputs, Memory, Outputs, Resource
from realrl.program.scheduler_state import SchedulerState, records_of, tasks_of, without_program
from realrl.program.tasks import Task, TaskState

Emitted = AnyInstruction | Preempt
"""What the scheduler has sent to workers."""


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
        self._versions: defaultdict[str, int] = defaultdict(int, versions or {})
        """What each model is trained to once every task so far is done."""
        self._replicas: Replicas = {}
        """The version that each replica holds."""
        self._planned: Replicas = {}
        """The version that each replica will hold once every task so far is done."""
        self._hazards = Hazards()
        self._next_seq = 0
        self._next_place = 0
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

    def handle(self, event: Event) -> list[Emitted]:
        """Return what `event` allows, in order; stages come in the run's order."""
        match event:
            case Stage():
                self._begin(event)
            case Reported(rank, done):
                task = self._running[done.seq]
                task.awaited.remove(rank)
                self.ledgers[task.job.number].record_outputs(rank, done)
                if not task.awaited:
                    del self._running[done.seq]
                    self._finish(task)
                elif rank not in self._watched:
                    return []
            case Withdrawn(jobs):
                self._withdraw(jobs)
            case Closed(job):
                assert job in self._complete and not self._num_left[job], f"job {job} has not ended"
                self._complete.remove(job)
                self._changing.discard(job)
                del self._num_left[job]
                del self.ledgers[job]
                return []
        emitted = self._emit()
        return [*emitted, *self._preemptions(emitted)]

    def _begin(self, stage: Stage) -> None:
        """Add a pending task for each instruction of a stage; it comes after every task so far."""
        job = stage.job
        if job.number not in self.ledgers:
            self.ledgers[job.number] = Ledger(job.samples, job.row_lengths, job.group_size, job.spare_rows)
        if stage.is_last:
            self._complete.add(job.number)
        for instruction in stage.instructions:
            model = instruction.read_model
            version = self._versions[model] if model else 0
            if _is_there_already(instruction, version, self._planned):
                continue  # As a task, it would wait for those that use these weights.
            _plan(instruction, version, self._planned)
            task = Task(job, instruction, version, self._next_place)
            task.waits_for = self._hazards.add(task)
            self._next_place += 1
            self._waiting.append(task)
            self._num_left[job.number] += 1
            if task.is_preemptible:
                self._generating.update(instruction.ranks)
            if changed := instruction.changed_model:
                self._versions[changed] = job.step + 1

    def _emit(self) -> list[AnyInstruction]:
        """Start every task that can start, and return their instructions."""
        emitted: list[AnyInstruction] = []
        while True:
            # pending -> ready, for tasks with nothing to wait for
            startable: list[Task] = []
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
            if not startable:
                return emitted

            # Generation comes last, so that it is not preempted at once.
            for task in sorted(startable, key=lambda task: task.is_preemptible):
                # A task that was started in this round may have taken the ranks.
                if self._busy_rank(task) is None:
                    emitted += self._start(task)

    def _start(self, task: Task) -> list[AnyInstruction]:
        """ready -> running; or ready -> done, where nothing is to be done. Returns its instruction."""
        self._waiting.remove(task)
        job = task.job
        start = Start(
            directory=job.directory,
            version=task.version,
            ledger=self.ledgers[job.number],
            replicas=self._replicas,
        )
        known = task.instruction.begin(start)
        if known is None:
            self._finish(task)
            return []

        sent = replace(
            task.instruction,
            seq=self._next_seq,
            job=job.number,
            step=job.step,
            eval_set=job.eval_set,
            **known,
        )
        self._next_seq += 1
        self._running[sent.seq] = task
        task.sent = sent
        task.state = TaskState.RUNNING
        task.awaited = set(sent.ranks)
        if task.instruction.changed_model:
            self._changing.add(job.number)
        return [sent]

    def _finish(self, task: Task) -> None:
        """running or ready -> done."""
        task.state = TaskState.DONE
        job = task.job.number
        if isinstance(task.instruction, RunCall) and task.instruction.redraws:
            self.ledgers[job].redraw(task.instruction.redraws)
        self._num_left[job] -= 1
        for other in self._waiting:
            other.waits_for.discard(task)
        self._hazards.remove(task)

    def _busy_rank(self, task: Task) -> int | None:
        """Return a rank that is at other work while ranks that generate would wait for it; else None."""
        if not self._generating:
            return None
        ranks = task.instruction.ranks_now(self.ledgers[task.job.number])
        others = ranks - self._generating
        if others == ranks:
            return None
        for other in self._running.values():
            for rank in others & other.awaited:
                return rank
        return None

    def _preemptions(self, emitted: Sequence[AnyInstruction]) -> list[Preempt]:
        """Return one for each generation under way on whose ranks a later instruction is due."""
        found = []
        for seq, task in self._running.items():
            if not task.is_preemptible:
                continue
            later = (instruction for instruction in emitted if instruction.seq > seq)
            if any(not task.awaited.isdisjoint(instruction.ranks) for instruction in later):
                found.append(Preempt(seq=seq, ranks=task.instruction.ranks))
        return found

    def _withdraw(self, jobs: Collection[int]) -> None:
        """Drop the waiting tasks of jobs that have changed no weights."""
        kept = []
        for task in self._waiting:
            if task.job.number not in jobs:
                kept.append(task)
            elif model := task.instruction.changed_model:
                self._versions[model] = min(self._versions[model], task.job.step)
        self._planned = dict(self._replicas)
        for task in kept:
            _plan(task.instruction, task.version, self._planned)
        self._reorder([*self._running.values(), *kept])

    def _reorder(self, tasks: Sequence[Task]) -> None:
        """Let each task wait for these tasks alone; before, it may have waited through one that is gone."""
        self._hazards = Hazards()
        self._waiting = []
        for task in sorted(tasks, key=lambda task: task.place):
            waits_for = self._hazards.add(task)
            if task.state is not TaskState.RUNNING:
                task.state = TaskState.PENDING
                task.waits_for = waits_for
                self._waiting.append(task)

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

    def running(self) -> list[str]:
        """Return in words what runs, in order, and which ranks have not reported."""
        found = []
        for task in self._running.values():
            ranks = ", ".join(str(rank) for rank in sorted(task.awaited))
            found.append(f"{task.sent}, on ranks {ranks}")
        return found

    def waiting(self) -> list[Waiting]:
        """Return what has begun and cannot start yet, in order."""
        found: dict[Task, Waiting] = {}
        for task in self._waiting:
            edges = _edges_to(task)
            seqs = set(edges)
            for other in task.waits_for:
                if other in found:
                    seqs |= found[other].seqs
            found[task] = Waiting(task.instruction.possible_ranks, edges, frozenset(seqs))
        return list(found.values())

    def state(self) -> SchedulerState:
        """Return all that it knows, as data."""
        jobs: dict[int, Job] = {}
        for task in (*self._running.values(), *self._waiting):
            jobs[task.job.number] = without_program(task.job)
        return SchedulerState(
            versions=dict(self._versions),
            replicas=list(self._replicas.items()),
            planned=list(self._planned.items()),
            next_seq=self._next_seq,
            next_place=self._next_place,
            jobs=list(jobs.values()),
            ledgers={number: ledger.state() for number, ledger in self.ledgers.items()},
            waiting=records_of(self._waiting),
            running=records_of(self._running.values()),
            complete=sorted(self._complete),
            changing=sorted(self._changing),
            num_left=dict(self._num_left),
            generating=sorted(self._generating),
            watched=sorted(self._watched),
        )

    @classmethod
    def resumed(cls, state: SchedulerState) -> Scheduler:
        """Return a scheduler that knows what `state` says, and does what the one of that state would do."""
        scheduler = cls(state.versions)
        scheduler.ledgers = {number: Ledger.resumed(ledger) for number, ledger in state.ledgers.items()}
        scheduler._replicas = dict(state.replicas)
        scheduler._planned = dict(state.planned)
        scheduler._next_seq = state.next_seq
        scheduler._next_place = state.next_place
        scheduler._complete = set(state.complete)
        scheduler._changing = set(state.changing)
        scheduler._num_left = Counter(state.num_left)
        scheduler._generating = set(state.generating)
        scheduler._watched = set(state.watched)
        jobs = {job.number: job for job in state.jobs}
        tasks = tasks_of([*state.running, *state.waiting], jobs)
        scheduler._waiting = [tasks[record.place] for record in state.waiting]
        for record in state.running:
            task = tasks[record.place]
            assert task.sent is not None, f"{task.instruction} runs, and was not sent"
            scheduler._running[task.sent.seq] = task
        for place in sorted(tasks):
            scheduler._hazards.add(tasks[place])
        return scheduler


def _is_there_already(instruction: AnyInstruction, version: int, planned: Replicas) -> bool:
    """Return whether an instruction would bring weights to a replica that will have them anyway."""
    if not isinstance(instruction, Reallocate) or instruction.is_blend:
        return False
    return planned.get(instruction.replica) == version


def _plan(instruction: AnyInstruction, version: int, planned: Replicas) -> None:
    """Note what an instruction does to replicas when its turn comes."""
    if isinstance(instruction, Release):
        planned.pop(instruction.replica, None)
    elif isinstance(instruction, Reallocate) and not instruction.is_blend:
        planned[instruction.replica] = version


class Hazards:
    """Which unfinished tasks last wrote each resource, and which have read it since.

    A task waits for the last writer of what it uses, and for the readers of what it overwrites.
    """

    def __init__(self) -> None:
        self._writer: dict[object, Task] = {}
        self._readers: dict[object, list[Task]] = {}

    def add(self, task: Task) -> set[Task]:
        """Record what a task reads and writes; return the tasks so far that must end before it starts."""
        waits_for: set[Task] = set()
        for key in _read(task.job, task.instruction):
            if key in self._writer:
                waits_for.add(self._writer[key])
            self._readers.setdefault(key, []).append(task)

        for key in _written(task.job, task.instruction):
            if key in self._writer:
                waits_for.add(self._writer[key])
            readers = self._readers.get(key, [])
            waits_for.update(readers)
            self._writer[key] = task
            # A generation that accepts new weights keeps reading them after they are written.
            self._set_readers(key, [reader for reader in readers if reader.accepts_new_weights])

        waits_for.discard(task)  # which may write what it reads
        return waits_for

    def remove(self, task: Task) -> None:
        """Forget a task that is done: nothing waits for it any more."""
        for key in _written(task.job, task.instruction):
            if self._writer.get(key) is task:
                del self._writer[key]
        for key in _read(task.job, task.instruction):
            readers = self._readers.get(key, ())
            self._set_readers(key, [reader for reader in readers if reader is not task])

    def _set_readers(self, key: object, readers: list[Task]) -> None:
        if readers:
            self._readers[key] = readers
        else:
            self._readers.pop(key, None)


def _may_start(task: Task) -> bool:
    """Whether nothing is left to wait for.

    New weights need not wait for a running generation that accepts them.
    """
    if not task.waits_for:
        return True
    if not isinstance(task.instruction, Reallocate):
        return False
    for other in task.waits_for:
        if other.state is not TaskState.RUNNING or not other.accepts_new_weights:
            return False
    return True


def _edges_to(task: Task) -> dict[int, str]:
    """Return, for each running instruction that a task waits for, by `seq`: why, in words."""
    edges: dict[int, str] = {}
    for other in task.waits_for:
        if other.state is TaskState.RUNNING and other.sent is not None:
            of_one_pass = other.job.number == task.job.number
            edges[other.sent.seq] = edge(other.instruction, task.instruction, of_one_pass=of_one_pass)
    return edges


def _read(job: Job, instruction: AnyInstruction) -> list[object]:
    """Return the keys of what the instruction reads."""
    return [_key(job, resource, step=job.step) for resource in instruction.reads]


def _written(job: Job, instruction: AnyInstruction) -> list[object]:
    """Return the keys of what the instruction writes; memory is written for the next step."""
    return [_key(job, resource, step=job.step + 1) for resource in instruction.writes]


def _key(job: Job, resource: Resource, *, step: int) -> object:
    """Return a resource's key: inputs and outputs belong to a job, memory to a step, the rest to the run."""
    if isinstance(resource, Inputs | Outputs):
        return job.number, resource
    if isinstance(resource, Memory):
        return step, resource
    return resource
