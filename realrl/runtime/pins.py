"""Pins the commit of each model and dataset that a run takes from the Hugging Face Hub, and the day.

The master does so at the start. The commits are part of the config, which every worker gets and which is in
the run's directory when the run is resumed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from datetime import date
from functools import partial
from typing import Any

from realrl.api.config import ModelConfig, RunConfig
from realrl.api.configure import plain, sections
from realrl.api.data import DataConfig
from realrl.api.recipe import Recipe
from realrl.datasets.parquet import dataset_commit, is_on_hub
from realrl.runtime.model_directories import commit_of, hub_repo
from realrl.runtime.resume import earlier_settings


def pin(recipe: Recipe, config: RunConfig) -> RunConfig:
    """Return `config` with the commit of each of its models and datasets on the Hub, and the day.

    The commits of an unfinished run of this name are kept. Models that no call uses are left alone.

    Raises:
        ValueError: the Hub has no such model or dataset for us; the message begins with the config key.
    """
    used = {id(spec.model) for spec in recipe.models(config).values()}
    return _Pins(used).pinned(config, _before(config), "")


def commits(config: RunConfig) -> dict[str, str]:
    """Return each commit in a config, by its dotted key."""
    found: dict[str, str] = {}
    for path, section in sections(config):
        names: tuple[str, ...] = ()
        if isinstance(section, ModelConfig):
            names = ("commit",)
        elif isinstance(section, DataConfig):
            names = ("commit", "eval_commit")
        for name in names:
            if commit := plain(section)[name]:
                found[f"{path}.{name}"] = commit
    return found


class _Pins:
    """Walks through a config; repositories of one name get one commit."""

    def __init__(self, used: set[int]) -> None:
        self._used = used
        """Identities of the models that some call uses."""
        self._found: dict[str, str | None] = {}

    def pinned(self, section: Any, before: Any, path: str) -> Any:
        """Return a section with its commits.

        `path` is the section's dotted key; `before` is the same section of the run that is resumed.
        """
        before = before if isinstance(before, Mapping) else {}
        if isinstance(section, ModelConfig):
            if id(section) not in self._used:
                return section
            return self._model(section, before, f"{path}path")

        changes: dict[str, Any] = {}
        if isinstance(section, DataConfig):
            changes |= self._data(section, before, path)
        for field in fields(section):
            name = field.name
            value = getattr(section, name)
            if not is_dataclass(value):
                continue
            pinned = self.pinned(value, before.get(name), f"{path}{name}.")
            if pinned is not value:
                changes[name] = pinned
        return replace(section, **changes) if changes else section

    def _model(self, model: ModelConfig, before: Mapping[str, Any], key: str) -> ModelConfig:
        repo = None if model.commit else hub_repo(model.path)
        if repo is None:
            return model
        commit = _kept(model.path, before, "path", "commit")
        if commit is None:
            try:
                commit = self._once(model.path, lambda: commit_of(repo))
            except ValueError as error:
                raise ValueError(f"{key}: {error}") from None
        return replace(model, commit=commit)

    def _data(self, data: DataConfig, before: Mapping[str, Any], path: str) -> dict[str, str]:
        """Return the date of the section, and the commits of its datasets, where it has none yet."""
        found = {}
        if data.template == "chat" and data.date is None:
            found["date"] = before.get("date") or date.today().isoformat()

        sides = (
            ("path", data.path, "commit", data.commit),
            ("eval_path", data.eval_path, "eval_commit", data.eval_commit),
        )
        for name, written, commit_name, given in sides:
            if given and not is_on_hub(written or ""):
                raise ValueError(
                    f"{path}{commit_name}: {path}{name} is no dataset of the Hugging Face Hub, so that commit"
                    f" {given} is not of it; leave it out"
                )
            if given or not written:
                continue
            commit = _kept(written, before, name, commit_name)
            if commit is None:
                look_up = partial(dataset_commit, written, f"{path}{name}")
                commit = self._once(written, look_up)
            if commit:
                found[commit_name] = commit
        return found

    def _once(self, written: str, look_up: Callable[[], str | None]) -> str | None:
        """Return the commit of a repository; look it up only the first time."""
        if written not in self._found:
            self._found[written] = look_up()
        return self._found[written]


def _kept(written: str, before: Mapping[str, Any], name: str, commit_name: str) -> str | None:
    """Return the commit that a run took for a repository; None if it was another repository."""
    if before.get(name) != written:
        return None
    return before.get(commit_name)


def _before(config: RunConfig) -> Mapping[str, Any]:
    """Return the settings of the run that this one resumes, or that is done; empty for a new run."""
    return earlier_settings(config) or {}
