"""Runs the math verifier on a file: `realrl grade FILE.jsonl [--explain] [--json]`.

Each line of the file is `{"completion": …, "solutions": […]}`; a run's own `generations.jsonl` and
`rollouts.jsonl`, which have `response` in place of `completion`, are graded too. Each line of the output is
`{"verdict": …, "answer": …}`, in the same order; the number of each verdict goes to stderr, unless `--json`.
`--explain` says why: in words, or with `--json` in the field `explanation`. Exit codes: 0 done, 1 the
children that compare could not start, 2 bad input, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

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
from realrl.verifier.forms import ANYWHERE, FORMS, AnswerForm, form_of
from realrl.verifier.leniency import Leniency
from realrl.verifier.limits import ANSWER_DIGITS, SOLUTION_DIGITS

EXAMPLE = r'{"completion": "So it is \\boxed{4}.", "solutions": ["4"]}'
RESPONSE = "response"
"""The name of a completion in a run's own records."""
BATCH = 64
"""Lines whose verdicts are written together."""
EXPLAINED_BATCH = 8
"""Fewer lines for explanations, because a user waits to read them."""
MOST_SHOWN = 300
"""Characters of a text in an explanation in words."""


class Line(msgspec.Struct, frozen=True):
    """A completion, and the solutions that it is compared with."""

    completion: str
    solutions: Annotated[list[str], msgspec.Meta(min_length=1)]
    ended: bool = True
    """Whether the completion ended by itself; a form may ask for that."""


def main(argv: Sequence[str] | None = None) -> int:
    """Grade a file; return the exit code."""
    return run_command(_main, argv)


def _main(argv: Sequence[str]) -> int:
    try:
        arguments = make_parser().parse_args(list(argv))
        lines = read_lines(arguments.file)
    except ValueError as error:
        return complain(str(error), BAD_INPUT)
    try:
        graded = _checked(lines, arguments)
        counts = _write_verdicts(graded, as_json=arguments.json)
    except RuntimeError as error:
        return complain(str(error), FAILED)
    if not arguments.json:
        sys.stderr.write(summary(counts))
    return OK


def _checked(lines: Sequence[Line], arguments: argparse.Namespace) -> Iterator[Checked]:
    """Yield the verdict of each line, explained if the command line asks for it."""
    leniency = _leniency_of(arguments)
    form = arguments.form
    if arguments.explain:
        return _explained(lines, leniency, form)
    return _graded(lines, leniency, form)


def _leniency_of(arguments: argparse.Namespace) -> Leniency:
    """Return the settings that the command line asks for."""
    return Leniency(
        convert_units=not arguments.no_conversion,
        answer_digits=arguments.digits or ANSWER_DIGITS,
        solution_digits=arguments.digits or SOLUTION_DIGITS,
        orders_as_sets=not arguments.no_orders,
        rename=arguments.other_letters,
    )


def _write_verdicts(graded: Iterator[Checked], *, as_json: bool) -> Counter[Verdict]:
    """Write a line for each verdict as soon as it is there; return the number of each."""
    counts: Counter[Verdict] = Counter()
    for number, checked in enumerate(graded, 1):
        counts[checked.verdict] += 1
        if isinstance(checked, Explained) and not as_json:
            text = in_words(number, checked)
        else:
            # In ASCII, which every terminal and file has.
            document = msgspec.to_builtins(checked)
            text = json.dumps(document, separators=(",", ":"))
        print(text, flush=True)
    return counts


def make_parser() -> Parser:
    """Return the parser of the command's options."""
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
        "--form",
        type=_form,
        default=ANYWHERE,
        metavar="FORM",
        help=f"where an answer counts: {', '.join(FORMS)}, or settings as after_thought=true,place=box"
        " (default: any)",
    )
    parser.add_argument(
        "--no-conversion", action="store_true", help="take units as they are: 100 cm are not 1 m"
    )
    parser.add_argument(
        "--digits",
        type=int,
        choices=range(1, ANSWER_DIGITS + 1),
        help="significant digits from which a decimal stands for a number with more: with 2, 0.33 for 1/3"
        f" (default: {ANSWER_DIGITS} in answers, {SOLUTION_DIGITS} in solutions)",
    )
    parser.add_argument(
        "--no-orders", action="store_true", help="x > 2 is not the interval that a solution writes"
    )
    parser.add_argument(
        "--other-letters", action="store_true", help="one variable may have another letter: 2t for 2x"
    )
    return parser


def _form(text: str) -> AnswerForm:
    """Return the form that an option gives."""
    try:
        return form_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def read_lines(path: Path) -> list[Line]:
    """Return every line of a file that is not blank.

    Raises:
        ValueError: a line does not fit; the message names the file and the line.
    """
    name = str(path)
    text = plain_text(_content(path), name, "FILE", EXAMPLE)
    rows = parse_json(text, name, EXAMPLE, (*Line.__struct_fields__, RESPONSE))
    lines = [_line(place, record) for place, record in rows]
    if not lines:
        raise ValueError(f"{path}: it is empty; expected lines like {EXAMPLE}")
    return lines


def _line(place: str, record: dict[str, Any]) -> Line:
    """Return the line of a record; `place` is its file and number."""
    if "completion" not in record and RESPONSE in record:
        record["completion"] = record[RESPONSE]
    try:
        if "solutions" in record:
            record["solutions"] = answers_of(record["solutions"])
        if "ended" in record:
            record["ended"] = record["ended"] is not False
        return msgspec.convert(without_surrogates(record), Line)
    except msgspec.ValidationError as error:
        raise ValueError(f"{place}: {error}; expected a line like {EXAMPLE}") from None


def _content(path: Path) -> bytes:
    """Return the content of a file, of a pipe, or of stdin for `-`."""
    try:
        if str(path) == "-":
            return sys.stdin.buffer.read()
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", error)
        raise ValueError(
            f"{path}: cannot be read ({reason}); give a file with lines like {EXAMPLE}"
        ) from None


def _graded(lines: Sequence[Line], leniency: Leniency, form: AnswerForm) -> Iterator[Checked]:
    """Yield the verdict of each line."""
    for batch in _batches(lines, BATCH):
        yield from check_all(batch.texts, batch.solutions, leniency=leniency, form=form, ended=batch.ended)


def _explained(lines: Sequence[Line], leniency: Leniency, form: AnswerForm) -> Iterator[Explained]:
    """Yield the verdict of each line, with its reasons."""
    for batch in _batches(lines, EXPLAINED_BATCH):
        yield from explain_all(batch.texts, batch.solutions, leniency=leniency, form=form, ended=batch.ended)


class _Batch(NamedTuple):
    """Lines by columns."""

    texts: list[str]
    solutions: list[list[str]]
    ended: list[bool]


def _batches(lines: Sequence[Line], size: int) -> Iterator[_Batch]:
    """Yield completions and their solutions, in batches of `size` lines."""
    for start in range(0, len(lines), size):
        batch = _Batch([], [], [])
        for line in lines[start : start + size]:
            batch.texts.append(line.completion)
            batch.solutions.append(line.solutions)
            batch.ended.append(line.ended)
        yield batch


def in_words(number: int, explained: Explained) -> str:
    """Return why a line has its verdict, on several lines; `number` is its place in the file, from 1 on."""
    explanation = explained.explanation
    if explained.answer is None:
        rows = [("answer", "none"), ("because", explanation.place)]
    else:
        rows = [("answer", explained.answer), ("from", explanation.place)]
    # The answer is read alike for every solution, and a comparison without reasons has no reading.
    readings = [comparison.answer_read for comparison in explanation.comparisons]
    answer_read = next(filter(None, readings), "")
    rows.append(("read as", answer_read))
    for comparison in explanation.comparisons:
        rows += [
            ("solution", comparison.solution),
            ("read as", comparison.solution_read),
            (comparison.verdict.value, comparison.why),
        ]
    lines = [f"{number}: {explained.verdict.value}"]
    for name, text in rows:
        if text:
            lines.append(f"   {name:<9} {_one_line(text)}")
    return printable("\n".join(lines))


def _one_line(text: str) -> str:
    """Return a text on one line, of bounded length."""
    line = " ".join(text.split())
    if len(line) <= MOST_SHOWN:
        return line
    return f"{line[: MOST_SHOWN - 1]}…"


def summary(counts: Counter[Verdict]) -> str:
    """Return a table of the number and the share of each verdict."""
    total = counts.total()
    rows = [("verdict", "number", "share")]
    for verdict in Verdict:
        number = counts[verdict]
        share = number / total
        rows.append((verdict.value, str(number), f"{share:.1%}"))
    rows.append(("all", str(total), ""))
    return table(rows, numbers=True)


if __name__ == "__main__":
    sys.exit(main())
