"""Fixtures that tests of several folders use."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.hub import Hub, serving

SLOWEST_FILES = 20
"""Lines of the table at the end of a run of the tests."""


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


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the files that took the longest, so that a slow one is seen when it becomes slow."""
    seconds: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                seconds[report.nodeid.partition("::")[0]] += report.duration
    slowest = [(file, taken_s) for file, taken_s in seconds.most_common(SLOWEST_FILES) if taken_s >= 1]
    if slowest:
        terminalreporter.section("slowest files")
    for file, taken_s in slowest:
        terminalreporter.write_line(f"{taken_s:7.1f} s  {file}")
