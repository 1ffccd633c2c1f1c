"""What a vLLM process finds in its environment."""

from __future__ import annotations

import pytest

from realrl.engines.vllm.engine_process import environment

WORKERS = {"PATH": "/bin", "LOCAL_RANK": "3", "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}


@pytest.mark.parametrize(
    ("device", "listed", "visible"),
    [("cuda:3", None, "3"), ("cuda:1", "4,6", "6"), ("cuda", "7", "7"), ("cpu", None, None)],
)
def test_it_has_one_device_of_its_worker_s(device, listed, visible):
    ours = WORKERS | ({"CUDA_VISIBLE_DEVICES": listed} if listed else {})
    assert environment(ours, device).get("CUDA_VISIBLE_DEVICES") == visible


def test_it_has_neither_its_worker_s_rank_nor_its_allocator():
    found = environment(WORKERS, "cuda:0")
    assert found["PATH"] == "/bin"
    assert not found.keys() & {"LOCAL_RANK", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"}
