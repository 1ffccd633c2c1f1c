"""Pins what a run takes from the Hugging Face Hub: each model and dataset gets its commit, once.

The master does so at the start. The commits are a part of the config, which every worker gets and which is
in the run's directory for a resume.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from realrl.api.config import ModelConfig, RunConfig
from realrl.api.data import DataConfig
from realrl.api.documents import load_mapping
from realrl.api.recipe import Recipe
from realrl.datasets.tables import dataset_commit
from realrl.runtime.models import commit_of, hub_repo
from realrl.runtime.recorder import CONFIG, run_directory
from realrl.runtime.resume import goes_on, is_done


def pin(recipe: Recipe, config: RunConfig) -> RunConfig:
    """`config`, with the commit of each of its models and datasets that the Hub has.

    Those that an unfinished run of this name took are kept. Models that no call uses are left alone.

    Raises:
        ValueError: the Hub has no such model or dataset for us; the message begins with the config key.
    """
    used = {id(spec.model) for spec in recipe.models(config).values()}
    return _Pins(used).pinned(config, _before(config), "")


def commits(config: Any, path: str = "") -> dict[str, str]:
    """Each commit in a config, by the key of what it is of."""
    found: dict[str, str] = {}
    for field in fields(config):
        value, here = getattr(config, field.name), f"{path}{field.name}"
        if is_dataclass(value):
            found |= commits(value, f"{here}.")
        elif field.name in ("commit", "eval_commit") and value:
            found[here] = value
    return found


class _Pins:
    """Walks through a config; what has the same name gets the same commit."""

    def __init__(self, used: set[int]) -> None:
        self._used = used
        """Identities of the models that some call uses."""
        self._found: dict[str, str | None] = {}

    def pinned(self, section: Any, before: Any, path: str) -> Any:
        """`section`, which is at `path`; `before` is the same section of the run that is resumed."""
        before = before if isinstance(before, Mapping) else {}
        if isinstance(section, ModelConfig):
            return self._model(section, before, f"{path}path") if id(section) in self._used else section
        changes = {}
        if isinstance(section, DataConfig):
            changes |= self._data(section, before, path)
        for field in fields(section):
            value = getattr(section, field.name)
            if is_dataclass(value):
                inner = self.pinned(value, before.get(field.name), f"{path}{field.name}.")
                if inner is not value:
                    changes[field.name] = inner
        return replace(section, **changes) if changes else section

    def _model(self, model: ModelConfig, before: Mapping[str, Any], key: str) -> ModelConfig:
        if model.commit:
            return model
        commit = _kept(model.path, before, "path", "commit")
        if commit is None:
            repo = hub_repo(model.path)
            commit = repo and self._look_up(model.path, key, lambda: commit_of(repo))
        return replace(model, commit=commit) if commit else model

    def _data(self, data: DataConfig, before: Mapping[str, Any], path: str) -> dict[str, str]:
        found = {}
        for name, commit_name in (("path", "commit"), ("eval_path", "eval_commit")):
            written = getattr(data, name)
            if not written or getattr(data, commit_name):
                continue
            key = f"{path}{name}"
            commit = _kept(written, before, name, commit_name)
            commit = commit or self._look_up(written, key, lambda w=written, k=key: dataset_commit(w, k))
            if commit:
                found[commit_name] = commit
        return found

    def _look_up(self, written: str, key: str, find: Any) -> str | None:
        if written not in self._found:
            try:
                self._found[written] = find()
            except ValueError as error:
                message = str(error)
                raise ValueError(message if message.startswith(key) else f"{key}: {message}") from None
        return self._found[written]


def _kept(written: str, before: Mapping[str, Any], name: str, commit_name: str) -> str | None:
    """The commit that a run took for what is `written` the same way now."""
    return before.get(commit_name) if before.get(name) == written else None


def _before(config: RunConfig) -> Mapping[str, Any]:
    """The config of the run with which this one goes on, or which is done."""
    file = run_directory(config) / CONFIG
    if not (goes_on(config) or (file.is_file() and is_done(config))):
        return {}
    return load_mapping(file.read_text(encoding="utf-8"), str(file))
