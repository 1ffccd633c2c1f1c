"""Every experiment that the project ships is accepted by its own command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from realrl.apps import quickstart
from realrl.recipes import RECIPES
from tests.tiny import tiny_llama

EXPERIMENTS = sorted((Path(__file__).parents[2] / "experiments").glob("**/*.yaml"))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny"), max_position=1 << 15)


ROW = {
    "query_id": "1",
    "prompt": "1+1",
    "solutions": ["2"],
    "response": "2",
    "chosen": "2",
    "rejected": "3",
}


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_it_loads_and_plans(file, model, tmp_path, capsys):
    """On a tiny model, and a row in place of files that are not shipped; all else is as shipped."""
    shipped = yaml.safe_load(file.read_text())
    has_actor = hasattr(RECIPES[shipped["recipe"]].default_config, "actor")
    overrides = [f"{'actor.' * has_actor}model.path={model}"]
    for path in ("critic.model.path", "reward_model.path"):
        overrides += [f"{path}={model}" for path in _given(shipped, path)]
    if _given(shipped, "data.path") and "." in shipped["data"]["path"]:
        for name in ("row", "other"):
            (tmp_path / f"{name}.jsonl").write_text(json.dumps(ROW) + "\n")
        overrides.append(f"data.path={tmp_path / 'row.jsonl'}")
        overrides += [f"{path}={tmp_path / 'other.jsonl'}" for path in _given(shipped, "data.eval_path")]
        overrides += [f"{path}=null" for path in _given(shipped, "data.solutions_path")]
    assert quickstart.main([shipped["recipe"], "--config", str(file), *overrides, "--dry-run"]) == 0
    assert "== Reallocations" in capsys.readouterr().out


def _given(shipped: dict, path: str) -> list[str]:
    """The path, if the file sets something there."""
    *sections, last = path.split(".")
    for name in sections:
        shipped = shipped.get(name) or {}
    return [path] if shipped.get(last) else []
