"""What a plan says of memory, against what processes really took."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from realrl.api.allocation import parse_layout
from realrl.api.mesh import DeviceMesh, Placement
from realrl.layouts.plan import plan
from realrl.layouts.topology import Topology
from realrl.models.config import DecoderConfig
from realrl.models.layout import decoder_layout, local_tensors
from realrl.parallel.flat import FlatTensors
from realrl.planner.transfer_memory import peak_memory
from realrl.realloc.transfer import Transfer, TransferSettings
from tests.world import run_world

DECODER = DecoderConfig(
    vocab_size=8000, hidden_size=512, intermediate_size=1536, num_layers=8, num_heads=8, num_kv_heads=4,
    head_dim=64, max_position=8, norm_eps=1e-5, tied=False, eos_token_ids=(),
)  # fmt: skip
STAGING_BYTES = 24 << 20
SETTINGS = TransferSettings(staging_bytes=STAGING_BYTES)


def resident_bytes(field: str) -> int:
    """Of this process: what it has now (`VmRSS`), or the most since `forget_peak` (`VmHWM`)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(field))


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def placed(text: str) -> Placement:
    layout = parse_layout(text)
    return Placement(DeviceMesh(tuple(range(layout.size))), layout)


def tensors_of(placement: Placement, rank: int, dtype: torch.dtype) -> FlatTensors:
    shapes = {
        t.name: t.shape for t in local_tensors(DECODER, placement.layout, placement.coordinate(rank), "lm")
    }
    return FlatTensors(shapes, dtype, "cpu")


def measure(rank: int, pair: tuple[str, str], shared_memory: bool, folder: Path) -> None:
    warm_up(rank, shared_memory)
    source, target = map(placed, pair)
    layouts = [decoder_layout(DECODER, placement, "lm") for placement in (source, target)]
    found = plan(*layouts, Topology(shared_memory=shared_memory))
    transfer = Transfer(found, rank=rank, settings=SETTINGS, wire_dtype=torch.bfloat16)
    before = resident_bytes("VmRSS")
    forget_peak()
    held = tensors_of(source, rank, torch.float32)
    held.buffer.fill_(1.0)
    wanted = tensors_of(target, rank, torch.bfloat16)
    transfer.run(held.views, wanted.views)
    measured = resident_bytes("VmHWM") - before
    predicted = peak_memory(found, *layouts, itemsizes=(4, 2), staging_bytes=STAGING_BYTES)[rank]
    assert predicted.staging_bytes >= transfer.staging_bytes
    (folder / str(rank)).write_text(json.dumps([measured, predicted.total_bytes, *predicted]))
    dist.barrier()


def warm_up(rank: int, shared_memory: bool) -> None:
    """What the first transfer of a process loads and allocates for good."""
    shapes = [decoder_layout(DECODER, placed(text), "lm") for text in ("t2", "d2")]
    found = plan(*shapes, Topology(shared_memory=shared_memory))
    tensors = (tensors_of(placed(text), rank, torch.bfloat16).views for text in ("t2", "d2"))
    Transfer(found, rank=rank, settings=SETTINGS).run(*tensors)


@pytest.mark.parametrize("shared_memory", [False, True], ids=["sent", "shared"])
@pytest.mark.parametrize("pair", [("t2", "d2"), ("p2", "t2")], ids="-".join)
def test_the_predicted_peak_is_the_measured_one(pair, shared_memory, tmp_path):
    """float32 weights to a bf16 replica: resident memory grows by no more than predicted, nor by much less.

    Whole pages count as resident, and a reader's view of shared messages counts for it too.
    """
    run_world(measure, 2, pair, shared_memory, tmp_path, start="spawn")
    for path in tmp_path.iterdir():
        measured, predicted, source, target, staging = json.loads(path.read_text())
        assert source > 40e6 and target > 20e6 and 0 < staging <= STAGING_BYTES
        readers_view = staging if shared_memory else 0
        assert 0.93 * (predicted - staging) <= measured <= 1.03 * predicted + readers_view + (2 << 20)
