"""The child in which probes run: `python -m realrl.apps.doctor.probe_process MODULE DESCRIPTOR INDEX`.

It runs the module's `PROBES` from that index on. To the descriptor it writes lines of JSON: each probe's name
before the probe runs, its findings, and a last line at the end. So its parent knows in which probe it hangs
or dies.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any, TextIO

import msgspec

from realrl.apps.doctor.finding import Finding, Probe, problem
from realrl.base.parent import PARENT_VARIABLE, die_with_parent

_MOST_SHOWN = 300
"""Characters of an error's message."""


def main() -> None:
    """Run the probes that the command line names."""
    module, descriptor, index = sys.argv[1:]
    parent = os.environ.get(PARENT_VARIABLE)
    if parent:
        die_with_parent(int(parent))
    with os.fdopen(int(descriptor), "w", encoding="utf-8") as lines:
        probes: tuple[Probe, ...] = import_module(module).PROBES
        left = probes[int(index) :]
        for probe in left:
            begins = {"begins": probe.name, "deadline_s": probe.deadline_s}
            _write(lines, begins)
            for finding in _findings(probe):
                _write(lines, msgspec.to_builtins(finding))
        _write(lines, {"ends": module})


def _findings(probe: Probe) -> Iterator[Finding]:
    """Yield a probe's findings; an exception is one, too."""
    try:
        yield from probe.look()
    except Exception as error:  # whatever a broken installation raises is a finding
        text = " ".join(str(error).split())
        what = f"the check failed ({type(error).__name__}: {text[:_MOST_SHOWN]})"
        yield problem(probe.name, what, "runs may fail in the same way", "repair what it names")


def _write(lines: TextIO, line: dict[str, Any]) -> None:
    """Write one line at once, so that the parent sees it even if this process dies."""
    text = msgspec.json.encode(line).decode()
    lines.write(text + "\n")
    lines.flush()


if __name__ == "__main__":
    main()
