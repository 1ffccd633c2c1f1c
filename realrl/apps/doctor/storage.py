"""Probes of the places that runs write to: their directory, the caches, the temporary folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from realrl.api.config import RunConfig
from realrl.apps.doctor.finding import Finding, Probe, in_gib, note, ok, problem
from realrl.base.files import locked, write_atomically
from realrl.datasets.demo import cache_directory

_LITTLE_BYTES = 5 << 30
"""A checkpoint of a model with a billion parameters, and its recovery point, take more."""


def look_at_runs() -> Iterator[Finding]:
    """Yield whether the default folder of runs can be written."""
    folder = Path(RunConfig.runs_dir)
    yield from _place("runs", folder, "runs cannot be written", "give another directory: runs_dir=FOLDER")


def look_at_cache() -> Iterator[Finding]:
    """Yield whether realrl's cache can be written."""
    do = "set REALRL_CACHE to a folder that can be written"
    means = "the demo model cannot be made"
    try:
        folder = cache_directory()
    except ValueError as error:
        yield problem("cache", str(error), means, do)
        return
    yield from _place("cache", folder, means, do)


def look_at_temporary() -> Iterator[Finding]:
    """Yield whether the folder of temporary files can be written."""
    folder = Path(tempfile.gettempdir())
    yield from _place("temporary", folder, "libraries fail that write there", "set TMPDIR to another folder")


def look_at_hub() -> Iterator[Finding]:
    """Yield whether the cache of the Hugging Face Hub can be written, and whether the Hub is offline."""
    from huggingface_hub import constants

    do = "set HF_HOME to a folder that can be written"
    means = "models and datasets cannot be downloaded"
    yield from _place("hub cache", Path(constants.HF_HUB_CACHE), means, do)
    if constants.HF_HUB_OFFLINE:
        means = "only models and datasets that are in the cache can be named by their id"
        yield note("hub", "offline (HF_HUB_OFFLINE)", means, "unset it to download")


def _place(name: str, folder: Path, means: str, do: str) -> Iterator[Finding]:
    """Yield whether a folder can be written, or made, and how much room its disk has."""
    above = folder.absolute()
    while not above.exists():
        above = above.parent
    try:
        with tempfile.TemporaryDirectory(prefix=".realrl-doctor-", dir=above) as made:
            _write(Path(made))
    except OSError as error:
        yield problem(name, f"{folder}: cannot write to {above} ({error.strerror})", means, do)
        return
    free = shutil.disk_usage(above).free
    if free < _LITTLE_BYTES:
        yield note(name, f"{folder}: {in_gib(free)} free", "checkpoints of larger models do not fit", do)
    else:
        yield ok(name, f"{folder}: can be written, {in_gib(free)} free")


def _write(folder: Path) -> None:
    """Write as runs do: to another file that is renamed, under a lock."""
    owner = str(os.getpid())
    with locked(folder / "lock", owner):
        write_atomically(folder / "file", "content")


PROBES = (
    Probe("runs", look_at_runs),
    Probe("cache", look_at_cache),
    Probe("temporary", look_at_temporary),
    Probe("hub cache", look_at_hub),
)
