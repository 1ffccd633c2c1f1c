"""All sums of two one-digit numbers, made on the spot, cut into training and held-out rows."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

SUMS = "sums"
"""The path that stands for this dataset."""

HELD_OUT_SHARE = 0.3


@dataclass(frozen=True)
class Sum:
    """A question `a + b`."""

    a: int
    b: int

    @property
    def prompt(self) -> str:
        return f"What is {self.a} plus {self.b}?\n"

    @property
    def solution(self) -> str:
        return str(self.a + self.b)

    @property
    def record(self) -> dict[str, Any]:
        """As a row of every kind; the sum is better than the one after it."""
        right, wrong = self.solution, str(self.a + self.b + 1)
        row = {"query_id": f"{self.a}+{self.b}", "prompt": self.prompt, "solutions": [right]}
        return row | {"response": right, "chosen": right, "rejected": wrong}


def sum_records(*, held_out: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of one side, each under its place."""
    for row in sums(held_out=held_out):
        yield f"{SUMS}: {row.a} + {row.b}", row.record


def sums(*, held_out: bool) -> list[Sum]:
    """One side of a split that never changes; `a + b` and `b + a` stand on one side."""
    pairs = [(a, b) for a in range(10) for b in range(a, 10)]
    order = random.Random(0)
    order.shuffle(pairs)
    num_held_out = round(HELD_OUT_SHARE * len(pairs))
    side = pairs[:num_held_out] if held_out else pairs[num_held_out:]
    rows = [Sum(a, b) for a, b in sorted({*side, *((b, a) for a, b in side)})]
    order.shuffle(rows)
    return rows
