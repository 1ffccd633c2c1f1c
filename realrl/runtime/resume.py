"""Resuming a run: whether there is one of this name, and whether its settings allow it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from realrl.api.config import FixedKey, RunConfig, Section, TrainingConfig
from realrl.api.config_keys import shown
from realrl.api.configure import dump_config, sections
from realrl.api.documents import load_mapping
from realrl.api.recipe import Recipe
from realrl.api.traits import data_of, evals_of
from realrl.base.files import write_atomically
from realrl.datasets.digests import DataDigest
from realrl.runtime.failure import RunRefused
from realrl.runtime.inputs import InputDigests, InputsReader, difference, model_keys
from realrl.runtime.master.checkpoints import RECOVERIES
from realrl.runtime.master.recorder import run_directory
from realrl.runtime.master.recovery import has_recoveries, newest_step
from realrl.runtime.master.recovery import recorded_inputs as inputs_of_points
from realrl.runtime.run_files import CONFIG, INPUTS, SUMMARY

_NAMES = ("experiment", "trial", "runs_dir")
_CLUSTER = ("mode", "launcher", "devices_per_node", "cpus_per_worker", "slurm", "ray")
_PLACES = (*_CLUSTER, "allocation", "placements", "device", "offload", "keep_replicas")
_SIZES = ("max_tokens_per_microbatch", "max_sequences", "cache_mib", "staging_mib")
_SPEEDS = ("transport", "checksums", "call_timeout_s", "share_prompts", "gradient_checkpointing")
_SAVING = ("save_every", "recover", "keep_recoveries", "restarts", "sigterm_grace_s", "logger")
_FROM_NOW_ON = ("eval_every", "every", "eval_at_start", "keep_best")
"""Keys whose effect begins with the step that the run resumes from."""
MAY_DIFFER = frozenset((*_NAMES, *_PLACES, *_SIZES, *_SPEEDS, *_SAVING, *_FROM_NOW_ON))
"""Keys, of any section, that do not change the results so far."""
_DATA_PATHS = ("data.path", "data.eval_path", "data.solutions_path", "data.examples")
_DATA_PLACES = (*_DATA_PATHS, "data.commit", "data.eval_commit")
IN_A_PASS = frozenset(("batch_size",))
"""Further such keys of runs that train nothing."""
WITHOUT_STALENESS = frozenset(("recover_every",))
"""Further such keys of runs that generate nothing ahead of a recovery point."""


def resumes(config: RunConfig) -> bool:
    """Return whether `config` resumes a run of its name: an interrupted one, or one that is to train more."""
    directory = run_directory(config)
    if config.recover == "off" or is_finished(config):
        return False
    if isinstance(config, TrainingConfig):
        return has_recoveries(directory)
    return (directory / CONFIG).is_file()


def is_done(config: RunConfig) -> bool:
    """Return whether a run of this name has come to its end."""
    return (run_directory(config) / SUMMARY).is_file()


def is_finished(config: RunConfig) -> bool:
    """Return whether a run of this name has come to its end and has nothing left to do.

    False if the run is to begin afresh.
    """
    if config.recover == "off" or not is_done(config):
        return False
    if not isinstance(config, TrainingConfig):
        return True
    return config.num_steps <= read_summary(config)["num_steps"]


def read_summary(config: RunConfig) -> dict[str, Any]:
    """Return the summary of a run that has come to its end.

    Raises:
        ValueError: it is damaged.
    """
    path = run_directory(config) / SUMMARY
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return found | {"num_steps": int(found["num_steps"])}
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(
            f"recover: {path} is no summary of a run ({error}); put a whole copy there, or set recover=off to"
            " begin afresh"
        ) from None


def what_resumes(config: RunConfig) -> str:
    """Say what the same command will do after this run is stopped."""
    if not isinstance(config, TrainingConfig):
        return "the same command resumes after the last whole batch"
    directory = run_directory(config)
    step = newest_step(directory)
    if step is not None:
        return f"the same command resumes after step {step}, from {directory / RECOVERIES}"
    why = "no recovery point is written yet" if config.recover_every else "recover_every is 0"
    return f"the same command begins afresh, as {why}"


def may_restart(config: RunConfig, failures: Sequence[str]) -> bool:
    """Return whether to restart after these failures; the last one is the latest.

    A failure that repeats the one before it would only happen again.
    """
    if isinstance(config, TrainingConfig) and not config.recover_every:
        return False
    if len(failures) > config.restarts:
        return False
    latest = failures[-1:]
    before = failures[-2:-1]
    return latest != before


def check_resume(recipe: Recipe, config: RunConfig, data: DataDigest) -> None:
    """Check that `config` may resume the run of its name, or is the config of the finished one, if any.

    The places of a run's rows and models may change, as long as their content is the same.

    Raises:
        ValueError: it would be another run; or there is nothing to resume from.
    """
    before = earlier_settings(config)
    if before is None:
        return
    inputs = recorded_inputs(config)
    keys = model_keys(recipe, config)
    places: set[str] = set()
    if inputs:
        places.update(_DATA_PLACES)
        data_config = data_of(config)
        for name in data_config.sets if data_config else ():
            places |= {f"data.sets.{name}.path", f"data.sets.{name}.commit"}
        for name in evals_of(config):
            places |= {f"evals.{name}.path", f"evals.{name}.commit"}
        for key in keys.values():
            section, _, _ = key.rpartition(".")
            places.add(key)
            places.add(f"{section}.commit")

    _check_same_settings(recipe, config, before, places)
    if isinstance(config, TrainingConfig):
        _check_num_steps(recipe, config, before.get("num_steps"))
    if inputs:
        with InputsReader(recipe, config, data, inputs) as reader:
            if changed := difference(inputs, reader.all(), keys):
                raise other_inputs(config, changed)


def recorded_inputs(config: RunConfig) -> InputDigests | None:
    """Return what earlier starts of the run read, as far as they recorded it.

    Raises:
        RunRefused: the note of a pass is damaged.
    """
    directory = run_directory(config)
    if isinstance(config, TrainingConfig):
        return inputs_of_points(directory)
    path = directory / INPUTS
    try:
        if not path.exists():
            return None
        return msgspec.json.decode(path.read_bytes(), type=InputDigests)
    except (OSError, ValueError, RecursionError) as error:
        raise RunRefused(
            f"recover: {path} cannot be read ({error}); put a whole copy there, or set recover=off to begin"
            " afresh"
        ) from None


def record_inputs(config: RunConfig, inputs: InputDigests) -> None:
    """Record what a pass reads before it records anything else; in a training, recovery points do."""
    if isinstance(config, TrainingConfig):
        return
    data = msgspec.json.format(msgspec.json.encode(inputs))
    write_atomically(run_directory(config) / INPUTS, data)


def other_inputs(config: RunConfig, changed: str) -> RunRefused:
    """Return the refusal of a run whose inputs have changed."""
    return RunRefused(
        f"{changed}: {run_directory(config)} is a run on what was there before; put that back, give another"
        " trial, or set recover=off to begin afresh"
    )


def earlier_settings(config: RunConfig) -> dict[str, Any] | None:
    """Return the settings of the run that `config` resumes or that is finished; None for a new run.

    Raises:
        ValueError: they cannot be read.
    """
    if config.recover == "off" or not (resumes(config) or is_done(config)):
        return None
    directory = run_directory(config)
    path = directory / CONFIG
    try:
        return load_mapping(path.read_text(encoding="utf-8"), str(path))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"recover: cannot read the settings of the run in {directory} ({error}); put a whole copy of"
            f" {CONFIG} there, or set recover=off to begin afresh"
        ) from None


def _check_same_settings(
    recipe: Recipe, config: RunConfig, before: Mapping[str, Any], places: Collection[str]
) -> None:
    """Check that the results so far would be the same with the settings of `config`.

    `places` are keys that say where something is; its content is compared instead.

    Raises:
        ValueError: they would not.
    """
    may_differ = MAY_DIFFER
    if not isinstance(config, TrainingConfig):
        may_differ |= IN_A_PASS
    else:
        may_differ |= {"num_steps"}
        if not config.max_staleness:
            may_differ |= WITHOUT_STALENESS

    now = load_mapping(dump_config(config, recipe=recipe.name), "config")
    both = (before.get("evals") or {}).keys() & evals_of(config).keys()
    old = dict(_settings(_with_evals(before, both), may_differ))
    new = dict(_settings(_with_evals(now, both), may_differ))
    fixed = _fixed_keys(config)
    for key in (old.keys() | new.keys()) - set(places):
        # What an algorithm fixes now, a config of an earlier version still says.
        says_the_same = key not in new and key in fixed and old[key] in fixed[key].values
        if old.get(key) != new.get(key) and not says_the_same:
            raise _of_another_run(config, key, old.get(key), new.get(key))


def _with_evals(document: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Return settings with only these sets of evaluations: others begin or end where the run resumes."""
    evals = document.get("evals") or {}
    return {**document, "evals": {name: evals[name] for name in names}}


def _fixed_keys(config: RunConfig) -> dict[str, FixedKey]:
    """Return the keys that a config does not have because its algorithm fixes them, by dotted path."""
    found: dict[str, FixedKey] = {}
    for path, section in sections(config):
        if isinstance(section, Section):
            for name, key in section.FIXED.items():
                found[f"{path}.{name}" if path else name] = key
    return found


def _check_num_steps(recipe: Recipe, config: TrainingConfig, before: Any) -> None:
    """Check that a run may have another number of steps: those that it made must not depend on it.

    Raises:
        ValueError: it may not.
    """
    directory = run_directory(config)
    if is_done(config):
        done = read_summary(config)["num_steps"]
    else:
        done = newest_step(directory) or 0
    if config.num_steps == before:
        return

    for name, spec in recipe.models(config).items():
        if spec.optimizer and spec.optimizer.schedule != "constant":
            why = f" (with {spec.optimizer.schedule}, the learning rate of {name} depends on it)"
            raise _of_another_run(config, "num_steps", before, config.num_steps, why)
    if config.num_steps <= done:
        raise _of_another_run(config, "num_steps", before, config.num_steps, f" ({done} steps are done)")
    if not has_recoveries(directory):
        why = " (it left no recovery point: recover_every was 0, or they are deleted)"
        raise _of_another_run(config, "num_steps", before, config.num_steps, why)


def _of_another_run(config: RunConfig, key: str, before: Any, now: Any, why: str = "") -> ValueError:
    return ValueError(
        f"recover: {run_directory(config)} was made with {key}={shown(before)}, got {shown(now)}{why}; set it"
        " back, give another trial, or set recover=off to begin afresh"
    )


def _settings(
    document: Mapping[str, Any], may_differ: Collection[str], path: str = ""
) -> Iterator[tuple[str, Any]]:
    """Yield the settings on which results depend, each with its dotted key."""
    for key, value in document.items():
        if key in may_differ:
            continue
        if isinstance(value, dict):
            yield from _settings(value, may_differ, f"{path}{key}.")
        else:
            yield f"{path}{key}", value
