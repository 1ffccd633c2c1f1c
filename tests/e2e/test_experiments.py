"""Every experiment that the project ships is accepted by its own command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from realrl.apps import quickstart
from tests.tiny import tiny_llama

EXPERIMENTS = sorted((Path(__file__).parents[2] / "experiments").glob("**/*.yaml"))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny"), max_position=1 << 15)


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: file.stem)
def test_it_loads_and_plans(file, model, tmp_path, capsys):
    """On a tiny model, and a problem in place of a file that is not shipped; all else is as shipped."""
    text = file.read_text()
    recipe = yaml.safe_load(text)["recipe"]
    models = ["model.path"] if recipe in ("sft", "rw", "dpo", "gen") else ["actor.model.path"]
    models += ["critic.model.path"] if "critic:" in text else []
    overrides = [f"{key}={model}" for key in models]
    if "device: cuda" in text:
        (tmp_path / "prompts.jsonl").write_text('{"query_id": "1", "prompt": "1+1", "solutions": ["2"]}\n')
        overrides += [f"data.path={tmp_path / 'prompts.jsonl'}", "data.solutions_path=null"]
    assert quickstart.main([recipe, "--config", str(file), *overrides, "--dry-run"]) == 0
    assert "== Reallocations" in capsys.readouterr().out
