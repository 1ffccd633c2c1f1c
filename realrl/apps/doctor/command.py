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

MODULES = tuple(
    f"realrl.apps.doctor.{name}" for name in ("software", "compute", "memory", "storage", "network", "judges")
)
"""Each with its `PROBES`."""
_WIDTH = 100


def main(argv: Sequence[str] | None = None) -> int:
    """Print what was found; return the exit code."""
    return run_command(_main, argv)


def make_parser() -> Parser:
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
    show(_as_json(findings) if arguments.json else render(findings, took_s))
    return FAILED if any(finding.status == "problem" for finding in findings) else OK


def _as_json(findings: Sequence[Finding]) -> str:
    document = {"version": __version__, "findings": findings}
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"


def render(findings: Sequence[Finding], took_s: float) -> str:
    """The findings as text, and how many there are of each kind."""
    width = max(len(finding.name) for finding in findings)
    lines = [line for finding in findings for line in _lines(finding, width)]
    counts = {status: sum(f.status == status for f in findings) for status in ("ok", "note", "problem")}
    kinds = ", ".join(f"{number} {status}" for status, number in counts.items())
    return "\n".join(lines) + f"\n\nrealrl {__version__}: {kinds}, in {took_s:.1f} s\n"


def _lines(finding: Finding, width: int) -> list[str]:
    lead = f"{finding.status:<9}{finding.name:<{width + 2}}"
    indent = " " * len(lead)
    lines = textwrap.wrap(finding.found, _WIDTH, initial_indent=lead, subsequent_indent=indent)
    for title, text in (("means", finding.means), ("do", finding.do)):
        if text:
            begin = f"{indent}{title + ':':<7}"
            lines += textwrap.wrap(text, _WIDTH, initial_indent=begin, subsequent_indent=" " * len(begin))
    return lines


if __name__ == "__main__":
    sys.exit(main())
