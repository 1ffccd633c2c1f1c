"""What a run's processes take, step by step, as SVG.

Source: w3.org/TR/SVG11.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.leaks import Samples
from benchmarks.processes import Usage

_WIDTH, _HEIGHT = 640, 180
"""Of a panel's field."""
_LEFT, _TOP, _GAP = 70, 40, 60
_COLOURS = ("#1b6ca8", "#c8553d", "#2a9d5c", "#8a5fb4", "#b8860b", "#555555")
_PANELS = {"memory_bytes": ("memory, MiB", 2**20), "fds": ("open files", 1), "threads": ("threads", 1)}


def plot(samples: Samples) -> str:
    """A panel each for memory, files and threads, a line for each process."""
    roles = list(dict.fromkeys(role for usage in samples.values() for role in usage))
    width, height = _LEFT + _WIDTH + 20, _TOP + len(_PANELS) * (_HEIGHT + _GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"'
        ' font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        *_legend(roles),
    ]
    for i, (quantity, (title, unit)) in enumerate(_PANELS.items()):
        parts.append(f'<g transform="translate({_LEFT} {_TOP + i * (_HEIGHT + _GAP)})">')
        parts += _panel(samples, roles, Usage._fields.index(quantity), unit, title)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>", ""])


def _legend(roles: Sequence[str]) -> Iterator[str]:
    for i, role in enumerate(roles):
        x = _LEFT + 140 * i
        yield f'<rect x="{x}" y="8" width="18" height="4" fill="{_COLOURS[i % len(_COLOURS)]}"/>'
        yield f'<text x="{x + 24}" y="15">{role}</text>'


def _panel(samples: Samples, roles: Sequence[str], column: int, unit: float, title: str) -> Iterator[str]:
    most = max(usage[column] for by_role in samples.values() for usage in by_role.values()) / unit
    last = max(samples)
    yield f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="none" stroke="#999"/>'
    yield f'<text x="0" y="-6">{title}</text>'
    yield f'<text x="-6" y="{_HEIGHT}" text-anchor="end">0</text>'
    yield f'<text x="-6" y="{_HEIGHT / 11 + 4:.1f}" text-anchor="end">{most:.4g}</text>'
    yield f'<text x="0" y="{_HEIGHT + 16}">step 0</text>'
    yield f'<text x="{_WIDTH}" y="{_HEIGHT + 16}" text-anchor="end">{last}</text>'
    for i, role in enumerate(roles):
        points = " ".join(
            f"{step / last * _WIDTH:.1f},{_HEIGHT - by_role[role][column] / unit / most * _HEIGHT / 1.1:.1f}"
            for step, by_role in sorted(samples.items())
            if role in by_role
        )
        colour = _COLOURS[i % len(_COLOURS)]
        yield f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
