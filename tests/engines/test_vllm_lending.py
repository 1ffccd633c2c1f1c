"""Weights reach another process whole, by every way of lending, and lent memory is given back.

CUDA's driver is rehearsed on the CPU, and a process that writes files is in vLLM's place.
"""

from __future__ import annotations

import ctypes
import os
import random
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from realrl.api.config import GenerationConfig
from realrl.api.mesh import DeviceMesh, ParallelLayout, Placement
from realrl.engines.decoder_engine import DecoderEngine
from realrl.engines.options import EngineOptions
from realrl.engines.vllm import borrowing, lending
from realrl.engines.vllm.engine import VLLMEngine
from realrl.engines.vllm.lending import parts_of
from realrl.engines.vllm.protocol import DeviceLoan, HostLoan, Load, Request, View
from realrl.models.registry import read_decoder_config
from realrl.parallel.groups import local_groups
from realrl.realloc import shared
from tests.engines.lent import DEVICE_MEMORY, HOST_MEMORY, lend_device_memory, maps, processes, write
from tests.rehearsal import build, driver
from tests.tiny import tiny_llama

WAYS = {"host": "opens", "lent": "opens", "staged": "refuses"}
"""How weights are lent, and what the driver does in the process that borrows."""


@dataclass
class Lending:
    """An engine whose weights another process writes to files."""

    engine: VLLMEngine
    weights: dict[str, Tensor]
    folder: Path
    driver: ctypes.CDLL

    def hand_over(self, version: int) -> tuple[dict[str, Tensor], int]:
        """The checkpoint that arrived there, and in how many parts, of weights times a version's number."""
        write(self.engine, {name: weight * version for name, weight in self.weights.items()}, version)
        self.engine._hand_over()
        file = self.folder / f"version-{version}.safetensors"
        with safe_open(file, "pt") as opened:
            return load_file(file), int(opened.metadata()["parts"])


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    if build.compiler() is None:
        pytest.skip("no g++ on this machine")
    return driver.build(tmp_path_factory.mktemp("driver"))


@pytest.fixture(scope="module")
def lendings(library, tmp_path_factory) -> Iterator[dict[str, Lending]]:
    """One of each way; their processes start at once."""
    with ExitStack() as stack:
        loaded = stack.enter_context(driver.rehearsed(library))
        found = {}
        for way, opens in WAYS.items():
            folder = tiny_llama(tmp_path_factory.mktemp(way))
            with processes(library, opens=opens, server="files"):
                found[way] = _lending(folder, loaded)
            stack.callback(found[way].engine.close)
            if way != "host":
                lend_device_memory(found[way].engine)
        yield found


def _lending(folder: Path, loaded: ctypes.CDLL) -> Lending:
    decoder = read_decoder_config(folder)
    groups = local_groups(Placement(DeviceMesh((0,)), ParallelLayout()))
    common = {"dtype": torch.float32, "device": "cpu"}
    engine = VLLMEngine(
        decoder, groups, directory=folder, generation=GenerationConfig(), max_tokens=64, **common
    )
    source = DecoderEngine(decoder, "lm", groups, EngineOptions(max_tokens_per_microbatch=64, **common))
    source.load(folder)
    return Lending(engine, source.local_tensors(), folder, loaded)


@pytest.mark.parametrize("way", WAYS)
def test_every_version_arrives_whole(lendings, way, monkeypatch):
    """It is the checkpoint's, under its names; what is staged comes in several parts."""
    monkeypatch.setattr(lending, "_PART_BYTES", 4 << 10)
    found = lendings[way]
    checkpoint = load_file(found.folder / "model.safetensors")
    for version in (1, 2, 3):
        arrived, num_parts = found.hand_over(version)
        assert arrived.keys() == checkpoint.keys()
        for name, weight in checkpoint.items():
            assert torch.equal(arrived[name], weight * version), name
        assert (num_parts > 1) == (way == "staged")


def test_lent_device_memory_is_given_back(lendings):
    """It is closed there and freed here before the next version gets its own."""
    lent = lendings["lent"]
    for version in (4, 5):
        write(lent.engine, lent.weights, version)
        assert lent.driver.num_allocated() == 1
        lent.engine._hand_over()
        assert lent.driver.num_allocated() == 0
        assert not maps(lent.engine.pid, DEVICE_MEMORY)
    lent.engine.local_tensors()
    lent.engine.release()
    assert lent.driver.num_allocated() == 0, "weights that were not handed over"


def test_memory_that_is_looked_at_is_not_freed(lendings):
    """A tensor of it keeps it alive, so that it cannot dangle."""
    lent = lendings["lent"]
    held = next(iter(lent.engine.local_tensors().values()))
    held.fill_(7.0)
    lent.engine.release()
    assert lent.driver.num_allocated() == 1 and held.eq(7.0).all()
    del held
    assert lent.driver.num_allocated() == 0


@pytest.mark.parametrize("way", ["host", "staged"])
def test_host_memory_is_one_for_the_run(lendings, way):
    """Its pages are mapped once, in both processes."""
    found, inodes = lendings[way], set()
    for version in (6, 7):
        found.hand_over(version)
        for pid in (os.getpid(), found.engine.pid):
            assert maps(pid, HOST_MEMORY)
        inodes |= inodes_of(found.engine.pid)
    assert len(inodes) == 1


def inodes_of(pid: int) -> set[str]:
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return {line.split()[4] for line in lines if HOST_MEMORY in line}


def test_a_driver_that_refuses_is_said_once(lendings, caplog):
    """With its reason, and what it costs."""
    engine = lendings["staged"].engine
    engine._lender._is_lent = None
    with caplog.at_level("INFO", logger=lending.__name__):
        lendings["staged"].hand_over(8)
        lendings["staged"].hand_over(9)
        lendings["lent"].engine._lender._is_lent = None
        lendings["lent"].hand_over(8)
    (refused, works) = [record.getMessage() for record in caplog.records]
    assert "cuIpcOpenMemHandle_v2: mapping of buffer object failed" in refused
    assert "pinned host memory" in refused
    assert works == "vLLM reads weights from this process's device memory"


def test_memory_that_is_still_read_is_not_given_back(library, tmp_path):
    """The owner would free what another process has open: that is an error of the borrower."""
    with driver.rehearsed(library):
        borrower = borrowing.Borrower(pins=False)
        memory = lending.allocate(64, driver.CPU)
        loan = DeviceLoan(handle=memory.handle(), num_bytes=64)
        borrower._device = loan, memory
        del memory
        views = (View(name="w", shape=(2, 3), stride=(1, 2), offset=4),)
        tensors = borrower.tensors(loan, "float32", views)
        assert tensors["w"].stride() == (1, 2) and tensors["w"].storage_offset() == 4
        with pytest.raises(RuntimeError, match="keeps a tensor of the worker's device memory"):
            borrower.give_back()


def test_messages_say_which_memory_is_lent():
    """Bytes and numbers, by a schema; a handle that is none does not pass for one of the host."""
    decoder = msgspec.msgpack.Decoder(Request)
    views = (View(name="w", shape=(2, 3), stride=(3, 1), offset=5),)
    for loan in (DeviceLoan(handle=os.urandom(64), num_bytes=1 << 33), HostLoan(handle=(1, 2, 3))):
        message = Load(memory=loan, dtype="bfloat16", views=views)
        assert decoder.decode(msgspec.msgpack.encode(message)) == message
    wrong = {"type": "Load", "memory": {"type": "device", "handle": [1, 2, 3], "num_bytes": 3}}
    with pytest.raises(msgspec.ValidationError):
        decoder.decode(msgspec.msgpack.encode(wrong | {"dtype": "float32", "views": []}))


@pytest.mark.parametrize("seed", range(20))
def test_parts_hold_every_tensor_once(seed):
    """Each lies whole in its part's bytes; parts follow each other and are about as long as asked."""
    chance = random.Random(seed)
    views, end = [], 0
    while len(views) < 30:
        rows, columns = chance.randint(1, 9), chance.randint(1, 9)
        views += interleaved(end, rows, columns) if chance.random() < 0.3 else [plain(end, rows, columns)]
        end += rows * columns * (2 if views[-1].name.startswith("odd") else 1)
    part_bytes = chance.choice([1, 64, 300, 10_000])
    parts = parts_of(chance.sample(views, len(views)), 2, part_bytes)
    assert sorted(v.name for part in parts for v in part.views) == sorted(v.name for v in views)
    for part in parts:
        touched = {2 * element for view in part.views for element in elements(view)}
        assert (min(touched), max(touched) + 2) == (part.start, part.stop)
        assert all(view.offset * 2 < part.start + part_bytes or is_odd(view) for view in part.views)
    for before, after in zip(parts, parts[1:]):
        assert before.stop <= after.start and after.start >= before.start + part_bytes
    assert parts_of([], 2, part_bytes) == []


def plain(start: int, rows: int, columns: int) -> View:
    return View(name=f"plain{start}", shape=(rows, columns), stride=(columns, 1), offset=start)


def interleaved(start: int, rows: int, columns: int) -> list[View]:
    """Two tensors whose rows take turns; the first one also ends last, if it has several rows."""
    stride = (2 * columns, 1)
    even = View(name=f"even{start}", shape=(rows, columns), stride=stride, offset=start)
    fewer = (max(rows - 1, 1), columns)
    return [even, View(name=f"odd{start}", shape=fewer, stride=stride, offset=start + columns)]


def is_odd(view: View) -> bool:
    return view.name.startswith("odd")


def elements(view: View) -> list[int]:
    rows, columns = view.shape
    row, column = view.stride
    return [view.offset + r * row + c * column for r in range(rows) for c in range(columns)]


def test_pinning_names_what_it_was_refused(monkeypatch):
    """The address and size that CUDA gets are the memory's; its error is no silence."""
    asked = []

    class Runtime:
        def cudaHostRegister(self, *arguments: int) -> int:
            asked.append(arguments)
            return 2

    monkeypatch.setattr(torch.cuda, "cudart", Runtime)
    memory = shared.SharedMemory(3 << 20).memory
    with pytest.raises(RuntimeError, match="3 MiB of shared host memory cannot be pinned"):
        shared.pin(memory)
    assert asked == [(memory.data_ptr(), 3 << 20, 1)]
