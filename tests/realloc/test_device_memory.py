"""Device memory that processes share, with CUDA's driver rehearsed on the CPU.

What two processes do with it is in tests/engines/test_vllm_lending.py.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator

import pytest

from realrl.realloc.device_memory import allocate, open_device_memory
from tests.rehearsal import build, driver
from tests.rehearsal.driver import CPU


@pytest.fixture(scope="module")
def loaded(tmp_path_factory) -> Iterator[ctypes.CDLL]:
    if build.compiler() is None:
        pytest.skip("no g++ on this machine")
    with driver.rehearsed(driver.build(tmp_path_factory.mktemp("driver"))) as found:
        yield found


def test_memory_is_freed_with_the_last_tensor_of_it(loaded):
    """Views of every kind keep it; what is written is there for the next tensor."""
    memory = allocate(96, CPU)
    memory.tensor(CPU).fill_(3)
    view = memory.tensor(CPU).view(8, 12)[2:, ::3]
    del memory
    gc.collect()
    assert loaded.num_allocated() == 1 and view.eq(3).all()
    del view
    assert loaded.num_allocated() == 0


def test_what_the_driver_refuses_is_an_error_with_its_reason(loaded):
    """Too much memory; a handle in the process that made it."""
    with pytest.raises(OSError, match="cuMemAlloc_v2: out of memory"):
        allocate(1 << 50, CPU)
    memory = allocate(96, CPU)
    with pytest.raises(OSError, match="cuIpcOpenMemHandle_v2: invalid device context"):
        open_device_memory(memory.handle(), 96, CPU)
    with pytest.raises(ValueError, match="expected a handle of 64 bytes, got 3"):
        open_device_memory(b"abc", 96, CPU)
    assert loaded.num_opened() == 0
