"""The master: feeds the scheduler with jobs and reports, and records the results.

    Schedule ── stage ──▶ Scheduler ── instructions ──▶ Crew ──▶ workers
                              ▲                           │
                              └──────── Reported ◀────────┘

When it is asked to stop, it winds down:

    withdraw what has changed no weights ─▶ end the step that has ─▶ write a recovery point ─▶ Terminated
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

from realrl.api.recipe import CourseWatch, NoWatch, Observed
from realrl.program.events import Closed, Event, Job, Reported, Stage, Withdrawn
from realrl.program.jobs import in_order
from realrl.program.scheduler import Scheduler
from realrl.runtime.inputs import InputDigests
from realrl.runtime.master.checkpoints import BesideWeights, Best, publish
from realrl.runtime.master.crew import Crew
from realrl.runtime.master.display import Progress
from realrl.runtime.master.job_report import JobReport, Outcome
from realrl.runtime.master.recorder import Recorder
from realrl.runtime.master.recovery import publish_recovery
from realrl.runtime.master.schedule import Schedule
from realrl.runtime.master.shutdown import Shutdown
from realrl.runtime.master.summary import Summary

logger = logging.getLogger(__name__)

OPEN_JOBS = 2
"""How many jobs may overlap, as far as the weights that they share allow; those ahead, evaluations and
recovery points are not counted."""


class Master:
    """Joins the pure scheduler to the workers."""

    def __init__(
        self,
        crew: Crew,
        schedule: Schedule,
        best: Best,
        recorder: Recorder,
        progress: Progress,
        summary: Summary,
        inputs: InputDigests,
        shutdown: Shutdown,
        symptoms: Callable[[Observed], Sequence[str]] = lambda observed: (),
        course: CourseWatch | None = None,
        eval_scores: Callable[[str, Sequence[dict]], Mapping[str, float]] = lambda eval_set, records: {},
        beside: BesideWeights | None = None,
    ) -> None:
        """`symptoms` tells in words what the first step's numbers show to be wrong, `course` what all steps
        show together. `eval_scores` tells, from the set and the records of an evaluation, what all its
        samples show together.
        """
        self._crew = crew
        self._schedule = schedule
        self._stages = in_order(schedule.jobs(), schedule.open_ahead)
        self._next = next(self._stages, None)
        self._scheduler = Scheduler(schedule.versions)
        self._most_open = OPEN_JOBS + schedule.open_ahead
        self._best = best
        self._recorder = recorder
        self._progress = progress
        self._summary = summary
        self._inputs = inputs
        self._shutdown = shutdown
        self._winds_down = False
        self._steps_done = schedule.steps.start
        self._last_point = schedule.steps.start
        """The steps that were done at the newest recovery point."""
        self._num_jobs = 0
        self._open: dict[int, JobReport] = {}
        """The reports of jobs that have begun and not ended, by the number of the job."""
        self._symptoms: Callable[[Observed], Sequence[str]] | None = symptoms
        """Asked once, about the first step or batch."""
        self._course = course or NoWatch()
        self._eval_scores = eval_scores
        self._beside = beside or BesideWeights(lambda metrics: {})
        self._ended_s = 0.0
        """When the last step that is done had ended."""

    def run(self) -> None:
        """Take in reports, and send what they allow, until every job has ended."""
        self._recorder.begin_events(self._scheduler.state)
        with self._shutdown.deferred():
            self._begin_stages()
            while self._open:
                rank, instruction, done = self._crew.receive(self._on_poll, self._scheduler.waiting)
                self._recorder.record_instruction(rank, instruction, done)
                report = self._open.get(instruction.job)
                if report is not None:  # else its job was withdrawn
                    report.add(rank, instruction, done)
                self._tell(Reported(rank, done))
                self._end_jobs()
                self._begin_stages()
                self._on_poll()

    def _begin_stages(self) -> None:
        """Begin stages in their order, up to the first that may not begin yet."""
        while stage := self._next:
            job = stage.job
            if job.number not in self._open:
                open_jobs = [report.job for report in self._open.values()]
                if job.only_if_best:
                    if any(other.eval_set == self._best.eval_set for other in open_jobs):
                        return  # Whether its weights are the best is not known yet.
                    if self._best.step != job.step:
                        self._next = next(self._stages, None)
                        continue
                # A recovery point is written, and an evaluation may run, while the next step runs.
                num_open = sum(not (other.recovers or other.evaluating) for other in open_jobs)
                if num_open >= self._most_open:
                    return
                if job.directory:
                    _empty_directory(Path(job.directory))
                self._open[job.number] = JobReport(job)
                self._num_jobs = max(self._num_jobs, job.number + 1)

            self._next = next(self._stages, None)
            self._tell(stage)

    def _tell(self, event: Event) -> None:
        """Tell the scheduler of an event, and send what it allows."""
        emitted = self._scheduler.handle(event)
        self._recorder.record_event(event, emitted)
        for instruction in emitted:
            logger.debug("seq %d to ranks %s: %s", instruction.seq, instruction.ranks, instruction)
            self._crew.send(instruction)

    def _end_jobs(self) -> None:
        """Close each job that has ended: publish what it wrote, or record its result."""
        # A recovery point may have begun before evaluations that are to be recorded before it.
        for _, report in sorted(self._open.items()):
            job = report.job
            # The results of earlier jobs must be recorded before a recovery point.
            is_early = job.recovers and min(self._open) < job.number
            if is_early or self._scheduler.is_open(job):
                continue

            del self._open[job.number]
            if not (job.evaluating or job.directory):
                report.after_s = self._ended_s
                self._ended_s = report.end_s
            report.num_tokens = self._scheduler.ledgers[job.number].num_tokens
            self._tell(Closed(job.number))
            if job.recovers:
                self._publish_recovery(report)
                continue
            if job.directory:
                self._publish(job)
                continue

            records = report.records
            scores = self._eval_scores(job.eval_set, records) if job.evaluating else {}
            outcome = report.outcome(scores)
            if job.evaluating:
                self._best.consider(job.step, outcome.metrics, job.eval_set)
            else:
                self._steps_done = job.step + 1
                self._beside.consider(outcome.metrics)
            self._recorder.record_job(outcome, records)
            self._summary.add(outcome)
            self._progress.show_job(outcome)
            if not job.evaluating:
                self._look_for_faults(outcome, records)

    def _look_for_faults(self, outcome: Outcome, records: Sequence[dict]) -> None:
        """Warn of what a training step shows to be wrong."""
        step = outcome.step
        if symptoms := self._symptoms:
            self._symptoms = None
            observed = Observed(outcome.metrics, records, is_first_step=step == 0)
            self._warn(symptoms(observed))
        self._warn(self._course.observe(step, records))

    def _warn(self, lines: Sequence[str]) -> None:
        for line in lines:
            logger.warning("%s", line)
            self._progress.say(f"warning: {line}")

    def _publish(self, job: Job) -> None:
        partial = Path(job.directory)
        if job.only_if_best:
            self._best.note(partial)
        self._beside.write(partial)
        self._progress.say(f"checkpoint {publish(partial)}, of step {job.step}")

    def _publish_recovery(self, report: JobReport) -> None:
        # A run that resumes here expects the records of every step before it.
        self._recorder.sync()
        partial = Path(report.job.directory)
        step = report.job.step
        keep = self._schedule.keep_recoveries
        final = publish_recovery(partial, step, report.files, self._inputs, keep)
        self._last_point = step
        logger.info("recovery point %s", final)

    def _on_poll(self) -> None:
        self._recorder.flush_events()
        self._progress.show_running(self._crew.running)
        if self._shutdown.is_requested:
            self._wind_down()

    def _wind_down(self) -> None:
        """Do what is possible now to end the run; call this on every poll.

        Raises:
            Terminated: a recovery point is written, or there is no time left for it.
        """
        if self._shutdown.is_overdue or not self._schedule.may_recover_now:
            self._shutdown.stop()
        if not self._winds_down:
            self._winds_down = True
            logger.info("asked to stop: writes a recovery point within %g s", self._shutdown.grace_s)
            self._withdraw()
        if not self._open and self._last_point == self._steps_done:
            self._shutdown.stop()
        elif not self._open:
            self._stages = self._schedule.recovery_now(self._num_jobs, self._steps_done)
            self._next = next(self._stages, None)
            self._begin_stages()

    def _withdraw(self) -> None:
        """Withdraw all jobs except the step that changes weights, if any, and what saves earlier steps."""
        last = self._scheduler.last_changing
        withdrawn: list[int] = []
        for number, report in self._open.items():
            if self._is_given_up(report.job, last):
                withdrawn.append(number)
        for number in withdrawn:
            del self._open[number]
        self._tell(Withdrawn(tuple(withdrawn)))
        self._tell_rest()

    def _is_given_up(self, job: Job, last: int | None) -> bool:
        """Whether an open job is withdrawn, when `last` is the last job that has begun to change weights."""
        if job.recovers:
            steps = self._steps_done if last is None else self._open[last].job.step + 1
            return job.step > steps
        return last is None or job.number > last

    def _tell_rest(self) -> None:
        """Tell the scheduler the stages that open jobs lack; no others begin."""
        # One iterator for all: a run may have very many stages left, and they are in the order of jobs.
        first = [self._next] if self._next else []
        left = chain(first, self._stages)
        self._next = None
        self._stages = iter(())

        for report in list(self._open.values()):
            if self._scheduler.has_all_of(report.job):
                continue
            self._tell(_next_of(report.job, left))


def _next_of(job: Job, stages: Iterator[Stage]) -> Stage:
    """Return the next stage of a job."""
    return next(stage for stage in stages if stage.job.number == job.number)


def _empty_directory(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
