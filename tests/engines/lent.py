"""vLLM engines whose weights are lent as on CUDA, without a device and, if need be, without vLLM."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from torch import Tensor

from realrl.engines.vllm import engine_process as child
from realrl.engines.vllm.engine import VLLMEngine
from realrl.engines.vllm.lending import DeviceLender
from tests.rehearsal.driver import CPU

DEVICE_MEMORY, HOST_MEMORY = "memfd:rehearsed-device", "memfd:realrl"
"""How mappings of each are called."""


@contextmanager
def processes(library: Path | str, *, opens: str, server: str) -> Iterator[None]:
    """Start `lent_process` for a vLLM process, in this block."""
    command = (sys.executable, "-m", "tests.engines.lent_process", str(library), opens, server)
    with mock.patch.object(child, "_COMMAND", command):
        yield


def lend_device_memory(engine: VLLMEngine) -> None:
    """Have an engine on the CPU lend memory as one on CUDA does."""
    num_bytes = sum(tensor.nbytes for tensor in engine.local_tensors().values())
    engine._drop_arriving()
    engine._lender = DeviceLender(num_bytes, CPU, engine._probe)


def write(engine: VLLMEngine, weights: Mapping[str, Tensor], version: int) -> None:
    """Have weights arrive at an engine."""
    arriving = engine.local_tensors()
    for name, weight in weights.items():
        arriving[name].copy_(weight)
    engine.adopt(version=version)


def maps(pid: int, kind: str) -> bool:
    """Whether a process has memory of a kind mapped."""
    return kind in Path(f"/proc/{pid}/maps").read_text()
