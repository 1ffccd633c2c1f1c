"""A tiny model and the command line, for every test of the apps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from realrl.apps.quickstart import main
from tests.demo import sums_with
from tests.tiny import tiny_llama


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("model"))


@pytest.fixture
def cli(model, tmp_path, monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Runs the command line on the tiny model: `(exit code, stdout, stderr)`. A start fails the test."""

    def refuse(*_, **__):
        raise AssertionError("a worker was started")

    monkeypatch.setattr("realrl.launch.local.LocalLauncher.start", refuse)

    def run(*arguments: str) -> tuple[int, str, str]:
        usual = {"actor.model.path": model, "actor.model.dtype": "float32", "runs_dir": tmp_path / "runs"}
        keys = {argument.partition("=")[0] for argument in arguments}
        given = [f"{key}={value}" for key, value in usual.items() if key not in keys]
        capsys.readouterr()
        code = main(["ppo-math", *sums_with(*given, *arguments)])
        return (code, *capsys.readouterr())

    return run
