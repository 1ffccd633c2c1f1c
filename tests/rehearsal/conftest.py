"""The rehearsal's library, compiled once a session."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.rehearsal import build
from tests.rehearsal.device import Library


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
