"""Checks the machine and the installation: `realrl doctor [--json]`.

Each finding is `ok`, `note` or `problem`, with what it means for runs and what to do. Exit codes: 0 no
problem, 1 at least one, 2 bad input, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Sequence

import msgspec

from realrl import __version__
from realrl.apps.command_line import BAD_INPUT, FAILED, OK, Parser, complain, run_command
from realrl.apps.doctor.finding import Finding
from realrl.apps.doctor.probing import probe_all
from realrl.base.terminal import show

MODULES = (
    "realrl.apps.doctor.software",
    "realrl.apps.doctor.compute",
    "realrl.apps.doctor.memory",
    "realrl.apps.doctor.storage",
    "realrl.apps.doctor.network",
    "realrl.apps.doctor.judges",
)
"""Modules of probes, in the order of the report; each has `PROBES`."""
_WIDTH = 100


def main(argv: Sequence[str] | None = None) -> int:
    """Print the findings; return the exit code."""
    return run_command(_main, argv)


def make_parser() -> Parser:
    """Return the parser of the command's options."""
    parser = Parser(prog="realrl doctor", description="Check this machine and this installation")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _main(argv: Sequence[str]) -> int:
    try:
        arguments = make_parser().parse_args(list(argv))
    except ValueError as error:
        return complain(str(error), BAD_INPUT)
    began_s = time.monotonic()
    findings = probe_all(MODULES)
    took_s = time.monotonic() - began_s
    text = _as_json(findings) if arguments.json else render(findings, took_s)
    show(text)
    if any(finding.status == "problem" for finding in findings):
        return FAILED
    return OK


def _as_json(findings: Sequence[Finding]) -> str:
    """Return the findings as one JSON object."""
    document = {"version": __version__, "findings": findings}
    encoded = msgspec.json.encode(document)
    text = msgspec.json.format(encoded, indent=2).decode()
    return text + "\n"


def render(findings: Sequence[Finding], took_s: float) -> str:
    """Return the findings as text, and the number of findings of each kind."""
    width = max(len(finding.name) for finding in findings)
    lines = []
    counts = {"ok": 0, "note": 0, "problem": 0}
    for finding in findings:
        lines += _lines(finding, width)
        counts[finding.status] += 1
    kinds = ", ".join(f"{number} {status}" for status, number in counts.items())
    text = "\n".join(lines)
    return f"{text}\n\nrealrl {__version__}: {kinds}, in {took_s:.1f} s\n"


def _lines(finding: Finding, width: int) -> list[str]:
    """Return the lines of one finding, whose name gets `width` columns."""
    lead = f"{finding.status:<9}{finding.name:<{width + 2}}"
    indent = " " * len(lead)
    lines = _wrapped(lead, finding.found)
    if finding.means:
        lines += _wrapped(f"{indent}means: ", finding.means)
    if finding.do:
        lines += _wrapped(f"{indent}do:    ", finding.do)
    return lines


def _wrapped(lead: str, text: str) -> list[str]:
    """Return the lines of a text that begins with `lead`, under which further lines are indented."""
    indent = " " * len(lead)
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=lead,
        subsequent_indent=indent,
    )


if __name__ == "__main__":
    sys.exit(main())
