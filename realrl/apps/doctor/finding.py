"""Findings of the doctor, and the probes that make them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

import msgspec

Status = Literal["ok", "note", "problem"]


class Finding(msgspec.Struct, frozen=True):
    """One line of the doctor."""

    status: Status
    """`problem`: runs fail or are much slower than necessary. `note`: good to know."""
    name: str
    found: str
    means: str = ""
    """The consequence for runs; empty if there is none."""
    do: str = ""
    """What to do about it; empty if there is nothing to do."""


class Probe(NamedTuple):
    """A check, which runs in a child process."""

    name: str
    look: Callable[[], Iterable[Finding]]
    deadline_s: float = 10.0
    """Seconds without a finding after which the check counts as hanging."""


def ok(name: str, found: str) -> Finding:
    """Return a finding that is as it should be."""
    return Finding("ok", name, found)


def note(name: str, found: str, means: str, do: str = "") -> Finding:
    """Return a finding that is good to know."""
    return Finding("note", name, found, means, do)


def problem(name: str, found: str, means: str, do: str) -> Finding:
    """Return a finding that makes runs fail or slow."""
    return Finding("problem", name, found, means, do)


def in_gib(num_bytes: float) -> str:
    """Return a size in GiB, as text."""
    size = num_bytes / 2**30
    return f"{size:.1f} GiB"
