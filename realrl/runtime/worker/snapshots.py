"""Writes copies of a rank's state, in a thread of its own, while the rank works on."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from realrl.api.engine import SavedState
from realrl.api.messages import File
from realrl.base.files import checksum, write_aside
from realrl.runtime.worker.call_memories import Memory

_MEMORIES = "memories.safetensors"


class Snapshots:
    """The copies that are being written, by job and folder."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="snapshots")
        self._begun: dict[tuple[int, str], Future[tuple[File, ...]]] = {}

    def begin(
        self, job: int, directory: Path, state: SavedState | None, memories: Mapping[str, Memory]
    ) -> None:
        """Copy a model's state, if there is one, and calls' memories, and begin to write the copies.

        Both may change while the copies are written.
        """
        copied_state = state.copied() if state else None
        copied: dict[str, Tensor] = {}
        for call, memory in memories.items():
            for key, tensor in memory.items():
                own = tensor.detach()
                copied[f"{call}/{key}"] = own.to("cpu", copy=True)

        writing = self._thread.submit(_write, directory, copied_state, copied)
        self._begun[job, directory.name] = writing

    def end(self, job: int, folder: str) -> tuple[File, ...]:
        """Wait until the copies are written; return the files. An error in writing is raised here."""
        writing = self._begun.pop((job, folder))
        return writing.result()


def read_memories(directory: Path) -> dict[str, dict[str, Tensor]]:
    """Return the memories in a snapshot's directory, by call."""
    memories: dict[str, dict[str, Tensor]] = {}
    path = directory / _MEMORIES
    if not path.is_file():
        return memories

    for name, tensor in load_file(path).items():
        call, _, key = name.partition("/")
        memory = memories.setdefault(call, {})
        memory[key] = tensor
    return memories


@torch.no_grad()
def _write(directory: Path, state: SavedState | None, memories: Mapping[str, Tensor]) -> tuple[File, ...]:
    """Write what there is of a state and of memories; return the files."""
    paths = []
    if state or memories:
        directory.mkdir(parents=True, exist_ok=True)
    if state:
        paths.append(state.write(directory))
    if memories:
        path = directory / _MEMORIES
        write_aside(path, lambda aside: save_file(dict(memories), aside))
        paths.append(path)
    return tuple(_written(path) for path in paths)


def _written(path: Path) -> File:
    """Return what a file that was just written must be."""
    name = f"{path.parent.name}/{path.name}"
    return File(path=name, num_bytes=path.stat().st_size, checksum=checksum(path))
