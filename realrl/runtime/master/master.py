"""The master: feeds the scheduler with jobs and reports, and has written down what comes of it.

When it is asked to stop, it winds down:

    withdraw what has changed no weights ─▶ end the step that has ─▶ write a recovery point ─▶ Terminated
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path

from realrl.api.messages import Done
from realrl.api.recipe import CourseWatch, NoWatch, Observed
from realrl.program.events import Closed, Event, Job, Reported, Withdrawn
from realrl.program.instructions import Instruction
from realrl.program.scheduler import Scheduler
from realrl.runtime.inputs import InputDigests
from realrl.runtime.master.checkpoints import Best, publish
from realrl.runtime.master.crew import Crew
from realrl.runtime.master.display import Progress
from realrl.runtime.master.job_report import JobReport
from realrl.runtime.master.recorder import Recorder
from realrl.runtime.master.recovery import publish_recovery
from realrl.runtime.master.schedule import Schedule
from realrl.runtime.master.shutdown import Shutdown
from realrl.runtime.master.summary import Summary

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
        inputs: InputDigests,
        shutdown: Shutdown,
        symptoms: Callable[[Observed], Sequence[str]] = lambda seen: (),
        course: CourseWatch | None = None,
    ) -> None:
        """`symptoms` tells in words what the first step's numbers show to be wrong, `course` what all steps
        show together.
        """
        self._crew, self._schedule, self._stages, self._best = crew, schedule, schedule.stages(), best
        self._most_open = OPEN_JOBS + schedule.open_ahead
        self._next = next(self._stages, None)
        self._recorder, self._progress, self._summary = recorder, progress, summary
        self._scheduler = Scheduler(schedule.versions)
        self._keep_recoveries, self._inputs = schedule.keep_recoveries, inputs
        self._shutdown, self._winds_down = shutdown, False
        self._steps_done = self._last_point = schedule.steps.start
        """Steps that are done, and those that the newest recovery point is of."""
        self._num_jobs = 0
        self._open: dict[int, JobReport] = {}
        self._symptoms: Callable[[Observed], Sequence[str]] | None = symptoms
        """Asked once, about the first step or batch."""
        self._course = course or NoWatch()
        self._ended_s = 0.0
        """When the last step that is done had."""

    def run(self) -> None:
        """Until every job has ended: take in a report, send out what it allows."""
        self._recorder.begin_events(self._scheduler.state)
        with self._shutdown.deferred():
            self._begin_stages()
            while self._open:
                self._handle(*self._crew.receive(self._on_poll, self._scheduler.waiting))
                self._end_jobs()
                self._begin_stages()
                self._on_poll()

    def _handle(self, rank: int, instruction: Instruction, done: Done) -> None:
        self._recorder.record_instruction(rank, instruction, done)
        if report := self._open.get(instruction.job):  # else its job was withdrawn
            report.add(rank, instruction, done)
        self._tell(Reported(rank, done))

    def _on_poll(self) -> None:
        self._recorder.flush_events()
        self._show_running()
        if self._shutdown.is_requested:
            self._wind_down()

    def _wind_down(self) -> None:
        """Get nearer to the end: to be called again and again.

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
            for stage in self._schedule.recovery_now(self._num_jobs, self._steps_done):
                self._open_job(stage.job)
                self._tell(stage)

    def _withdraw(self) -> None:
        """Leave the step that is being trained, if one is, and recovery points that are being written."""
        last = self._scheduler.last_changing
        kept = -1 if last is None else last
        steps = self._steps_done if last is None else self._open[last].job.step + 1
        jobs = [report.job for report in self._open.values()]
        withdrawn = [job.number for job in jobs if (job.step > steps if job.recovers else job.number > kept)]
        for number in withdrawn:
            del self._open[number]
        self._tell(Withdrawn(tuple(withdrawn)))
        left, self._next = chain([self._next] if self._next else [], self._stages), None
        self._stages = iter(())
        for report in [r for r in self._open.values() if not self._scheduler.has_all_of(r.job)]:
            rest = next(stage for stage in left if stage.job.number == report.job.number)
            self._tell(rest)

    def _show_running(self) -> None:
        self._progress.show_running(self._crew.running)

    def _tell(self, event: Event) -> None:
        """Tell the scheduler of an event, and send what it allows."""
        emitted = self._scheduler.handle(event)
        self._recorder.record_event(event, emitted)
        for instruction in emitted:
            logger.debug("seq %d to ranks %s: %s", instruction.seq, instruction.ranks, instruction)
            self._crew.send(instruction)

    def _begin_stages(self) -> None:
        while (stage := self._next) and (self._is_left_out(stage.job) or self._may_begin(stage.job)):
            self._next = next(self._stages, None)
            if stage.job.number in self._open:
                self._tell(stage)

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
            self._open_job(job)
        return job.number in self._open

    def _open_job(self, job: Job) -> None:
        if job.number in self._open:
            return
        if job.directory:
            _empty_directory(Path(job.directory))
        self._open[job.number] = JobReport(job)
        self._num_jobs = max(self._num_jobs, job.number + 1)

    def _end_jobs(self) -> None:
        for report in [r for r in self._open.values() if not self._scheduler.is_open(r.job)]:
            if report.job.recovers and min(self._open) < report.job.number:
                continue  # What an earlier job comes to must be written down first.
            del self._open[report.job.number]
            if not (report.job.evaluating or report.job.directory):
                report.after_s, self._ended_s = self._ended_s, report.end_s
            report.num_tokens = self._scheduler.ledgers[report.job.number].num_tokens
            self._tell(Closed(report.job.number))
            if report.job.recovers:
                self._publish_recovery(report)
            elif report.job.directory:
                self._publish(report.job)
            else:
                self._take_in(report)

    def _take_in(self, report: JobReport) -> None:
        """A step or an evaluation."""
        if not report.job.evaluating:
            self._steps_done = report.job.step + 1
        else:
            self._best.consider(report.job.step, report.metrics())
        self._recorder.record_job(report)
        self._summary.add(report.outcome())
        self._progress.show_job(report)
        if report.job.evaluating:
            return
        if symptoms := self._symptoms:
            self._symptoms = None
            seen = Observed(report.metrics(), report.records, is_first_step=report.job.step == 0)
            self._warn(symptoms(seen))
        self._warn(self._course.observe(report.job.step, report.records))

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
        final = publish_recovery(partial, step, report.files, self._inputs, self._keep_recoveries)
        self._last_point = step
        logger.info("recovery point %s", final)


def _empty_directory(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
