"""Text in columns."""

from __future__ import annotations

from collections.abc import Sequence


def table(lines: Sequence[Sequence[str]], *, numbers: bool = False, indent: str = "") -> str:
    """Lines of cells as wide as the widest of their column; with `numbers` all but the first stand right."""
    widths = [max(map(len, column)) for column in zip(*lines)]
    rows = (
        (cell.rjust(w) if numbers and i else cell.ljust(w) for i, (cell, w) in enumerate(zip(cells, widths)))
        for cells in lines
    )
    return "".join(indent + "  ".join(row).rstrip() + "\n" for row in rows)
