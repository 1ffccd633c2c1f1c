"""Going on with a pass over data that was interrupted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from realrl.api.config import PassConfig
from realrl.api.configure import dump_config, shown
from realrl.api.documents import load_mapping
from realrl.api.recipe import Recipe
from realrl.runtime.recorder import CONFIG, run_directory

_NAMES = ("resume", "experiment", "trial", "runs_dir")
_PLACES = ("allocation", "placements", "device", "offload", "keep_replicas")
_SIZES = ("batch_size", "max_tokens_per_microbatch", "max_sequences", "cache_mib", "staging_mib")
MAY_DIFFER = frozenset((*_NAMES, *_PLACES, *_SIZES, "checksums", "call_timeout_s"))
"""Keys, of whatever section, that say where and how fast a pass runs, not what comes of it."""


def check_resumable(recipe: Recipe, config: PassConfig) -> None:
    """Raise ValueError where `config` is to go on with a run of another one."""
    directory = run_directory(config)
    if not (config.resume and (directory / CONFIG).is_file()):
        return
    made = (directory / CONFIG).read_text(encoding="utf-8")
    before, now = (
        dict(_settings(load_mapping(text, str(directory / CONFIG))))
        for text in (made, dump_config(config, recipe=recipe.name))
    )
    for key in {**before, **now}:
        if before.get(key) != now.get(key):
            raise ValueError(
                f"resume: {directory} was made with {key}={shown(before.get(key))}, got"
                f" {shown(now.get(key))}; set it back, or write elsewhere"
            )


def _settings(document: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """What results depend on, by dotted key."""
    for key, value in document.items():
        if key not in MAY_DIFFER:
            if isinstance(value, dict):
                yield from _settings(value, f"{path}{key}.")
            else:
                yield f"{path}{key}", value


def rows_done(records: Path, samples_per_row: int) -> int:
    """How many rows a file of records has whole, from the first one on; what comes after them is cut off."""
    if not records.is_file():
        return 0
    num_rows, end, position = 0, 0, 0
    with records.open("r+b") as file:
        for number, line in enumerate(file, start=1):
            position += len(line)
            if number % samples_per_row == 0 and line.endswith(b"\n"):
                num_rows, end = number // samples_per_row, position
        file.truncate(end)
    return num_rows
