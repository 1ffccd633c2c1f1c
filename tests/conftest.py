"""Fixtures that tests of several folders use."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.hub import Hub, serving


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Iterator[Hub]:
    """A Hugging Face Hub of our own, and an empty cache; `member` is a token that may see all."""
    with serving(Hub(members=("member",))) as served:
        for name in [
            name for name in os.environ if name.startswith(("HF_", "HUGGINGFACE_", "TRANSFORMERS_"))
        ]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hugging-face"))
        monkeypatch.setenv("HF_ENDPOINT", served.endpoint)
        yield served
