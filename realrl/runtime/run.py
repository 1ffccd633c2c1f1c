"""Owns one run: its directory, workers and master, and its restarts.

finished ───────────────────────────▶ done
fresh ────────────────┬─▶ attempt ──▶ done
resumed from a point ─┤      │
                      └──────┘ fails, and may restart
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from realrl.api.config import RunConfig, TrainingConfig
from realrl.api.launcher import Launcher
from realrl.api.mesh import ExecutionPlan
from realrl.api.messages import Recovery, Setup
from realrl.api.recipe import CourseWatch, Observed, Recipe
from realrl.base.counting import counted
from realrl.base.logging import logging_to
from realrl.datasets.digests import DataDigest
from realrl.runtime.control.master_channel import MasterChannel
from realrl.runtime.control.rendezvous import open_rendezvous
from realrl.runtime.directory import held_alone, refused_writes
from realrl.runtime.failure import RunFailed, RunRefused, Terminated
from realrl.runtime.history import past_rollouts
from realrl.runtime.inputs import InputDigests, InputsReader, difference, digest_data, digests_of, model_keys
from realrl.runtime.loggers.background import Loggers, start_loggers
from realrl.runtime.master.accounting import accounting
from realrl.runtime.master.best import best_set_of, criterion_of
from realrl.runtime.master.checkpoints import BesideWeights, Best, tidy
from realrl.runtime.master.crew import Crew
from realrl.runtime.master.display import Progress, say_line
from realrl.runtime.master.job_report import Outcome
from realrl.runtime.master.master import Master
from realrl.runtime.master.recorder import Recorder, run_directory
from realrl.runtime.master.recovery import keep_newest
from realrl.runtime.master.schedule import Schedule, make_schedule
from realrl.runtime.master.shutdown import Shutdown
from realrl.runtime.master.summary import Summary, print_summary
from realrl.runtime.pins import commits
from realrl.runtime.resume import (
    is_finished,
    may_restart,
    other_inputs,
    read_summary,
    record_inputs,
    what_resumes,
)
from realrl.runtime.run_data import RunData, open_data
from realrl.runtime.start import Start, begin, begin_again
from realrl.runtime.watch.run_watch import Watch

logger = logging.getLogger(__name__)

_STOP_S = 15.0
"""How long workers may take to end once they are told that all is done."""
_GRACE_S = 3.0
"""How long they may take to end when they are told to at once."""


def run(
    recipe: Recipe,
    config: RunConfig,
    plan: ExecutionPlan,
    launcher: Launcher,
    open_channel: Callable[[str, int], MasterChannel] = MasterChannel,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Do what `config` says, on workers that `launcher` starts; return what `summary.json` holds.

    `notes` are shown first. A failed attempt is resumed, up to `config.restarts` times. No worker outlives
    this call, however it ends.

    Raises:
        RunFailed: a worker failed, died, or took too long, and the run was not to restart; or its directory
            takes no more.
        RunRefused: what an earlier start left is damaged, or another master is at work in the directory: a
            person has to decide.
        KeyboardInterrupt: Ctrl-C stopped it; the message says what it resumes from.
        Terminated: SIGTERM asked it to stop.
    """
    began_s = time.monotonic()
    directory = run_directory(config)
    shutdown = Shutdown(config.sigterm_grace_s)
    with (
        _named_end(config),
        shutdown.listening(),
        closing(launcher),
        refused_writes(directory),
        held_alone(directory),
    ):
        if is_finished(config):
            return _say_finished(config)
        start = begin(recipe, config)
        start.notes[:0] = notes
        with (
            logging_to(directory / "logs" / "master.log", "master"),
            Watch(directory, launcher, plan.num_workers) as watch,
        ):
            this = _Run(recipe, config, plan, launcher, open_channel, watch, shutdown, began_s)
            return this.attempts(start)


@contextmanager
def _named_end(config: RunConfig) -> Iterator[None]:
    """Say what a run that is asked to stop resumes from."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"stopped by Ctrl-C; {what_resumes(config)}") from None
    except Terminated:
        raise Terminated(f"stopped by SIGTERM; {what_resumes(config)}") from None


def _say_finished(config: RunConfig) -> dict[str, Any]:
    """Say that nothing is left to do; return the summary of the run."""
    summary = read_summary(config)
    directory = run_directory(config)
    say_line(f"{directory} is finished, with {counted(summary['num_steps'], 'step')}; nothing to do")
    return summary


@dataclass(frozen=True, kw_only=True)
class _Attempt:
    """What one attempt works on, and what is gathered over it and earlier ones."""

    start: Start
    data: RunData
    schedule: Schedule
    progress: Progress
    summary: Summary
    best: Best
    symptoms: Callable[[Observed], list[str]]
    """Says in words what numbers show to be wrong."""
    course: CourseWatch
    beside: BesideWeights


@dataclass(frozen=True)
class _Run:
    """What stays the same over a run's restarts."""

    recipe: Recipe
    config: RunConfig
    plan: ExecutionPlan
    launcher: Launcher
    open_channel: Callable[[str, int], MasterChannel]
    watch: Watch
    shutdown: Shutdown
    began_s: float

    @property
    def directory(self) -> Path:
        """The directory of the run."""
        return run_directory(self.config)

    def attempts(self, start: Start) -> dict[str, Any]:
        """Run to the end, with as many restarts as the config allows; return what `summary.json` holds."""
        failures: list[str] = []
        while True:
            try:
                return self._attempt(start)
            except RunFailed as failure:
                if self.shutdown.is_requested:  # workers got the signal too, and died of it
                    self.shutdown.stop()
                failures.append(failure.what)
                if isinstance(failure, RunRefused) or not may_restart(self.config, failures):
                    raise
                logger.error("%s", failure)
                note = f"{failure}\nrestart {len(failures)} of {self.config.restarts}"
            self.watch.say("starts again")
            start = begin_again(self.recipe, self.config)
            start.notes.insert(0, note)

    def _attempt(self, start: Start) -> dict[str, Any]:
        """Run from `start` to the end."""
        this = self._prepare(start)
        notes = self._notes(this)
        with self._loggers(this) as loggers:
            with ExitStack() as stack:
                stack.callback(tidy, self.directory)
                recorder = Recorder(self.directory, self.plan.num_workers, this.schedule.kind, loggers)
                stack.enter_context(recorder)
                stack.enter_context(this.progress)
                for line in notes:
                    logger.info("%s", line)
                    this.progress.say(line)
                if next(this.schedule.jobs(), None):
                    self._work(this, recorder)
            result = self._result(this)
            recorder.record_summary(result)
            keep_newest(self.directory, 1)
        print_summary(result)
        return result

    def _prepare(self, start: Start) -> _Attempt:
        """Open what an attempt needs, and take in the records of earlier ones."""
        recipe = self.recipe
        config = self.config
        data = open_data(recipe, config)
        schedule = make_schedule(recipe, config, self.plan, data, self.directory, start.past)

        summary = Summary(self.began_s, trains=schedule.kind == "train")
        best = Best(criterion_of(recipe, config), best_set_of(config))
        beside = BesideWeights(partial(recipe.beside_weights, config))
        for line in start.past.metrics:
            outcome = Outcome.of(line)
            summary.add(outcome)
            if outcome.evaluating:
                best.consider(outcome.step, outcome.metrics, outcome.eval_set)
            else:
                beside.consider(outcome.metrics)

        course = recipe.course_watch(config)
        for step, records in past_rollouts(self.directory):
            course.observe(step, records)  # its warnings were shown then

        return _Attempt(
            start=start,
            data=data,
            schedule=schedule,
            progress=Progress(schedule.steps),
            summary=summary,
            best=best,
            symptoms=partial(recipe.symptoms, config, data.tokenizer),
            course=course,
            beside=beside,
        )

    def _notes(self, this: _Attempt) -> list[str]:
        """Return the lines that are shown before anything starts."""
        notes = list(this.start.notes)
        if recovery := this.start.recovery:
            notes.append(f"resumes after step {recovery.step}, from {recovery.directory}")
        notes += this.data.notes
        notes += accounting(self.recipe, self.config, self.plan)
        return notes

    def _work(self, this: _Attempt, recorder: Recorder) -> None:
        """Start workers, and have them do what the schedule says."""
        workers = counted(self.plan.num_workers, "worker")
        this.progress.say(f"starts {workers}; everything of this run goes to {self.directory}")
        self.watch.begin(this.schedule.steps.stop)
        digest = digest_data(this.data)
        with (
            self._reader(digest, this.start.inputs) as reader,
            self._crew(this.start.recovery, digest) as crew,
        ):
            # By now workers have read the models too: waiting here costs little.
            inputs = self._settled(reader, this.start.inputs)
            master = Master(
                crew,
                this.schedule,
                this.best,
                recorder,
                this.progress,
                this.summary,
                inputs,
                self.shutdown,
                this.symptoms,
                this.course,
                partial(self.recipe.eval_scores, self.config),
                this.beside,
            )
            master.run()

    def _result(self, this: _Attempt) -> dict[str, Any]:
        """Return what `summary.json` holds."""
        config = self.config
        facts: dict[str, Any] = {"experiment": config.experiment, "trial": config.trial}
        facts |= this.schedule.outcome()
        if this.schedule.keeps_best:
            facts["best"] = this.best.outcome(self.directory)
        if found := commits(config):
            facts["commits"] = found
        observed = Observed(this.summary.means())
        facts["warnings"] = [*this.symptoms(observed), *this.course.warnings()]
        return this.summary.result(**facts)

    def _loggers(self, this: _Attempt) -> Loggers:
        return start_loggers(
            self.config.logger,
            self.config,
            self.recipe.name,
            self.directory,
            past=this.start.past.metrics,
            first_step=this.schedule.steps.start,
            say=this.progress.say,
        )

    def _reader(self, data: DataDigest, before: InputDigests | None) -> InputsReader:
        """Begin to read what the run reads; `before` is what earlier attempts read."""
        config = self.config
        # Digests of files are for recovery points, and for a resume: some trainings have neither.
        reads_files = True
        if isinstance(config, TrainingConfig):
            reads_files = bool(config.recover_every) or before is not None
        return InputsReader(self.recipe, config, data, before, reads_files=reads_files)

    def _settled(self, reader: InputsReader, before: InputDigests | None) -> InputDigests:
        """Return what the run reads; a pass records it for later starts.

        Raises:
            RunRefused: earlier starts read something else.
        """
        inputs = reader.all()
        if before is None:
            record_inputs(self.config, inputs)
        elif changed := difference(before, inputs, model_keys(self.recipe, self.config)):
            raise other_inputs(self.config, changed)
        return inputs

    @contextmanager
    def _crew(self, recovery: Recovery | None, data: DataDigest) -> Iterator[Crew]:
        """Workers that are set up; they end with this context."""
        launcher = self.launcher
        num_workers = self.plan.num_workers
        with ExitStack() as stack:
            channel = stack.enter_context(self.open_channel(launcher.host, num_workers))
            rendezvous = stack.enter_context(closing(open_rendezvous(launcher)))
            stack.callback(launcher.stop, _GRACE_S)
            launcher.start(num_workers, channel.environment(), self.directory / "logs")

            crew = Crew(channel, launcher, self.watch, self.config.call_timeout_s)
            crew.wait_for_workers()
            channel.admit_only_hosts()
            rendezvous.admit(channel.hosts)
            hosts = channel.hosts | channel.data_hosts
            setup = self._setup(rendezvous.where, hosts, recovery, data)
            crew.set_up(setup)
            rendezvous.close_to_all()

            self.watch.say("step")
            yield crew
            crew.stop_workers()
            launcher.wait(_STOP_S)

    def _setup(
        self, store: str, hosts: Collection[str], recovery: Recovery | None, data: DataDigest
    ) -> Setup:
        return Setup(
            recipe=self.recipe.name,
            config=msgspec.json.encode(self.config),
            placements=dict(self.plan.placements),
            store=store,
            hosts=tuple(sorted(hosts)),
            digests=digests_of(self.recipe, self.config, data),
            recovery=recovery,
        )
