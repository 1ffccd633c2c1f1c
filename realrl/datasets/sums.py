"""Generated dataset: all sums of two one-digit numbers, split into training and held-out rows."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

SUMS = "sums"
"""The path that selects this dataset."""

HELD_OUT_SHARE = 0.3
"""The share of unordered pairs that is held out."""


@dataclass(frozen=True)
class Sum:
    """A question `a + b`."""

    a: int
    b: int

    @property
    def prompt(self) -> str:
        """The question in words."""
        return f"What is {self.a} plus {self.b}?\n"

    @property
    def solution(self) -> str:
        """The sum in digits."""
        return str(self.a + self.b)

    @property
    def record(self) -> dict[str, Any]:
        """A record that serves every kind of row; the rejected response is the sum plus one."""
        wrong = str(self.a + self.b + 1)
        return {
            "query_id": f"{self.a}+{self.b}",
            "prompt": self.prompt,
            "solutions": [self.solution],
            "response": self.solution,
            "chosen": self.solution,
            "rejected": wrong,
        }


def sum_records(*, held_out: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the place and the record of each row of one side."""
    for row in sums(held_out=held_out):
        place = f"{SUMS}: {row.a} + {row.b}"
        yield place, row.record


def sums(*, held_out: bool) -> list[Sum]:
    """Return one side of a fixed split; `a + b` and `b + a` are always on the same side."""
    pairs = []
    for a in range(10):
        for b in range(a, 10):
            pairs.append((a, b))

    # The seed is fixed: the split must be the same in every process and every run.
    order = random.Random(0)
    order.shuffle(pairs)
    num_held_out = round(HELD_OUT_SHARE * len(pairs))
    side = pairs[:num_held_out] if held_out else pairs[num_held_out:]

    ordered_pairs = set(side)
    for a, b in side:
        ordered_pairs.add((b, a))
    # Sorted before the shuffle: a set has no order to rely on.
    rows = [Sum(a, b) for a, b in sorted(ordered_pairs)]
    order.shuffle(rows)
    return rows
