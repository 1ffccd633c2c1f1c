"""Shows what a run's workers do, since when, and what they wait for: `realrl status RUN`.

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
"""Seconds after which a master counts as silent: it writes more often, unless it writes a checkpoint."""


def main(argv: Sequence[str] | None = None) -> int:
    """Print a run's status; return the exit code."""
    return run_command(_main, argv)


def _main(argv: Sequence[str]) -> int:
    try:
        arguments = make_parser().parse_args(list(argv))
        directory = run_of(arguments.run)
        status = read_status(directory)
    except ValueError as error:
        return complain(str(error), BAD_INPUT)
    text = render(directory, status, time.time())
    show(text)
    trouble = find_trouble(status, time.time())
    return complain(trouble, FAILED) if trouble else OK


def make_parser() -> Parser:
    """Return the parser of the command's options."""
    about = "What a run's workers do, since when, and what they wait for: `realrl status RUN`."
    return run_parser("status", about)


def run_parser(verb: str, about: str) -> Parser:
    """Return the parser of a command on one run, of which the help says `about`."""
    parser = Parser(prog=f"realrl {verb}", description=about)
    parser.add_argument("run", metavar="RUN", help="a run's directory, or its experiment/trial below runs")
    return parser


def run_of(run: str) -> Path:
    """Return the directory of a run that a command line names.

    Raises:
        ValueError: there is no directory of this name with a status.
    """
    for directory in (Path(run), _RUNS / run):
        status = directory / STATUS
        if status.is_file():
            return directory
    raise ValueError(
        f"RUN: expected a run's directory, or EXPERIMENT/TRIAL below {_RUNS}, with a {STATUS}, got {run!r}"
    )


def read_status(directory: Path) -> Status:
    """Read the status in a run's directory.

    Raises:
        ValueError: this version of realrl does not write such a status.
    """
    path = directory / STATUS
    content = path.read_bytes()
    try:
        return msgspec.json.decode(content, type=Status)
    except msgspec.DecodeError as error:
        raise ValueError(f"RUN: {path} is of another version of realrl: {error}") from None


def find_trouble(status: Status, now_s: float) -> str:
    """Return why an unfinished run seems to have no master; empty if it has one."""
    if status.is_over:
        return ""
    master = f"the run's master, process {status.pid} on {status.host},"
    silent_s = now_s - status.written_s
    is_here = status.host == socket.gethostname()
    if is_here and start_of(status.pid) != status.process_start:
        return f"{master} is dead, though the run was not over; its last word is {clock(silent_s)} old"
    if silent_s <= _SILENT_S:
        return ""
    state = state_of(status.pid) if is_here else ""
    ending = f"; it is {state}" if state else ""
    return f"{master} has said nothing for {clock(silent_s)}{ending}"


def render(directory: Path, status: Status, now_s: float) -> str:
    """Return a line on the run, and one on each worker while it has any."""
    head = _head(directory, status, now_s)
    scene = status.scene
    if status.is_over or not scene.workers:
        return head
    lines = [("rank", "does", "for", "done", "waits for")]
    for rank, worker in enumerate(scene.workers):
        does, waits_for = scene.words(rank)
        age_s = now_s - worker.since_s
        done = f"{worker.done}/{worker.total}" if worker.total else ""
        lines.append((str(rank), does, clock(age_s), done, waits_for))
    return head + table(lines)


def _head(directory: Path, status: Status, now_s: float) -> str:
    """Return the line on the run: its phase, its age, and its master."""
    phase = clock(now_s - status.phase_since_s)
    age = clock(now_s - status.began_s)
    if status.is_over:
        since = f", {phase} ago"
    elif status.step is None:
        since = f", for {phase}"
    else:
        since = f" {status.step}/{status.num_steps}, for {phase}"
    return (
        f"{directory}: {status.phase}{since}; began {age} ago; master: process"
        f" {status.pid} on {status.host}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
