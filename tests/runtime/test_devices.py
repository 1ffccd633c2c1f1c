"""A worker stays on the cores that its device is attached to, among those that it may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from realrl.runtime.worker import devices
from realrl.runtime.worker.devices import open_device, stay_near

ADDRESS = "0000:1b:00.0"


@pytest.fixture
def cores(monkeypatch) -> list[set[int]]:
    """The sets of cores that this process was put on, the one that it had first."""
    found = [{0, 1, 2, 3, 8, 9}]
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: found[-1])
    monkeypatch.setattr(os, "sched_setaffinity", lambda process, cores: found.append(set(cores)))
    return found


def attached(folder: Path, text: str) -> Path:
    (folder / ADDRESS).mkdir()
    (folder / ADDRESS / "local_cpulist").write_text(text + "\n")
    return folder


@pytest.mark.parametrize(
    ("near", "expected"),
    [("0-1,8", {0, 1, 8}), ("2", {2}), ("2-5", {2, 3})],
)
def test_it_runs_near_its_device(cores, tmp_path, near, expected):
    stay_near(ADDRESS, attached(tmp_path, near))
    assert cores[-1] == expected


@pytest.mark.parametrize("near", ["", "0-63", "100-110"])
def test_it_stays_where_it_is_if_that_says_nothing(cores, tmp_path, near):
    """No node is known, all cores are near, or none that it may use."""
    stay_near(ADDRESS, attached(tmp_path, near))
    stay_near("0000:00:00.0", tmp_path)
    assert len(cores) == 1


def test_a_device_that_is_not_there_is_told_before_it_is_used(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="device: realrl's CUDA kernels are not built"):
        open_device("cuda", 0, is_deterministic=False)
    monkeypatch.setattr(devices, "cuda_kernels", lambda: "built")
    with pytest.raises(ValueError, match="shows 2 CUDA devices, and this is its worker 2"):
        open_device("cuda", 2, is_deterministic=False)
