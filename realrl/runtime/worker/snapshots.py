"""Writes copies of a rank's state, in a thread of its own, while the rank goes on."""

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

Memories = Mapping[str, Mapping[str, Tensor]]
"""What calls remember, by call."""

_MEMORIES = "memories.safetensors"


class Snapshots:
    """The copies that are being written, by job and model."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="snapshots")
        self._begun: dict[tuple[int, str], Future] = {}

    def begin(self, job: int, model: str, directory: str, state: SavedState, memories: Memories) -> None:
        """Copy the state and the memories; they may change while the copies are written."""
        copied = {
            f"{call}/{key}": tensor.detach().to("cpu", copy=True)
            for call, memory in memories.items()
            for key, tensor in memory.items()
        }
        self._begun[job, model] = self._thread.submit(_write, Path(directory), model, state.copied(), copied)

    def end(self, job: int, model: str) -> tuple[File, ...]:
        """Wait for what was begun; an error in writing is raised here."""
        return self._begun.pop((job, model)).result()


def read_memories(directory: Path) -> dict[str, dict[str, Tensor]]:
    """The memories in a model's directory, by call."""
    memories: dict[str, dict[str, Tensor]] = {}
    if (directory / _MEMORIES).is_file():
        for name, tensor in load_file(directory / _MEMORIES).items():
            call, _, key = name.partition("/")
            memories.setdefault(call, {})[key] = tensor
    return memories


@torch.no_grad()
def _write(
    directory: Path, model: str, state: SavedState, memories: Mapping[str, Tensor]
) -> tuple[File, ...]:
    (directory / model).mkdir(parents=True, exist_ok=True)
    paths = [state.write(directory / model)]
    if memories:
        paths.append(directory / model / _MEMORIES)
        write_aside(paths[-1], lambda aside: save_file(dict(memories), aside))
    return tuple(
        File(path=f"{model}/{path.name}", num_bytes=path.stat().st_size, checksum=checksum(path))
        for path in paths
    )
