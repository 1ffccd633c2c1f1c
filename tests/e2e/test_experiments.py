"""Every experiment that the project ships is accepted by its own command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from realrl.apps import quickstart
from realrl.recipes import RECIPES
from tests.tiny import tiny_llama

EXPERIMENTS = sorted((Path(__file__).parents[2] / "experiments").glob("**/*.yaml"))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny"), max_position=1 << 15)


@pytest.fixture(scope="module")
def reward_model(model, tmp_path_factory) -> Path:
    """The same with a scalar head, as a reward model has one."""
    directory = Path(shutil.copytree(model, tmp_path_factory.mktemp("reward") / "model"))
    weights = load_file(model / "model.safetensors")
    head = torch.ones(1, weights["model.norm.weight"].numel())
    save_file({**weights, "score.weight": head}, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


ROW = {
    "query_id": "1",
    "prompt": "1+1",
    "solutions": ["2"],
    "response": "2",
    "chosen": "2",
    "rejected": "3",
}


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_it_loads_and_plans(file, model, reward_model, tmp_path, capsys):
    """On a tiny model, and a row in place of files that are not shipped; all else is as shipped."""
    shipped = yaml.safe_load(file.read_text())
    has_actor = hasattr(RECIPES[shipped["recipe"]].default_config, "actor")
    overrides = [f"{'actor.' * has_actor}model.path={model}"]
    for path, directory in (("critic.model.path", model), ("reward_model.path", reward_model)):
        overrides += [f"{path}={directory}" for path in _given(shipped, path)]
    if _given(shipped, "data.path") and "." in shipped["data"]["path"]:
        for name in ("row", "other"):
            (tmp_path / f"{name}.jsonl").write_text(json.dumps(ROW) + "\n")
        overrides.append(f"data.path={tmp_path / 'row.jsonl'}")
        overrides += [f"{path}={tmp_path / 'other.jsonl'}" for path in _given(shipped, "data.eval_path")]
        overrides += [f"evals.{name}.path={tmp_path / 'other.jsonl'}" for name in shipped.get("evals", {})]
        overrides += [f"{path}=null" for path in _given(shipped, "data.solutions_path")]
        overrides += [f"data.fields.{name}={name}" for name in shipped["data"].get("fields", {})]
    assert quickstart.main([shipped["recipe"], "--config", str(file), *overrides, "--dry-run"]) == 0
    assert "== Reallocations" in capsys.readouterr().out


def _given(shipped: dict, path: str) -> list[str]:
    """The path, if the file sets something there."""
    *sections, last = path.split(".")
    for name in sections:
        shipped = shipped.get(name) or {}
    return [path] if shipped.get(last) else []
