"""The rehearsal's library, compiled once a session, and the pretended device."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from realrl.ops import kernels
from tests.rehearsal import build
from tests.rehearsal.claimed import claimed_device
from tests.rehearsal.device import FORWARDS, Library, RehearsedKernels


@pytest.fixture(scope="session")
def objects(tmp_path_factory) -> dict[str, Path]:
    """The compiled CUDA sources and the shim's, by name."""
    if build.compiler() is None:
        pytest.skip("no g++ on this machine")
    folder = tmp_path_factory.mktemp("objects")
    kernels = {name: build.compile_cuda(folder, name, text) for name, text in build.sources().items()}
    return kernels | build.compile_shim(folder)


@pytest.fixture(scope="session")
def library(objects, tmp_path_factory) -> Library:
    return Library(build.link(tmp_path_factory.mktemp("library"), objects))


@pytest.fixture
def device(library, monkeypatch) -> Iterator[None]:
    """What is made for `cuda` claims to be there, and runs the CUDA kernels."""
    rehearsed = RehearsedKernels(library)
    library.start(FORWARDS, processors=4)
    monkeypatch.setattr(kernels, "cuda_kernels", lambda: rehearsed)
    with claimed_device(monkeypatch, library):
        yield
