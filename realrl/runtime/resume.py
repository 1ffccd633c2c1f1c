"""Going on with a run that was cut short: whether there is one, and its settings allow it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from realrl.api.config import RunConfig, TrainingConfig
from realrl.api.configure import dump_config, shown
from realrl.api.documents import load_mapping
from realrl.api.recipe import Recipe
from realrl.runtime.recorder import CONFIG, SUMMARY, run_directory
from realrl.runtime.recovery import has_recoveries

_NAMES = ("experiment", "trial", "runs_dir")
_CLUSTER = ("mode", "devices_per_node", "cpus_per_worker", "slurm", "ray")
_PLACES = (*_CLUSTER, "allocation", "placements", "device", "offload", "keep_replicas")
_SIZES = ("max_tokens_per_microbatch", "max_sequences", "cache_mib", "staging_mib")
_SPEEDS = ("checksums", "call_timeout_s", "share_prompts", "gradient_checkpointing")
_SAVING = ("save_every", "recover", "keep_recoveries", "restarts", "logger")
MAY_DIFFER = frozenset((*_NAMES, *_PLACES, *_SIZES, *_SPEEDS, *_SAVING))
"""Keys, of whatever section, that say where and how fast a run goes, not what comes of it."""
IN_A_PASS = frozenset(("batch_size",))
"""Such keys, where nothing is trained."""
WITHOUT_STALENESS = frozenset(("recover_every",))
"""Such keys, where nothing is generated ahead of what recovery goes on from."""


def goes_on(config: RunConfig) -> bool:
    """Whether there is a run of this name that was cut short, with which `config` goes on."""
    directory = run_directory(config)
    if config.recover == "off" or not (directory / CONFIG).is_file():
        return False
    if isinstance(config, TrainingConfig):
        return has_recoveries(directory)
    return not is_done(config)


def is_done(config: RunConfig) -> bool:
    """Whether there is a run of this name that came to its end."""
    return (run_directory(config) / SUMMARY).is_file()


def may_restart(config: RunConfig, failures: Sequence[str]) -> bool:
    """Whether a run that failed so, the last time just now, is to be gone on with."""
    can_go_on = not isinstance(config, TrainingConfig) or config.recover_every
    is_new = failures[-1:] != failures[-2:-1]
    return bool(can_go_on) and is_new and len(failures) <= config.restarts


def check_same_settings(recipe: Recipe, config: RunConfig) -> None:
    """Raise ValueError where `config` is to go on with a run of another one."""
    directory = run_directory(config)
    may_differ = MAY_DIFFER
    if not isinstance(config, TrainingConfig):
        may_differ |= IN_A_PASS
    elif not config.max_staleness:
        may_differ |= WITHOUT_STALENESS
    made = (directory / CONFIG).read_text(encoding="utf-8")
    before, now = (
        dict(_settings(load_mapping(text, str(directory / CONFIG)), may_differ))
        for text in (made, dump_config(config, recipe=recipe.name))
    )
    for key in {**before, **now}:
        if before.get(key) != now.get(key):
            raise ValueError(
                f"recover: {directory} was made with {key}={shown(before.get(key))}, got"
                f" {shown(now.get(key))}; set it back, write elsewhere, or set recover=off"
            )


def _settings(
    document: Mapping[str, Any], may_differ: Collection[str], path: str = ""
) -> Iterator[tuple[str, Any]]:
    """What results depend on, by dotted key."""
    for key, value in document.items():
        if key not in may_differ:
            if isinstance(value, dict):
                yield from _settings(value, may_differ, f"{path}{key}.")
            else:
                yield f"{path}{key}", value
