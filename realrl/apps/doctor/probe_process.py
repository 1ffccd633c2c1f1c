"""The child in which probes run: `python -m realrl.apps.doctor.probe_process MODULE DESCRIPTOR INDEX`.

It runs the module's `PROBES` from that index on. To the descriptor it writes each probe's name before it, its
findings, and that it is done, as lines of JSON: so its parent knows in which probe it hangs or dies.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import TextIO

import msgspec

from realrl.apps.doctor.finding import Finding, Probe, problem
from realrl.base.parent import PARENT_VARIABLE, die_with_parent


def main() -> None:
    """Run the probes that the command line names."""
    module, descriptor, index = sys.argv[1:]
    if parent := os.environ.get(PARENT_VARIABLE):
        die_with_parent(int(parent))
    with os.fdopen(int(descriptor), "w", encoding="utf-8") as lines:
        probes: tuple[Probe, ...] = import_module(module).PROBES
        for probe in probes[int(index) :]:
            _write(lines, {"begins": probe.name, "deadline_s": probe.deadline_s})
            for finding in _findings(probe):
                _write(lines, msgspec.to_builtins(finding))
        _write(lines, {"ends": module})


def _findings(probe: Probe) -> Iterator[Finding]:
    try:
        yield from probe.look()
    except Exception as error:  # whatever a broken installation raises is a finding
        what = f"the check failed ({type(error).__name__}: {' '.join(str(error).split())[:300]})"
        yield problem(probe.name, what, "runs may fail in the same way", "repair what it names")


def _write(lines: TextIO, line: dict) -> None:
    lines.write(msgspec.json.encode(line).decode() + "\n")
    lines.flush()


if __name__ == "__main__":
    main()
