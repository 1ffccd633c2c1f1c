"""Write a report of runs that opens in any browser: `realrl report RUN [RUN ...] [-o FILE]`.

RUN is a run's directory, its experiment/trial below `runs`, or an experiment, for all of its trials.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from realrl import __version__
from realrl.apps.command_line import BAD_INPUT, OK, Parser, complain, run_command
from realrl.base.counting import counted
from realrl.base.files import write_atomically

_RUNS = Path("runs")
_FILE = "report.html"
_MEBIBYTE = 2**20


def main(argv: Sequence[str] | None = None) -> int:
    """Write the report; return the exit code."""
    return run_command(_main, argv)


def _main(argv: Sequence[str]) -> int:
    # Imported here: `--help` needs none of it.
    from realrl.apps.report.page import render
    from realrl.apps.report.rollouts import MOST_SAMPLES
    from realrl.apps.report.run_files import read_run

    try:
        arguments = make_parser().parse_args(list(argv))
        directories = _directories_of(arguments.runs)
        target = _target(arguments.output, directories)
        most_samples = MOST_SAMPLES // len(directories)
        runs = [read_run(path, most_samples) for path in directories]
        page = render(
            {
                "version": __version__,
                "made_s": time.time(),
                "runs": runs,
            }
        )
        _write(target, page)
    except ValueError as error:
        return complain(str(error), BAD_INPUT)
    size_mib = len(page) / _MEBIBYTE
    print(f"{target}: {counted(len(runs), 'run')}, {size_mib:.1f} MiB")
    return OK


def make_parser() -> Parser:
    """Return the parser of the command's options."""
    parser = Parser(prog="realrl report", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="a run's directory, its experiment/trial below runs, or an experiment",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=Path,
        help=f"the file to write (default: {_FILE} in the run's directory)",
    )
    return parser


def _directories_of(runs: Sequence[str]) -> list[Path]:
    """Return the directories of all runs, each once.

    Raises:
        ValueError: there is no such run.
    """
    directories: dict[Path, None] = {}
    for run in runs:
        for path in _runs_of(run):
            directories[path] = None
    return list(directories)


def _runs_of(run: str) -> Iterator[Path]:
    """Yield the directory of a run, or those of an experiment's trials.

    Raises:
        ValueError: there is no run.
    """
    from realrl.apps.report.run_files import is_run
    from realrl.runtime.run_files import CONFIG

    for path in (Path(run), _RUNS / run):
        if is_run(path):
            yield path
            return
        trials = sorted(filter(is_run, path.iterdir())) if path.is_dir() else []
        if trials:
            yield from trials
            return
    raise ValueError(
        f"RUN: expected the directory of a run or of an experiment, or EXPERIMENT/TRIAL below {_RUNS}, got"
        f" {run!r}; give the directory that has the run's {CONFIG}"
    )


def _target(output: Path | None, directories: Sequence[Path]) -> Path:
    """Return the report's file: in the run's directory, or, of several runs, in the current one."""
    if output is not None:
        return output / _FILE if output.is_dir() else output
    if len(directories) > 1:
        return Path(_FILE)
    return directories[0] / _FILE


def _write(target: Path, page: str) -> None:
    """Write the page to its file.

    Raises:
        ValueError: the file cannot be written.
    """
    try:
        write_atomically(target, page, durable=False)
    except OSError as error:
        raise ValueError(f"--output: cannot write {target}: {error.strerror}; give another file") from None


if __name__ == "__main__":
    sys.exit(main())
