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
from realrl.api.data import DataConfig, DataSetConfig
from realrl.api.prompt_keys import is_chat_template
from realrl.api.recipe import Recipe
from realrl.api.traits import data_of, evals_of
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
            for set_name, each in section.sets.items():
                if each.commit:
                    found[f"{path}.sets.{set_name}.commit"] = each.commit
        elif isinstance(section, RunConfig):
            for set_name, evaluated in evals_of(section).items():
                if evaluated.commit:
                    found[f"evals.{set_name}.commit"] = evaluated.commit
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
        if isinstance(section, RunConfig) and evals_of(section):
            changes |= self._evals(section, before, changes.get("data"))
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

    def _data(self, data: DataConfig, before: Mapping[str, Any], path: str) -> dict[str, Any]:
        """Return the date of the section, and the commits of its datasets, where it has none yet."""
        found: dict[str, Any] = {}
        if data.uses_chat_templates and data.date is None:
            found["date"] = before.get("date") or date.today().isoformat()

        sides = (
            ("path", data.path, "commit", data.commit),
            ("eval_path", data.eval_path, "eval_commit", data.eval_commit),
        )
        for name, written, commit_name, given in sides:
            commit = self._dataset(written, given, before, (f"{path}{name}", f"{path}{commit_name}"))
            if commit:
                found[commit_name] = commit
        sets = self._sets(data, before, path)
        if sets != data.sets:
            found["sets"] = sets
        return found

    def _evals(self, config: RunConfig, before: Mapping[str, Any], data: DataConfig | None) -> dict[str, Any]:
        """Return the sets to evaluate on with the commits of their datasets, and the data with the day.

        `data` is what the section `data` has become.
        """
        found: dict[str, Any] = {"evals": {}}
        evals_before = before.get("evals") or {}
        for name, each in evals_of(config).items():
            set_before = evals_before.get(name) or {}
            key = f"evals.{name}"
            commit = self._dataset(each.path, each.commit, set_before, (f"{key}.path", f"{key}.commit"))
            found["evals"][name] = replace(each, commit=commit) if commit else each

        data = data or data_of(config)
        templates = [each.template or "" for each in evals_of(config).values()]
        if data is not None and data.date is None and any(map(is_chat_template, templates)):
            data_before = before.get("data") or {}
            found["data"] = replace(data, date=data_before.get("date") or date.today().isoformat())
        return found

    def _sets(self, data: DataConfig, before: Mapping[str, Any], path: str) -> dict[str, DataSetConfig]:
        """Return the sets of the section, each with the commit of its dataset."""
        sets = {}
        sets_before = before.get("sets") or {}
        for name, each in data.sets.items():
            set_before = sets_before.get(name) or {}
            key = f"{path}sets.{name}"
            commit = self._dataset(each.path, each.commit, set_before, (f"{key}.path", f"{key}.commit"))
            sets[name] = replace(each, commit=commit) if commit else each
        return sets

    def _dataset(
        self, written: str | None, given: str | None, before: Mapping[str, Any], keys: tuple[str, str]
    ) -> str | None:
        """Return the commit of a dataset that has none yet; None if it has one, or is not of the Hub.

        `keys` are the dotted keys of its path and of its commit; `before` is their section of the run that is
        resumed.
        """
        path_key, commit_key = keys
        if given and not is_on_hub(written or ""):
            raise ValueError(
                f"{commit_key}: {path_key} is no dataset of the Hugging Face Hub, so that commit {given} is"
                " not of it; leave it out"
            )
        if given or not written:
            return None
        names = [key.rpartition(".")[2] for key in keys]
        commit = _kept(written, before, *names)
        if commit is None:
            look_up = partial(dataset_commit, written, path_key)
            commit = self._once(written, look_up)
        return commit

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
