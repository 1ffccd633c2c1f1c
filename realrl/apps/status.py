"""What a run's workers do, since when, and what they wait for: `realrl status RUN`.

RUN is a run's directory, or its experiment/trial below `runs`. Exit codes: 0 done, 1 the master is dead or
silent, 2 bad input, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from realrl.apps.command_line import BAD_INPUT, FAILED, OK, Parser, complain, run_command
from realrl.apps.tables import table
from realrl.base.clock import clock
from realrl.base.processes import start_of, state_of
from realrl.base.terminal import show
from realrl.runtime.watch.status import STATUS, Status

_RUNS = Path("runs")
_SILENT_S = 60.0
"""A master writes more often, unless it is busy with a checkpoint's files."""


def main(argv: Sequence[str] | None = None) -> int:
    """Print a run's status; returns the exit code."""
    return run_command(_main, argv)


def _main(argv: Sequence[str]) -> int:
    try:
        directory = run_of(make_parser().parse_args(list(argv)).run)
        status = read_status(directory)
    except ValueError as error:
        return complain(str(error), BAD_INPUT)
    show(render(directory, status, time.time()))
    trouble = find_trouble(status, time.time())
    return complain(trouble, FAILED) if trouble else OK


def make_parser() -> Parser:
    return run_parser("status", __doc__)


def run_parser(verb: str, about: str) -> Parser:
    """The parser of a command on one run."""
    parser = Parser(prog=f"realrl {verb}", description=about.partition("\n")[0])
    parser.add_argument("run", metavar="RUN", help="a run's directory, or its experiment/trial below runs")
    return parser


def run_of(run: str) -> Path:
    """The directory of a run that a command line names.

    Raises:
        ValueError: it names none that has a status.
    """
    found = [path for path in (Path(run), _RUNS / run) if (path / STATUS).is_file()]
    if not found:
        raise ValueError(
            f"RUN: expected a run's directory, or EXPERIMENT/TRIAL below {_RUNS}, with a {STATUS}, got"
            f" {run!r}"
        )
    return found[0]


def read_status(directory: Path) -> Status:
    """
    Raises:
        ValueError: it is none that this realrl writes.
    """
    try:
        return msgspec.json.decode((directory / STATUS).read_bytes(), type=Status)
    except msgspec.DecodeError as error:
        raise ValueError(f"RUN: {directory / STATUS} is of another version of realrl: {error}") from None


def find_trouble(status: Status, now_s: float) -> str:
    """Why there seems to be no master though its run is not over; empty if there is one."""
    if status.is_over:
        return ""
    master, silent_s = f"the run's master, process {status.pid} on {status.host},", now_s - status.written_s
    is_here = status.host == socket.gethostname()
    if is_here and start_of(status.pid) != status.process_start:
        return f"{master} is dead, though the run was not over; its last word is {clock(silent_s)} old"
    if silent_s > _SILENT_S:
        state = f"; it is {state_of(status.pid)}" if is_here and state_of(status.pid) else ""
        return f"{master} has said nothing for {clock(silent_s)}{state}"
    return ""


def render(directory: Path, status: Status, now_s: float) -> str:
    """A line on the run, and one on each worker while it has any."""
    scene = status.scene
    at = "" if status.step is None else f" {status.step}/{status.num_steps}"
    phase_s, run_s = now_s - status.phase_since_s, now_s - status.began_s
    since = f", {clock(phase_s)} ago" if status.is_over else f"{at}, for {clock(phase_s)}"
    head = (
        f"{directory}: {status.phase}{since}; began {clock(run_s)} ago; master: process"
        f" {status.pid} on {status.host}\n"
    )
    if status.is_over or not scene.workers:
        return head
    lines = [("rank", "does", "for", "done", "waits for")]
    for rank, place in enumerate(scene.workers):
        does, waits_for = scene.words(rank)
        done = f"{place.done}/{place.total}" if place.total else ""
        lines.append((str(rank), does, clock(now_s - place.since_s), done, waits_for))
    return head + table(lines)


if __name__ == "__main__":
    sys.exit(main())
