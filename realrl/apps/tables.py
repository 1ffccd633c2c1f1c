"""Text in columns."""

from __future__ import annotations

from collections.abc import Sequence


def table(lines: Sequence[Sequence[str]], *, numbers: bool = False, indent: str = "") -> str:
    """Return lines of cells in columns; with `numbers`, all columns but the first are aligned right."""
    widths = [max(map(len, column)) for column in zip(*lines)]
    text = ""
    for cells in lines:
        padded = []
        for column, cell in enumerate(cells):
            width = widths[column]
            is_number = numbers and column > 0
            padded.append(cell.rjust(width) if is_number else cell.ljust(width))
        row = "  ".join(padded).rstrip()
        text += f"{indent}{row}\n"
    return text
