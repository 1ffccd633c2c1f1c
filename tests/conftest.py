"""Fixtures that tests of several folders use."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
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


@pytest.fixture(scope="session", autouse=True)
def replayed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Replay the event log of every run in a test's folder: the same events lead to the same instructions.

    A log that was replayed otherwise is an error of the last test; its path names the test that left it.
    """
    yield
    for log in sorted(tmp_path_factory.getbasetemp().rglob("events*.jsonl")):
        replay_file(log)


def replay_file(path: Path) -> None:
    """Raise where a log's events lead to other instructions."""
    from realrl.program.event_log import read_head
    from realrl.program.replay import replay
    from realrl.program.scheduler import Scheduler

    with path.open("rb") as file:
        try:
            head = read_head(file.readline())
            for _ in replay(Scheduler.resumed(head.state), head, file):
                pass
        except Exception as error:
            raise AssertionError(f"{path}: {error}") from error


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
