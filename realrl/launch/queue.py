"""A run as a job in SLURM's queue: submitted, followed, cancelled."""

from __future__ import annotations

import re
import shutil
import sys
import time
from pathlib import Path
from typing import NamedTuple

from realrl.api.config import RunConfig
from realrl.base.files import write_atomically
from realrl.base.terminal import show
from realrl.launch.sbatch import log_path, sbatch_script
from realrl.launch.slurm_cli import ask
from realrl.runtime.failure import RunFailed

_ENDED = (
    "COMPLETED",
    "FAILED",
    "CANCELLED",
    "TIMEOUT",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "BOOT_FAIL",
    "DEADLINE",
    "REVOKED",
)
"""States of a job that has ended. Source: SLURM, squeue(1), job state codes."""
_LOOK_EVERY_S = 2.0
_SILENT_LOOKS = 100
"""Number of consecutive failed queries that are tolerated, since controllers restart."""
_CANCEL_S = 60.0


class Job(NamedTuple):
    """The state of a job in the queue."""

    state: str
    reason: str
    nodes: str
    code: int
    """Exit code of its script; for a signal, 128 plus its number."""

    @property
    def has_ended(self) -> bool:
        """Whether the job is over, successfully or not."""
        return self.state in _ENDED

    def __str__(self) -> str:
        state = self.state.lower()
        detail = self.reason if self.state == "PENDING" else self.nodes
        if detail in ("", "None", "(null)"):
            return state
        return f"{state} ({detail})"


def check_slurm() -> None:
    """Check that SLURM's commands are installed.

    Raises:
        ValueError: they are missing.
    """
    if not shutil.which("sbatch"):
        raise ValueError(
            "mode: slurm needs the command sbatch, which is not on this machine's PATH; submit from a login"
            " node, or see the script by --dry-run"
        )


def submit(recipe: str, config: RunConfig, num_workers: int) -> str:
    """Write the script next to the run's directory and enqueue it; return the job's number.

    Raises:
        RunFailed: SLURM rejected the script.
    """
    script = Path(config.runs_dir, config.experiment, f"{config.trial}.sbatch")
    write_atomically(script, sbatch_script(recipe, config, num_workers))
    done = ask("sbatch", "--parsable", str(script))
    if done.returncode:
        raise RunFailed(f"SLURM refused {script}: {done.stderr.strip()}")
    return done.stdout.strip().partition(";")[0]


def follow(job: str, config: RunConfig) -> tuple[int, str]:
    """Show a job's states and its master's output until it has ended; return its exit code and a summary.

    Ctrl-C cancels the job.

    Raises:
        RunFailed: the job was in the queue longer than `slurm.queue_timeout_s`.
    """
    try:
        return _followed(job, config)
    except KeyboardInterrupt:
        _cancel(job)
        raise


def _followed(job: str, config: RunConfig) -> tuple[int, str]:
    """Do what `follow` says, without the care for Ctrl-C."""
    log = _Tail(log_path(config, job))
    queued_s = time.monotonic()
    shown = ""
    while True:
        now = look(job)
        if str(now) != shown:
            shown = str(now)
            _say(f"SLURM job {job}: {shown}")
        log.show()
        if now.has_ended:
            return now.code, f"SLURM job {job} {shown}, exit code {now.code}; see {log.path}"
        waited_s = time.monotonic() - queued_s
        timeout_s = config.slurm.queue_timeout_s
        if now.state != "PENDING":
            # A job that is requeued waits anew.
            queued_s = time.monotonic()
        elif 0 < timeout_s < waited_s:
            _cancel(job)
            raise RunFailed(
                f"SLURM job {job} waited longer than slurm.queue_timeout_s={timeout_s:g}: {now.reason};"
                " it is cancelled"
            )
        time.sleep(_LOOK_EVERY_S)


def look(job: str) -> Job:
    """Query the state of a job.

    Raises:
        RunFailed: the queue does not answer.
    """
    for _ in range(_SILENT_LOOKS):
        asked = ask("scontrol", "--oneliner", "show", "job", job)
        if not asked.returncode:
            return read_job(asked.stdout)
        time.sleep(_LOOK_EVERY_S)
    raise RunFailed(f"SLURM says nothing of job {job}, which may go on: {asked.stderr.strip()}")


def read_job(shown: str) -> Job:
    """Parse a line of `scontrol --oneliner show job`."""
    found = dict(re.findall(r"(?:^| )(\w+)=(\S*)", shown))
    code, _, number = found["ExitCode"].partition(":")
    state = found["JobState"]
    exit_code = int(code)
    if int(number):
        exit_code = 128 + int(number)
    elif exit_code == 0 and state in _ENDED and state != "COMPLETED":
        # A job that was cancelled or lost its node may report 0.
        exit_code = 1
    return Job(state, found["Reason"], found["NodeList"], exit_code)


def _cancel(job: str) -> None:
    """Cancel a job, and wait until SLURM has ended its processes."""
    ask("scancel", job)
    deadline_s = time.monotonic() + _CANCEL_S
    while not look(job).has_ended and time.monotonic() < deadline_s:
        time.sleep(0.2)


class _Tail:
    """A file whose new content is copied to the terminal."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0

    def show(self) -> None:
        """Copy what was appended since the last call."""
        if self.path.exists():
            with self.path.open("rb") as file:
                file.seek(self._offset)
                new = file.read()
            self._offset += len(new)
            show(new.decode(errors="replace"))
            sys.stdout.flush()


def _say(line: str) -> None:
    """Show a line at once."""
    show(f"{line}\n")
    sys.stdout.flush()
