"""A run that is asked to stop: what the master still has done, and what it leaves."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from types import SimpleNamespace
from unittest import mock

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from realrl.api.graph import CallKind
from realrl.api.messages import Done, Preempt
from realrl.datasets.digests import RowsDigest
from realrl.program.events import Event, Job, Stage
from realrl.program.instructions import Instruction, RunCall, Snapshot
from realrl.program.program import Asynchrony, compile_recovery, home_placements
from realrl.program.scheduler import Scheduler
from realrl.recipes.gen import GenConfig
from realrl.recipes.sft import SFTConfig
from realrl.runtime.failure import Terminated
from realrl.runtime.inputs import InputDigests
from realrl.runtime.master import master
from realrl.runtime.master.checkpoints import Best
from realrl.runtime.master.master import Master
from realrl.runtime.master.recorder import run_directory
from realrl.runtime.master.shutdown import Shutdown
from realrl.runtime.resume import what_resumes
from tests.program.graphs import PretendWorkers, graphs, make_jobs, model_configs, plans

NUM_STEPS = 4
NO_INPUTS = InputDigests(RowsDigest(0, ""), None, {})


class Crew:
    """Brings the reports of pretended workers, and asks to stop after so many."""

    running = ()

    def __init__(self, workers: PretendWorkers, shutdown: Shutdown, stops_after: int) -> None:
        self._workers, self._shutdown, self._left = workers, shutdown, stops_after
        self._sent: list[Instruction | Preempt] = []
        self._reports: deque[tuple[int, Done]] = deque()

    def begin(self, stage: Stage) -> None:
        """Have the workers know who generates, and have first what was sent before."""
        self._deliver()
        self._workers.note_generation(stage)

    def send(self, instruction: Instruction | Preempt) -> None:
        self._sent.append(instruction)

    def _deliver(self) -> None:
        self._workers._take(self._sent)
        self._sent = []

    def receive(self, on_progress, waiting) -> tuple[int, Instruction, Done]:
        while not self._reports:
            self._deliver()
            self._reports.extend(self._workers._go_on())
        self._left -= 1
        if self._left == 0:
            self._shutdown.request()
        rank, done = self._reports.popleft()
        return rank, next(i for i in self._workers.emitted if i.seq == done.seq), done


class Schedule:
    """Training steps with checkpoints, and perhaps recovery points, in between."""

    may_recover_now, versions, keep_recoveries, steps = True, {}, 2, range(NUM_STEPS)

    def __init__(self, jobs: list[Job], recovery, max_staleness: int) -> None:
        self.open_ahead, self._jobs, self._recovery = max_staleness, jobs, recovery

    def jobs(self) -> Iterator[Job]:
        return iter(self._jobs)

    def recovery_now(self, number: int, step: int) -> Iterator[Stage]:
        job = Job(number, self._recovery, step, directory="now", recovers=True)
        yield Stage(job, job.program.ahead, is_last=False)
        yield Stage(job, job.program.rest, is_last=True)


def scheduler_for(crew: Crew) -> type[Scheduler]:
    """Its stages are made known as they begin; the master looks ahead of that."""

    class Told(Scheduler):
        def handle(self, event: Event) -> list[Instruction | Preempt]:
            if isinstance(event, Stage):
                crew.begin(event)
            return super().handle(event)

    return Told


class Ignored:
    """What is written down and shown is not looked at here."""

    def __getattr__(self, name: str):
        return lambda *_: None


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_recovery_point_is_of_whole_steps(data):
    """Whatever the graph, the plan, staleness and the moment: a step that has begun to change weights ends,
    nothing later changes them, and the newest point is of exactly the steps that were trained.
    """
    graph = data.draw(graphs())
    assume(graph.trains)
    plan, max_staleness = data.draw(plans(graph)), data.draw(st.integers(0, 2))
    interruptible = max_staleness > 0 and data.draw(st.booleans())
    options = {
        "asynchrony": Asynchrony(max_staleness > 0, interruptible),
        "recovers": data.draw(st.booleans()),
    }
    models = data.draw(model_configs(graph))
    jobs = make_jobs(graph, plan, NUM_STEPS, models=models, **options)
    workers = PretendWorkers(graph, plan, data.draw(st.integers(0, 999)))
    shutdown = Shutdown(60.0)
    crew = Crew(workers, shutdown, data.draw(st.integers(1, 80)))
    recovery = compile_recovery(graph, plan, home_placements(graph, plan), models)
    schedule = Schedule(jobs, recovery, max_staleness)
    published: list[tuple[int, str]] = []
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(master, "_empty_directory"))
        stack.enter_context(mock.patch.object(master, "publish"))
        stack.enter_context(mock.patch.object(master, "Scheduler", scheduler_for(crew)))
        note = lambda partial, step, *_: published.append((step, partial.name))  # noqa: E731
        stack.enter_context(mock.patch.object(master, "publish_recovery", note))
        nothing = Ignored()
        run = Master(crew, schedule, Best(None), nothing, nothing, nothing, NO_INPUTS, shutdown)
        try:
            run.run()
        except Terminated:
            _check_point(graph, workers, published)
        else:
            assert not shutdown.is_requested


def _check_point(graph, workers: PretendWorkers, published: list[tuple[int, str]]) -> None:
    trained = [i for i in workers.emitted if isinstance(i, RunCall) and _trains(graph, i)]
    num_steps = max((i.step + 1 for i in trained), default=0)
    done = [(i.step, i.call) for i in trained if i.seq in workers.finished]
    calls = [call.name for call in graph.calls.values() if call.kind is CallKind.TRAIN]
    assert sorted(done) == sorted((step, call) for step in range(num_steps) for call in calls)
    if num_steps:
        assert published[-1][0] == num_steps
        last = [i for i in workers.emitted if isinstance(i, Snapshot) and i.step == num_steps]
        assert {i.model for i in last if i.model} == {graph.calls[call].model for call in calls}
        for snapshot in last:
            before = [i for i in trained if graph.calls[i.call].model == snapshot.model]
            assert all(i.seq < snapshot.seq for i in before)
    assert [step for step, _ in published] == sorted({step for step, _ in published})


def _trains(graph, instruction: RunCall) -> bool:
    return graph.calls[instruction.call].kind is CallKind.TRAIN


def test_sigterm_is_noted_where_it_can_wait_and_raised_where_it_cannot():
    """The second one does not wait; none cuts the way out short; what was there before comes back."""
    before = signal.getsignal(signal.SIGTERM)
    shutdown = Shutdown(1000.0)
    with shutdown.listening():
        with shutdown.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            assert shutdown.is_requested and not shutdown.is_overdue
            with pytest.raises(Terminated):
                os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before
    shutdown = Shutdown(0.0)
    with shutdown.listening(), pytest.raises(Terminated):
        os.kill(os.getpid(), signal.SIGTERM)
    assert shutdown.is_overdue


def test_a_thread_takes_no_signals():
    """Python allows it to the main thread alone."""
    before, seen = signal.getsignal(signal.SIGTERM), []

    def listen() -> None:
        with Shutdown(1.0).listening():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert seen == [before]


@pytest.mark.parametrize(("is_overdue", "may_recover_now"), [(True, True), (False, False)])
def test_without_time_or_points_the_run_stops_at_once(is_overdue, may_recover_now):
    """Nothing is withdrawn or sent."""
    shutdown = Shutdown(-1.0 if is_overdue else 1000.0)
    schedule = SimpleNamespace(
        jobs=lambda: iter(()), open_ahead=0, versions={}, keep_recoveries=2, steps=range(3)
    )
    schedule.may_recover_now = may_recover_now
    nothing = Ignored()
    run = Master(nothing, schedule, Best(None), nothing, nothing, nothing, NO_INPUTS, shutdown)
    with shutdown.deferred(), pytest.raises(Terminated):
        shutdown.request()
        run._on_poll()


def test_a_stopped_run_says_what_the_same_command_will_do(tmp_path):
    """By its newest recovery point, where there is one."""
    config = SFTConfig(runs_dir=str(tmp_path), recover_every=5)
    assert what_resumes(config) == "the same command begins afresh, as no recovery point is written yet"
    for step in (5, 10):
        (run_directory(config) / "recovery" / f"step-{step}").mkdir(parents=True)
    assert what_resumes(config) == (
        f"the same command resumes after step 10, from {run_directory(config)}/recovery"
    )
    without = replace(config, trial="without", recover_every=0)
    assert what_resumes(without) == "the same command begins afresh, as recover_every is 0"
    assert what_resumes(GenConfig()) == "the same command resumes after the last whole batch"
