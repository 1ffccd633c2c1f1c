"""The math verifier on a file: `realrl grade FILE.jsonl [--json]`.

Each line of the file is `{"completion": …, "solutions": […]}`; a run's own `generations.jsonl` and
`rollouts.jsonl`, which have `response` in place of `completion`, are graded too. Each line of the output is
`{"verdict": …, "answer": …}`, in the same order; how many there are of each verdict goes to the errors,
unless `--json`. Exit codes: 0 done, 1 the children that compare could not start, 2 bad input, 130 stopped by
Ctrl-C.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec

from realrl.apps.command_line import BAD_INPUT, FAILED, OK, Parser, complain, run_command
from realrl.apps.tables import table
from realrl.datasets.contents import plain_text
from realrl.datasets.jsonl import parse_json
from realrl.datasets.texts import answers_of, without_surrogates
from realrl.rewards.math import check_all
from realrl.rewards.verdict import Checked, Verdict

EXAMPLE = r'{"completion": "So it is \\boxed{4}.", "solutions": ["4"]}'
RESPONSE = "response"
"""The name that a run's own records have for a completion."""
BATCH = 64
"""Lines whose verdicts are written together."""


class Line(msgspec.Struct, frozen=True):
    completion: str
    solutions: Annotated[list[str], msgspec.Meta(min_length=1)]


def main(argv: Sequence[str] | None = None) -> int:
    """Grade a file; returns the exit code."""
    return run_command(_main, argv)


def _main(argv: Sequence[str]) -> int:
    try:
        arguments = make_parser().parse_args(list(argv))
        lines = read_lines(arguments.file)
    except ValueError as error:
        return complain(str(error), BAD_INPUT)
    try:
        counts = _write_verdicts(lines)
    except RuntimeError as error:
        return complain(str(error), FAILED)
    if not arguments.json:
        sys.stderr.write(summary(counts))
    return OK


def _write_verdicts(lines: Sequence[Line]) -> Counter[Verdict]:
    counts: Counter[Verdict] = Counter()
    for checked in _graded(lines):
        counts[checked.verdict] += 1
        # In ASCII, which every terminal and file has.
        print(json.dumps(msgspec.to_builtins(checked), separators=(",", ":")), flush=True)
    return counts


def make_parser() -> Parser:
    parser = Parser(
        prog="realrl grade",
        description=f"Compare the answer in each completion with its solutions; a line is {EXAMPLE}, or has"
        f" `{RESPONSE}` in place of `completion`, as a run's generations.jsonl and rollouts.jsonl",
    )
    parser.add_argument("file", type=Path, metavar="FILE.jsonl", help="what to grade; - reads the input")
    parser.add_argument(
        "--json", action="store_true", help="nothing but the verdicts, one JSON object a line"
    )
    return parser


def read_lines(path: Path) -> list[Line]:
    """Every line; blank ones are left out. Raises ValueError, which names the file and the line."""
    name = str(path)
    text = plain_text(_content(path), name, "FILE", EXAMPLE)
    rows = parse_json(text, name, EXAMPLE, (*Line.__struct_fields__, RESPONSE))
    lines = [_line(place, record) for place, record in rows]
    if not lines:
        raise ValueError(f"{path}: it is empty; expected lines like {EXAMPLE}")
    return lines


def _line(place: str, record: dict[str, Any]) -> Line:
    if "completion" not in record and RESPONSE in record:
        record["completion"] = record[RESPONSE]
    try:
        if "solutions" in record:
            record["solutions"] = answers_of(record["solutions"])
        return msgspec.convert(without_surrogates(record), Line)
    except msgspec.ValidationError as error:
        raise ValueError(f"{place}: {error}; expected a line like {EXAMPLE}") from None


def _content(path: Path) -> bytes:
    """Of a file, or of a pipe, which is read but once here."""
    try:
        return sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", error)
        raise ValueError(
            f"{path}: cannot be read ({reason}); give a file with lines like {EXAMPLE}"
        ) from None


def _graded(lines: Sequence[Line]) -> Iterator[Checked]:
    for start in range(0, len(lines), BATCH):
        batch = lines[start : start + BATCH]
        yield from check_all([line.completion for line in batch], [line.solutions for line in batch])


def summary(counts: Counter[Verdict]) -> str:
    """How many there are of each verdict, and their share."""
    total = counts.total()
    rows = [(verdict.value, str(counts[verdict]), f"{counts[verdict] / total:.1%}") for verdict in Verdict]
    return table([("verdict", "number", "share"), *rows, ("all", str(total), "")], numbers=True)


if __name__ == "__main__":
    sys.exit(main())
