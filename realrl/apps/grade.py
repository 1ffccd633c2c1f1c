"""The math verifier on a file: `realrl grade FILE.jsonl [--explain] [--json]`.

Each line of the file is `{"completion": …, "solutions": […]}`; a run's own `generations.jsonl` and
`rollouts.jsonl`, which have `response` in place of `completion`, are graded too. Each line of the output is
`{"verdict": …, "answer": …}`, in the same order; how many there are of each verdict goes to the errors,
unless `--json`. `--explain` says why: in words, or with `--json` in the field `explanation`. Exit codes: 0
done, 1 the children that compare could not start, 2 bad input, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec

from realrl.apps.command_line import BAD_INPUT, FAILED, OK, Parser, complain, run_command
from realrl.apps.tables import table
from realrl.base.terminal import printable
from realrl.datasets.contents import plain_text
from realrl.datasets.jsonl import parse_json
from realrl.datasets.texts import answers_of, without_surrogates
from realrl.rewards.explaining import Explained, explain_all
from realrl.rewards.math import check_all
from realrl.rewards.verdict import Checked, Verdict

EXAMPLE = r'{"completion": "So it is \\boxed{4}.", "solutions": ["4"]}'
RESPONSE = "response"
"""The name that a run's own records have for a completion."""
BATCH = 64
"""Lines whose verdicts are written together."""
EXPLAINED_BATCH = 8
MOST_SHOWN = 300
"""Characters of a text that is shown to a person."""


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
        counts = _write_verdicts(_checked(lines, arguments), as_json=arguments.json)
    except RuntimeError as error:
        return complain(str(error), FAILED)
    if not arguments.json:
        sys.stderr.write(summary(counts))
    return OK


def _checked(lines: Sequence[Line], arguments: argparse.Namespace) -> Iterator[Checked]:
    converts = not arguments.no_conversion
    return _explained(lines, converts) if arguments.explain else _graded(lines, converts)


def _write_verdicts(graded: Iterator[Checked], *, as_json: bool) -> Counter[Verdict]:
    counts: Counter[Verdict] = Counter()
    for number, checked in enumerate(graded, 1):
        counts[checked.verdict] += 1
        if isinstance(checked, Explained) and not as_json:
            print(in_words(number, checked), flush=True)
        else:
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
    parser.add_argument("--json", action="store_true", help="nothing but one JSON object a line")
    parser.add_argument(
        "--explain",
        action="store_true",
        help="say why: what was taken for the answer, how both sides were read, and what decided",
    )
    parser.add_argument(
        "--no-conversion", action="store_true", help="take units as they are: 100 cm are not 1 m"
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


def _graded(lines: Sequence[Line], convert_units: bool) -> Iterator[Checked]:
    for start in range(0, len(lines), BATCH):
        batch = lines[start : start + BATCH]
        texts, solutions = [line.completion for line in batch], [line.solutions for line in batch]
        yield from check_all(texts, solutions, convert_units=convert_units)


def _explained(lines: Sequence[Line], convert_units: bool) -> Iterator[Explained]:
    # Fewer at a time, as somebody waits to read them.
    for start in range(0, len(lines), EXPLAINED_BATCH):
        batch = lines[start : start + EXPLAINED_BATCH]
        texts, solutions = [line.completion for line in batch], [line.solutions for line in batch]
        yield from explain_all(texts, solutions, convert_units=convert_units)


def in_words(number: int, explained: Explained) -> str:
    """Why a line has its verdict, over several lines; `number` is its place in the file, from 1 on."""
    explanation = explained.explanation
    rows = [("answer", "none" if explained.answer is None else explained.answer)]
    rows.append(("from" if explained.answer is not None else "because", explanation.place))
    # It is read alike for every solution; of one that has no reasons nothing is known.
    readings = (comparison.answer_read for comparison in explanation.comparisons)
    rows.append(("read as", next(filter(None, readings), "")))
    for comparison in explanation.comparisons:
        rows += [
            ("solution", comparison.solution),
            ("read as", comparison.solution_read),
            (comparison.verdict.value, comparison.why),
        ]
    shown = [f"   {name:<9} {_one_line(text)}" for name, text in rows if text]
    return printable("\n".join([f"{number}: {explained.verdict.value}", *shown]))


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MOST_SHOWN else f"{line[: MOST_SHOWN - 1]}…"


def summary(counts: Counter[Verdict]) -> str:
    """How many there are of each verdict, and their share."""
    total = counts.total()
    rows = [(verdict.value, str(counts[verdict]), f"{counts[verdict] / total:.1%}") for verdict in Verdict]
    return table([("verdict", "number", "share"), *rows, ("all", str(total), "")], numbers=True)


if __name__ == "__main__":
    sys.exit(main())
