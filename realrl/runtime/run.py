"""A run from its beginning to its end, by way of its failures: its directory, its workers, its master."""

from __future__ import annotations

import errno
import logging
import os
import socket
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from realrl.api.config import RunConfig, TrainingConfig
from realrl.api.configure import dump_config
from realrl.api.mesh import ExecutionPlan
from realrl.api.messages import Recovery, Setup
from realrl.api.recipe import Observed, Recipe
from realrl.base.files import locked, write_atomically
from realrl.base.logging import logging_to
from realrl.runtime.accounting import accounting
from realrl.runtime.channel import MasterChannel
from realrl.runtime.checkpoints import Best, tidy
from realrl.runtime.crew import Crew
from realrl.runtime.data import open_data
from realrl.runtime.failure import RunFailed
from realrl.runtime.launcher import Launcher
from realrl.runtime.loggers.background import Loggers, start_loggers
from realrl.runtime.master import Master
from realrl.runtime.pins import commits
from realrl.runtime.progress import Progress
from realrl.runtime.recorder import CONFIG, METRICS, Recorder, run_directory
from realrl.runtime.recovery import (
    Past,
    cut_batches,
    cut_records,
    drop_records,
    drop_recoveries,
    newest_recovery,
)
from realrl.runtime.rendezvous import open_rendezvous
from realrl.runtime.report import Outcome
from realrl.runtime.resume import goes_on, may_restart
from realrl.runtime.schedule import make_schedule
from realrl.runtime.summary import Summary, print_summary
from realrl.runtime.watch import Watch

logger = logging.getLogger(__name__)

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE)
_FAREWELL_S = 15.0
"""How long workers may take to end once they are told that all is done."""
_GRACE_S = 3.0
"""How long they may take to end when they are told to at once."""


def run(
    recipe: Recipe,
    config: Any,
    plan: ExecutionPlan,
    launcher: Launcher,
    open_channel: Callable[[str, int], MasterChannel] = MasterChannel,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Do what `config` says, on workers that `launcher` starts; the result is `summary.json`'s. `notes` are
    shown first.

    What fails is gone on with, as often as `config.restarts` says. No worker outlives this call, however it
    ends.

    Raises:
        RunFailed: a worker failed, died, or took too long, and the run was not to go on; or its directory
            takes no more, or has another master at work.
    """
    failures: list[str] = []
    directory, began_s = run_directory(config), time.monotonic()
    with closing(launcher), _refused_writes(directory), _alone(directory):
        recovery, found = _begin(recipe, config)
        notes = [*notes, *found]
        with (
            logging_to(directory / "logs" / "master.log", "master"),
            Watch(directory, launcher, plan.num_workers) as watch,
        ):
            this = _Run(recipe, config, plan, launcher, open_channel, watch, began_s)
            while True:
                try:
                    return this.attempt(recovery, notes)
                except RunFailed as failure:
                    failures.append(failure.what)
                    if not may_restart(config, failures):
                        raise
                    logger.error("%s", failure)
                    said = f"{failure}\nrestart {len(failures)} of {config.restarts}"
                watch.say("starts again")
                recovery, notes = _begin_again(config)
                notes.insert(0, said)


@contextmanager
def _refused_writes(directory: Path) -> Iterator[None]:
    """Nothing that is started again can help against a disk that is full or gone."""
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        where = error.filename or directory
        raise RunFailed(
            f"cannot read or write {where}: {error.strerror}; mend it, and start again"
        ) from error


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Two masters in one directory would each undo what the other does."""
    lock = directory.with_name(f".{directory.name}.lock")
    me = f"process {os.getpid()} on {socket.gethostname()}"
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(lock, me))
        except BlockingIOError as error:
            what = f"{directory} has a master at work, {error.strerror}; end that first, or set another trial"
            raise RunFailed(what) from None
        yield


def _begin(recipe: Recipe, config: RunConfig) -> tuple[Recovery | None, list[str]]:
    """The run's directory is fresh, or as it was left where the run goes on; returns what from, and why."""
    directory, is_left = run_directory(config), goes_on(config)
    recovery, notes = newest_recovery(directory) if is_left else (None, [])
    if not (recovery or (is_left and not isinstance(config, TrainingConfig))):
        fresh_directory(directory)
    write_atomically(directory / CONFIG, dump_config(config, recipe=recipe.name))
    return recovery, notes


def _begin_again(config: RunConfig) -> tuple[Recovery | None, list[str]]:
    """As `_begin`, for a run that has failed here."""
    directory = run_directory(config)
    recovery, notes = newest_recovery(directory)
    if not recovery and isinstance(config, TrainingConfig):
        drop_records(directory)
    return recovery, notes


@dataclass(frozen=True)
class _Run:
    """What is the same however often it is begun again."""

    recipe: Recipe
    config: Any
    plan: ExecutionPlan
    launcher: Launcher
    open_channel: Callable[[str, int], MasterChannel]
    watch: Watch
    began_s: float

    @property
    def directory(self) -> Path:
        return run_directory(self.config)

    def attempt(self, recovery: Recovery | None, notes: Sequence[str]) -> dict[str, Any]:
        """From `recovery`, or the beginning, to the end."""
        recipe, config, directory = self.recipe, self.config, self.directory
        tidy(directory)
        data = open_data(recipe, config)
        symptoms = partial(recipe.symptoms, config, data.tokenizer)
        past = self._past(recovery)
        schedule = make_schedule(recipe, config, self.plan, data, directory, past)
        summary = Summary(self.began_s, trains=schedule.kind == "train")
        best = Best(recipe.best_by(config))
        _recall(past.metrics, summary, best)
        if recovery:
            notes = [*notes, f"goes on after step {recovery.step}, from {recovery.directory}"]
        of_data = [note for side in (data.rows, data.held_out) for note in getattr(side, "notes", ())]
        notes = [*notes, *of_data, *accounting(recipe, config, self.plan)]
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
                if steps:
                    progress.say(f"{num_workers} workers start; everything of this run goes to {directory}")
                    self.watch.begin(steps.stop)
                    crew = stack.enter_context(self._crew(recovery))
                    Master(crew, schedule, best, recorder, progress, summary, symptoms).run()
            outcome = schedule.outcome() | ({"best": best.outcome(directory)} if schedule.keeps_best else {})
            if found := commits(config):
                outcome["commits"] = found
            outcome["warnings"] = symptoms(Observed(summary.means()))
            result = summary.result(experiment=config.experiment, trial=config.trial, **outcome)
            recorder.record_summary(result)
            drop_recoveries(directory)
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

    def _past(self, recovery: Recovery | None) -> Past:
        """What is done; what was written down of more is dropped."""
        if not isinstance(self.config, TrainingConfig):
            return cut_batches(self.directory, self.recipe.samples_per_row(self.config))
        return cut_records(self.directory, recovery.step) if recovery else Past()

    @contextmanager
    def _crew(self, recovery: Recovery | None) -> Iterator[Crew]:
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
            crew.set_up(self._setup(rendezvous.where, channel.hosts | channel.data_hosts, recovery))
            rendezvous.close_to_all()
            self.watch.say("step")
            yield crew
            crew.dismiss()
            launcher.wait(_FAREWELL_S)

    def _setup(self, store: str, hosts: Collection[str], recovery: Recovery | None) -> Setup:
        return Setup(
            recipe=self.recipe.name,
            config=msgspec.json.encode(self.config),
            placements=dict(self.plan.placements),
            store=store,
            hosts=tuple(sorted(hosts)),
            recovery=recovery,
        )


def _recall(lines: Iterable[Mapping[str, Any]], summary: Summary, best: Best) -> None:
    """What came of the steps and evaluations that an earlier run made.

    Raises:
        RunFailed: it was another version of realrl.
    """
    try:
        outcomes = list(map(Outcome.of, lines))
    except KeyError as error:
        what = (
            f"another version of realrl wrote {METRICS}, without {error}: go on with that, or set recover=off"
        )
        raise RunFailed(what) from None
    for outcome in outcomes:
        summary.add(outcome)
        if outcome.evaluating:
            best.consider(outcome.step, outcome.metrics)


def fresh_directory(path: Path) -> Path:
    """An empty directory; an earlier run's is kept under the next free number."""
    if path.exists():
        taken = [int(p.suffix[1:]) for p in path.parent.glob(f"{path.name}.*") if p.suffix[1:].isdigit()]
        path.rename(path.with_name(f"{path.name}.{max(taken, default=0) + 1}"))
    (path / "logs").mkdir(parents=True)
    return path
