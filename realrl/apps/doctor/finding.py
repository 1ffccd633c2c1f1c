"""Findings of the doctor, and the probes that make them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

import msgspec

Status = Literal["ok", "note", "problem"]


class Finding(msgspec.Struct, frozen=True):
    """One line of the doctor."""

    status: Status
    """`problem`: runs fail or are far slower than they need be. `note`: good to know."""
    name: str
    found: str
    means: str = ""
    """What follows from it for runs; empty where nothing does."""
    do: str = ""
    """What to do about it; empty where there is nothing to do."""


class Probe(NamedTuple):
    """A check, which runs in a child process."""

    name: str
    look: Callable[[], Iterable[Finding]]
    deadline_s: float = 10.0


def ok(name: str, found: str) -> Finding:
    return Finding("ok", name, found)


def note(name: str, found: str, means: str, do: str = "") -> Finding:
    return Finding("note", name, found, means, do)


def problem(name: str, found: str, means: str, do: str) -> Finding:
    return Finding("problem", name, found, means, do)


def in_gib(num_bytes: float) -> str:
    return f"{num_bytes / 2**30:.1f} GiB"
