"""The master: feeds the scheduler with jobs and reports, and has written down what comes of it."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from realrl.api.messages import Instruction, StepAside
from realrl.api.recipe import Observed
from realrl.runtime.checkpoints import Best, publish
from realrl.runtime.crew import Crew
from realrl.runtime.progress import Progress
from realrl.runtime.recorder import Recorder
from realrl.runtime.recovery import publish_recovery
from realrl.runtime.report import JobReport
from realrl.runtime.schedule import Schedule
from realrl.runtime.scheduler import Job, Reported, Scheduler
from realrl.runtime.summary import Summary

logger = logging.getLogger(__name__)

OPEN_JOBS = 2
"""How many jobs may overlap, as far as the weights that they share allow; stale ones beside."""


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
        symptoms: Callable[[Observed], Sequence[str]] = lambda seen: (),
    ) -> None:
        """`symptoms` tells in words what a step's numbers show to be wrong."""
        self._crew, self._stages, self._best = crew, schedule.stages(), best
        self._most_open = OPEN_JOBS + schedule.open_ahead
        self._next = next(self._stages, None)
        self._recorder, self._progress, self._summary = recorder, progress, summary
        self._scheduler = Scheduler(schedule.versions)
        self._keep_recoveries = schedule.keep_recoveries
        self._open: dict[int, JobReport] = {}
        self._symptoms: Callable[[Observed], Sequence[str]] | None = symptoms
        """Asked once, about the first step or batch."""
        self._ended_s = 0.0
        """When the last step that is done had."""

    def run(self) -> None:
        """Until every job has ended: take in a report, send out what it allows."""
        self._begin_stages()
        while self._open:
            rank, instruction, done = self._crew.receive(self._show_running, self._scheduler.waiting)
            self._recorder.record_instruction(rank, instruction, done)
            self._open[instruction.job].add(rank, instruction, done)
            self._send(self._scheduler.handle(Reported(rank, done)))
            self._end_jobs()
            self._begin_stages()
            self._show_running()

    def _show_running(self) -> None:
        self._progress.show_running(self._crew.running)

    def _send(self, instructions: Sequence[Instruction | StepAside]) -> None:
        for instruction in instructions:
            logger.debug("seq %d to ranks %s: %s", instruction.seq, instruction.ranks, instruction)
            self._crew.send(instruction)

    def _begin_stages(self) -> None:
        while (stage := self._next) and (self._is_left_out(stage.job) or self._may_begin(stage.job)):
            self._next = next(self._stages, None)
            if stage.job.number in self._open:
                self._send(self._scheduler.handle(stage))

    def _is_left_out(self, job: Job) -> bool:
        return job.only_if_best and not self._is_evaluating and self._best.step != job.step

    @property
    def _is_evaluating(self) -> bool:
        return any(report.job.evaluating for report in self._open.values())

    def _may_begin(self, job: Job) -> bool:
        """Whether the job is open; one that is known to be due is opened if there are not too many."""
        is_known = not (job.only_if_best and self._is_evaluating)
        # What recovery goes on from stays open while the next step is on.
        num_open = sum(not report.job.recovers for report in self._open.values())
        if job.number not in self._open and is_known and num_open < self._most_open:
            if job.directory:
                _empty_directory(Path(job.directory))
            self._open[job.number] = JobReport(job)
        return job.number in self._open

    def _end_jobs(self) -> None:
        for report in [r for r in self._open.values() if not self._scheduler.is_open(r.job)]:
            if report.job.recovers and min(self._open) < report.job.number:
                continue  # What an earlier job comes to must be written down first.
            del self._open[report.job.number]
            if not (report.job.evaluating or report.job.directory):
                report.after_s, self._ended_s = self._ended_s, report.end_s
            report.num_tokens = self._scheduler.close(report.job).num_tokens
            if report.job.recovers:
                self._publish_recovery(report)
            elif report.job.directory:
                self._publish(report.job)
            else:
                self._take_in(report)

    def _take_in(self, report: JobReport) -> None:
        """A step or an evaluation."""
        if report.job.evaluating:
            self._best.consider(report.job.step, report.metrics())
        self._recorder.record_job(report)
        self._summary.add(report.outcome())
        self._progress.show_job(report)
        if not report.job.evaluating and (symptoms := self._symptoms):
            self._symptoms = None
            seen = Observed(report.metrics(), report.records, is_first_step=report.job.step == 0)
            self._warn(symptoms(seen))

    def _warn(self, lines: Sequence[str]) -> None:
        for line in lines:
            logger.warning("%s", line)
            self._progress.say(f"warning: {line}")

    def _publish(self, job: Job) -> None:
        partial = Path(job.directory)
        if job.only_if_best:
            self._best.note(partial)
        self._progress.say(f"checkpoint {publish(partial)}, of step {job.step}")

    def _publish_recovery(self, report: JobReport) -> None:
        self._recorder.sync()
        partial, step = Path(report.job.directory), report.job.step
        final = publish_recovery(partial, step, report.files, self._keep_recoveries)
        logger.info("recovery goes on from %s", final)


def _empty_directory(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
