"""`deterministic` on CUDA: what a worker sets, and that no operator of a training call is ruled out by it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

from realrl.runtime.worker import devices
from realrl.runtime.worker.devices import open_device
from tests.recipes.test_variants import rollouts
from tests.rehearsal.test_engine import engine_of, trained
from tests.tiny import tiny_llama


def _pretend_to_have_devices(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: None)
    monkeypatch.setattr(devices, "pci_address", lambda index: "none")
    monkeypatch.setattr(devices, "cuda_kernels", lambda: "built")


@pytest.fixture
def _opened(monkeypatch) -> Iterator[None]:
    """A device as a worker opens it, and the settings as they were thereafter."""
    filled = torch.utils.deterministic.fill_uninitialized_memory
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    _pretend_to_have_devices(monkeypatch)
    assert open_device("cuda", 3, is_deterministic=True) == "cuda:3"
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = filled


def test_a_training_call_has_no_sum_without_an_order(_opened, device, tmp_path):
    """Inference, loss, gradients and update."""
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    model = tiny_llama(tmp_path, layers=2)
    batch = rollouts(model)
    engine = engine_of(model, "cuda")
    trained(engine, model, batch)
    engine.logprobs(batch, temperature=1.0)
    with pytest.raises(RuntimeError, match="cumsum has no deterministic implementation"):
        torch.ones(3, device="cuda").cumsum(0)


def test_it_is_asked_for(monkeypatch):
    _pretend_to_have_devices(monkeypatch)
    open_device("cuda", 0, is_deterministic=False)
    assert not torch.are_deterministic_algorithms_enabled()
