"""Owns one run: its directory, workers and master, and its restarts.

finished ───────────────────────────▶ done
fresh ────────────────┬─▶ attempt ──▶ done
resumed from a point ─┤      │
                      └──────┘ fails, and may restart
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from realrl.api.config import RunConfig, TrainingConfig
from realrl.api.configure import dump_config
from realrl.api.launcher import Launcher
from realrl.api.mesh import ExecutionPlan
from realrl.api.messages import Recovery, Setup
from realrl.api.recipe import Observed, Recipe
from realrl.base.counting import counted
from realrl.base.files import write_atomically
from realrl.base.logging import logging_to
from realrl.datasets.digests import DataDigest
from realrl.runtime.control.channel import MasterChannel
from realrl.runtime.control.rendezvous import open_rendezvous
from realrl.runtime.directory import fresh_directory, held_alone, refused_writes
from realrl.runtime.failure import RunFailed, RunRefused, Terminated
from realrl.runtime.history import Past, cut_batches, cut_records, drop_records, past_rollouts
from realrl.runtime.inputs import InputDigests, InputsReader, difference, digest_data, digests_of, model_keys
from realrl.runtime.loggers.background import Loggers, start_loggers
from realrl.runtime.master.accounting import accounting
from realrl.runtime.master.checkpoints import Best, tidy
from realrl.runtime.master.crew import Crew
from realrl.runtime.master.display import Progress, say_line
from realrl.runtime.master.job_report import Outcome
from realrl.runtime.master.master import Master
from realrl.runtime.master.recorder import Recorder, run_directory
from realrl.runtime.master.recovery import finish_writing, keep_newest, newest_recovery
from realrl.runtime.master.schedule import make_schedule
from realrl.runtime.master.shutdown import Shutdown
from realrl.runtime.master.summary import Summary, print_summary
from realrl.runtime.pins import commits
from realrl.runtime.resume import (
    is_done,
    is_finished,
    may_restart,
    other_inputs,
    read_summary,
    record_inputs,
    recorded_inputs,
    resumes,
    what_resumes,
)
from realrl.runtime.run_data import open_data
from realrl.runtime.run_files import CONFIG, SUMMARY
from realrl.runtime.watch.run_watch import Watch

logger = logging.getLogger(__name__)

_FAREWELL_S = 15.0
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
    """Do what `config` says, on workers that `launcher` starts; the result is `summary.json`'s. `notes` are
    shown first.

    A failed attempt is resumed, up to `config.restarts` times. No worker outlives this call, however it
    ends.

    Raises:
        RunFailed: a worker failed, died, or took too long, and the run was not to restart; or its directory
            takes no more.
        RunRefused: what an earlier start left is damaged, or another master is at work in the directory: a
            person has to decide.
        KeyboardInterrupt: Ctrl-C stopped it; the message says what it resumes from.
        Terminated: SIGTERM asked it to stop.
    """
    failures: list[str] = []
    directory, began_s = run_directory(config), time.monotonic()
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
        start = _begin(recipe, config)
        start.notes[:0] = notes
        with (
            logging_to(directory / "logs" / "master.log", "master"),
            Watch(directory, launcher, plan.num_workers) as watch,
        ):
            this = _Run(recipe, config, plan, launcher, open_channel, watch, shutdown, began_s)
            while True:
                try:
                    return this.attempt(start)
                except RunFailed as failure:
                    if shutdown.is_requested:  # workers got the signal too, and died of it
                        shutdown.stop()
                    failures.append(failure.what)
                    if isinstance(failure, RunRefused) or not may_restart(config, failures):
                        raise
                    logger.error("%s", failure)
                    said = f"{failure}\nrestart {len(failures)} of {config.restarts}"
                watch.say("starts again")
                start = _begin_again(recipe, config)
                start.notes.insert(0, said)


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
    """Nothing is left to do; returns what the run resulted in."""
    summary, directory = read_summary(config), run_directory(config)
    say_line(f"{directory} is finished, with {counted(summary['num_steps'], 'step')}; nothing to do")
    return summary


class _Start(NamedTuple):
    """What an attempt begins with."""

    recovery: Recovery | None
    """What a training resumes from, if it does."""
    past: Past
    notes: list[str]
    """Lines for a person."""
    inputs: InputDigests | None = None
    """What earlier starts read, as far as that is known."""


def _begin(recipe: Recipe, config: RunConfig) -> _Start:
    """Make the run's directory ready."""
    directory = run_directory(config)
    if resumes(config):
        start = _resume(recipe, config)
        if is_done(config):  # it is to train more steps; until it has, it is not done
            steps = read_summary(config)["num_steps"]
            (directory / SUMMARY).rename(directory / f"summary-{steps}.json")
    else:
        moved = fresh_directory(directory)
        start = _Start(None, Past(), [f"an earlier run in {directory} is kept as {moved}"] if moved else [])
    write_atomically(directory / CONFIG, dump_config(config, recipe=recipe.name))
    return start


def _begin_again(recipe: Recipe, config: RunConfig) -> _Start:
    """As `_begin`, for a run that has failed here."""
    start = _resume(recipe, config)
    if not start.recovery and isinstance(config, TrainingConfig):
        drop_records(run_directory(config))
    return start


def _resume(recipe: Recipe, config: RunConfig) -> _Start:
    """What earlier starts left, once what they wrote down of more than can be resumed is dropped."""
    directory = run_directory(config)
    if not isinstance(config, TrainingConfig):
        past = cut_batches(directory, recipe.samples_per_row(config))
        return _Start(None, past, [], recorded_inputs(config))
    recovery, notes = _find_recovery(directory)
    past = cut_records(directory, recovery.step) if recovery else Past()
    return _Start(recovery, past, notes, recorded_inputs(config))


def _find_recovery(directory: Path) -> tuple[Recovery | None, list[str]]:
    """The newest whole recovery point, once what a kill cut short is completed or removed."""
    finish_writing(directory)
    tidy(directory)
    return newest_recovery(directory)


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
        return run_directory(self.config)

    def attempt(self, start: _Start) -> dict[str, Any]:
        """Run from `start` to the end."""
        recipe, config, directory = self.recipe, self.config, self.directory
        recovery, past, notes, _ = start
        data = open_data(recipe, config)
        symptoms = partial(recipe.symptoms, config, data.tokenizer)
        schedule = make_schedule(recipe, config, self.plan, data, directory, past)
        summary = Summary(self.began_s, trains=schedule.kind == "train")
        best = Best(recipe.best_by(config))
        _recall(past.metrics, summary, best)
        course = recipe.course_watch(config)
        for step, records in past_rollouts(directory):
            course.observe(step, records)  # what is found there was said then
        if recovery:
            notes = [*notes, f"resumes after step {recovery.step}, from {recovery.directory}"]
        notes = [*notes, *data.notes, *accounting(recipe, config, self.plan)]
        num_workers, steps = self.plan.num_workers, schedule.steps
        progress = Progress(steps)
        with self._loggers(past, steps.start, progress) as loggers:
            with ExitStack() as stack:
                stack.callback(tidy, directory)
                recorder = stack.enter_context(Recorder(directory, num_workers, schedule.kind, loggers))
                stack.enter_context(progress)
                for line in notes:
                    logger.info("%s", line)
                    progress.say(line)
                if next(schedule.stages(), None):
                    workers = counted(num_workers, "worker")
                    progress.say(f"starts {workers}; everything of this run goes to {directory}")
                    self.watch.begin(steps.stop)
                    digest = digest_data(data)
                    reader = stack.enter_context(self._reader(digest, start.inputs))
                    crew = stack.enter_context(self._crew(recovery, digest))
                    # By now workers have read the models too: waiting here costs little.
                    inputs = self._settled(reader, start.inputs)
                    told = inputs, self.shutdown, symptoms, course
                    Master(crew, schedule, best, recorder, progress, summary, *told).run()
            outcome = schedule.outcome() | ({"best": best.outcome(directory)} if schedule.keeps_best else {})
            if found := commits(config):
                outcome["commits"] = found
            outcome["warnings"] = [*symptoms(Observed(summary.means())), *course.warnings()]
            result = summary.result(experiment=config.experiment, trial=config.trial, **outcome)
            recorder.record_summary(result)
            keep_newest(directory, 1)
        print_summary(result)
        return result

    def _loggers(self, past: Past, first_step: int, progress: Progress) -> Loggers:
        return start_loggers(
            self.config.logger,
            self.config,
            self.recipe.name,
            self.directory,
            past=past.metrics,
            first_step=first_step,
            say=progress.say,
        )

    def _reader(self, data: DataDigest, before: InputDigests | None) -> InputsReader:
        """A training that writes no recovery point has no use for digests of files."""
        config = self.config
        is_of_use = not isinstance(config, TrainingConfig) or config.recover_every or before is not None
        return InputsReader(self.recipe, self.config, data, before, reads_files=bool(is_of_use))

    def _settled(self, reader: InputsReader, before: InputDigests | None) -> InputDigests:
        """What the run reads; it must be what earlier starts read, and a pass notes it for later ones."""
        inputs = reader.all()
        if before is None:
            record_inputs(self.config, inputs)
        elif changed := difference(before, inputs, model_keys(self.recipe, self.config)):
            raise other_inputs(self.config, changed)
        return inputs

    @contextmanager
    def _crew(self, recovery: Recovery | None, data: DataDigest) -> Iterator[Crew]:
        """Workers that are set up, until all is done or has failed."""
        launcher, num_workers = self.launcher, self.plan.num_workers
        with ExitStack() as stack:
            channel = stack.enter_context(self.open_channel(launcher.host, num_workers))
            rendezvous = stack.enter_context(closing(open_rendezvous(launcher)))
            stack.callback(launcher.stop, _GRACE_S)
            launcher.start(num_workers, channel.environment(), self.directory / "logs")
            crew = Crew(channel, launcher, self.watch, self.config.call_timeout_s)
            crew.muster()
            channel.admit_only_hosts()
            rendezvous.admit(channel.hosts)
            hosts = channel.hosts | channel.data_hosts
            crew.set_up(self._setup(rendezvous.where, hosts, recovery, data))
            rendezvous.close_to_all()
            self.watch.say("step")
            yield crew
            crew.dismiss()
            launcher.wait(_FAREWELL_S)

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


def _recall(lines: Iterable[Mapping[str, Any]], summary: Summary, best: Best) -> None:
    """Take in the steps and evaluations that earlier starts of the run made."""
    for outcome in map(Outcome.of, lines):
        summary.add(outcome)
        if outcome.evaluating:
            best.consider(outcome.step, outcome.metrics)
