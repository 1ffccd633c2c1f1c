"""A launcher whose workers are simulated: a few processes that host many ranks."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from pathlib import Path

import msgspec

from realrl.api.graph import CallKind, DataflowGraph
from realrl.launch.local import LocalLauncher
from realrl.runtime import simulated_workers as simulated
from realrl.runtime.simulated_workers import SCRIPT_VARIABLE, CallScript, Notes, Script

_TYPES = {"input_ids": "int64", "policy_versions": "int64", "loss_mask": "bool"}
"""Of keys that are not float32."""
_METRICS = {CallKind.GENERATE: 1, CallKind.COMPUTE: 8, CallKind.INFERENCE: 0, CallKind.TRAIN: 16}
"""How many means a call tells."""
_RECORD = "so the answer is 42. " * 50


class Crowd(LocalLauncher):
    """Starts, watches and ends simulated workers; a process stands for the first of its ranks."""

    def __init__(self, graph: DataflowGraph, seconds: float, num_processes: int, notes: Path) -> None:
        """`seconds`: that each call takes; `notes`: where each process leaves what it noted down."""
        super().__init__((sys.executable, "-m", simulated.__name__))
        self._graph, self._seconds = graph, seconds
        self._num_processes, self._notes = num_processes, notes

    def start(self, num_workers: int, environment: Mapping[str, str], log_directory: Path) -> None:
        script = Script(
            num_workers=num_workers,
            num_processes=self._num_processes,
            calls=scripts(self._graph, self._seconds),
            notes=str(self._notes),
        )
        told = {**environment, SCRIPT_VARIABLE: msgspec.json.encode(script).decode()}
        super().start(self._num_processes, told, log_directory)

    def log_path(self, rank: int) -> Path:
        return super().log_path(rank % self._num_processes)

    def states(self, ranks: Collection[int]) -> Mapping[int, str]:
        hosts = super().states({rank % self._num_processes for rank in ranks})
        return {rank: hosts[rank % self._num_processes] for rank in ranks}

    def notes(self) -> list[Notes]:
        """Of every process, once they have ended."""
        files = sorted(self._notes.glob("*.msgpack"))
        assert len(files) == self._num_processes, f"{len(files)} of {self._num_processes} left notes"
        return [msgspec.msgpack.decode(file.read_bytes(), type=Notes) for file in files]


def scripts(graph: DataflowGraph, seconds: float) -> dict[str, CallScript]:
    """What ranks pretend of each call, if it takes so long."""
    return {
        call.name: CallScript(
            seconds=seconds,
            dtypes={key: _TYPES.get(key, "float32") for key in call.outputs},
            per_sample=graph.per_sample & {*call.outputs},
            metrics=tuple(f"{call.name}_{i}" for i in range(_METRICS[call.kind])),
            record=_RECORD if call.kind is CallKind.COMPUTE else "",
        )
        for call in graph.calls.values()
    }
