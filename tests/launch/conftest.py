"""A run on this host alone, that those on clusters are compared with."""

from __future__ import annotations

from pathlib import Path

import pytest

from realrl.apps.quickstart import main
from tests.launch.running import arguments, make_inputs


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """With inputs, and the outputs of the trial `here`."""
    folder = tmp_path_factory.mktemp("launch")
    make_inputs(folder)
    assert main(arguments(folder, "here")) == 0
    return folder
