"""Follow a run's scheduler through its event log: `realrl replay RUN`, or a file of a log.

It tells a scheduler of this version every event of the log, checks that it sends what the log says, and shows
where the run stood in the end: what was running, and what could not start and why. A log that a bug report
comes with is checked in the same way.

Exit codes: 0 the same instructions, 1 other ones, 2 bad input, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from realrl.apps.command_line import BAD_INPUT, FAILED, OK, Parser, complain, run_command
from realrl.apps.status import run_parser
from realrl.base.counting import counted
from realrl.base.terminal import show

_RUNS = Path("runs")


def main(argv: Sequence[str] | None = None) -> int:
    """Replay a run's event log; returns the exit code."""
    return run_command(_main, argv)


def make_parser() -> Parser:
    """Return the parser of the command."""
    return run_parser("replay", __doc__)


def _main(argv: Sequence[str]) -> int:
    run = make_parser().parse_args(list(argv)).run
    # The scheduler imports PyTorch, which help and messages about words have no need of.
    from realrl.program.replay import ReplayDiffers

    try:
        for path in _logs_of(run):
            show(_follow(path))
    except ReplayDiffers as error:
        return complain(f"{path}: {error}", FAILED)
    except ValueError as error:
        return complain(f"RUN: {error}", BAD_INPUT)
    return OK


def _logs_of(run: str) -> list[Path]:
    """Return the files of a log, the oldest first.

    Raises:
        ValueError: there are none.
    """
    if Path(run).is_file():
        return [Path(run)]
    from realrl.runtime.master.event_files import event_files

    for directory in (Path(run), _RUNS / run):
        if found := event_files(directory):
            return found[::-1]
    raise ValueError(
        f"expected a run's directory, or EXPERIMENT/TRIAL below {_RUNS}, with an event log, or a file of one,"
        f" got {run!r}"
    )


def _follow(path: Path) -> str:
    """Return in words what one file of a log shows.

    Raises:
        ReplayDiffers: the scheduler of this version sends something else.
        ValueError: the file is no event log.
    """
    from realrl.program.event_log import LoggedEvent, read_head
    from realrl.program.replay import replay
    from realrl.program.scheduler import Scheduler

    num_events = num_sent = 0
    last: LoggedEvent | None = None
    with path.open("rb") as file:
        try:
            head = read_head(file.readline())
            scheduler = Scheduler.resumed(head.state)
            for last in replay(scheduler, head, file):
                num_events += 1
                num_sent += len(last.sent)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    lines = [f"{path}: {counted(num_events, 'event')}, {counted(num_sent, 'instruction')} as in the log"]
    if last:
        lines.append(f"last event at {time.strftime('%F %T', time.localtime(last.at_s))}")
    lines += [f"runs: {what}" for what in scheduler.running()]
    for waiting in scheduler.waiting():
        lines += [f"waits: {edge}" for edge in waiting.edges.values()]
    return "\n".join(lines) + "\n"
