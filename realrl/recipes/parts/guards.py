"""What the course of a run shows to be wrong with its verdicts, in words.

    records of a step ──▶ each guard ──▶ findings ─┬─ of a new name ──▶ a line in the terminal and master.log
                                                   └─ all ──▶ first step and number ──▶ summary.json

A policy that finds a hole in its verifier looks like one that learns: its reward rises. Guards look at what
cannot be so: one answer that is right for many problems, checks that say nothing more often than before, and
verdicts that change. Symptoms (`realrl/recipes/parts/symptoms.py`) are about single steps, or a whole run.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from realrl.base.counting import counted

_MOST_LINES = 5
"""Of one guard: a hole in a verifier takes a hundred answers, and a few show it."""


class Graded(NamedTuple):
    """A response with a verdict."""

    row: int
    answer: str | None
    solutions: tuple[str, ...]
    verdict: str
    ended: bool


class Finding(NamedTuple):
    """Something that is wrong."""

    name: str
    """Findings of one name are said once, and counted."""
    line: str


class Guard(Protocol):
    """Looks at a run, step by step; what it keeps of it is bounded."""

    def look(self, step: int, graded: Sequence[Graded]) -> Iterator[Finding]:
        """Take in a step, and return what is wrong."""


class _Known:
    """A warning that was said."""

    def __init__(self, line: str, step: int) -> None:
        self.line, self.first_step, self.number = line, step, 0

    def __str__(self) -> str:
        often = f"{self.number} times, first " if self.number > 1 else ""
        return f"{often}in step {self.first_step}: {self.line}"


class Guards:
    """Guards of one run, and what they found."""

    def __init__(self, *guards: Guard) -> None:
        self._guards = guards
        self._known: list[dict[str, _Known]] = [{} for _ in guards]
        self._unsaid = [0 for _ in guards]

    def observe(self, step: int, records: Sequence[Mapping[str, Any]]) -> list[str]:
        """Take in the records of a training step; return what is found for the first time."""
        graded = [_graded(record) for record in records if "verdict" in record]
        said = []
        for place, guard in enumerate(self._guards):
            for finding in guard.look(step, graded):
                if line := self._note(place, step, finding):
                    said.append(line)
        return said

    def warnings(self) -> list[str]:
        """Return everything that was found, each with its first step and how often it was."""
        lines: list[str] = []
        for found in self._known:
            lines += map(str, found.values())
        unsaid = sum(self._unsaid)
        if unsaid:
            lines.append(f"{counted(unsaid, 'further finding')} of these kinds")
        return lines

    def _note(self, place: int, step: int, finding: Finding) -> str:
        """The line of a new finding; nothing of one that is known, or that is one too many."""
        found = self._known[place]
        is_new = finding.name not in found
        if is_new and len(found) >= _MOST_LINES:
            self._unsaid[place] += 1
            return ""
        known = found.setdefault(finding.name, _Known(finding.line, step))
        known.number += 1
        return f"step {step}: {finding.line}" if is_new else ""


def _graded(record: Mapping[str, Any]) -> Graded:
    solutions = tuple(record.get("solutions") or ())
    ended = record.get("ended", True)
    return Graded(
        record.get("row", 0),
        record.get("answer"),
        solutions,
        record["verdict"],
        ended,
    )


Kept = TypeVar("Kept")


class Recent(Generic[Kept]):
    """A value for each of the texts that were seen last, of which it keeps a limited number."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[bytes, Kept] = OrderedDict()

    def get(self, texts: Sequence[str], fresh: Kept) -> Kept:
        """Return what is kept of some texts, or keep `fresh` of them."""
        # A digest has one size, and a model may write answers of any.
        name = hashlib.sha256(repr(texts).encode(errors="backslashreplace")).digest()
        kept = self._kept.setdefault(name, fresh)
        self._kept.move_to_end(name)
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)
        return kept

    def __len__(self) -> int:
        return len(self._kept)
