"""Chooses the settings that are left to the machine: device, allocation, budgets, number of steps.

    device ──▶ num_steps ──▶ allocation ──▶ max_tokens_per_microbatch, generation.cache_mib
    (local)    (the rows)    (devices, memory)        (memory that is left)

Settings that do not fit are found by the same prediction of memory that a dry run prints. Sizes are fractions
of the machine's whole memory, rounded to powers of two, so that machines of one kind choose alike, however
busy they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from realrl.api.config import AUTO, GenerationConfig, RunConfig, TrainingConfig
from realrl.api.configure import plain
from realrl.api.graph import OWN_ENGINE, CallKind
from realrl.api.recipe import Recipe
from realrl.api.traits import generation_of, with_generation
from realrl.apps.checks import check_plan, make_plan
from realrl.base.machine import memory_bytes
from realrl.planner.run_inputs import RunInputs
from realrl.planner.run_memory import moments
from realrl.runtime.resume import earlier_settings

_MICROBATCHES = {"cpu": (2048, 1024, 512), "cuda": (32768, 16384, 8192, 4096, 2048)}
"""Tokens of a micro-batch, the most first: products gain nothing from more."""
_CACHE_SHARES = (2, 4, 8, 16, 32)
"""The cache may take one part of the memory in this many, the largest part first."""
_USABLE_SHARE = {"cpu": 0.8, "cuda": 0.9}
"""Fraction of the memory that a run may use: the rest is for the system, the driver and the allocator."""
_LEFT_OUT = {
    "device": AUTO,
    "allocation": AUTO,
    "num_steps": 0,
    "max_tokens_per_microbatch": 0,
    "cache_mib": 0,
}
"""Values that leave a setting to the machine."""
_ASSUMED_BYTES = 80 << 30
"""Memory of a GPU of a cluster, if this host has none to look at."""


@dataclass(frozen=True)
class _Devices:
    """The devices of one host that a run may use."""

    kind: Literal["cpu", "cuda"]
    number: int
    """Ranks that a plan may have."""
    memory_bytes: int
    """Memory of each device; ranks on CPUs share it."""
    words: str
    """The devices in words."""

    @property
    def usable_bytes(self) -> int:
        """Memory of each device that a run may use."""
        share = _USABLE_SHARE[self.kind]
        return int(share * self.memory_bytes)


def choose_settings(recipe: Recipe, config: RunConfig, inputs: RunInputs) -> tuple[RunConfig, list[str]]:
    """Choose what the config leaves to the machine; return the complete config, and notes on the choice.

    A run that is resumed keeps what was chosen when it began, if this machine has such a device.

    Raises:
        ValueError: a setting that cannot be chosen from here, or a plan that does not fit.
    """
    chosen = _as_recorded(config)
    if chosen.device == AUTO:
        chosen = replace(chosen, device=_device(chosen))
    if isinstance(chosen, TrainingConfig) and not chosen.num_steps:
        num_rows = max(chosen.num_epochs, 1) * len(inputs.rows)
        num_batches = -(-num_rows // chosen.batch_size)
        # From here on the run has a number of steps, which a resume can raise.
        chosen = replace(chosen, num_steps=num_batches, num_epochs=0)
    devices = _devices(recipe, chosen)
    if chosen.allocation == AUTO:
        chosen = _with_allocation(recipe, chosen, inputs, devices)
    # Memory can be predicted only for a plan that fits the models.
    plan = make_plan(recipe, chosen)
    check_plan(recipe, chosen, plan, inputs.models)
    chosen = _with_budgets(recipe, chosen, inputs, devices)
    return chosen, _notes(recipe, config, chosen, inputs, devices)


def _as_recorded(config: RunConfig) -> RunConfig:
    """Return the config with what the run of this name chose when it began, if it is resumed or finished."""
    recorded = earlier_settings(config)
    if recorded is None:
        return config
    if recorded.get("device") == "cuda" and not torch.cuda.is_available():
        return config
    settings = _recorded_settings(config, recorded)
    if isinstance(config, TrainingConfig) and config.num_epochs:
        # They say the number of steps, whatever it was before.
        settings.pop("num_steps", None)
    filled = replace(config, **settings)
    generation = generation_of(filled)
    if generation is None:
        return filled
    settings = _recorded_settings(generation, recorded.get("generation") or {})
    return with_generation(filled, replace(generation, **settings))


def _recorded_settings(section: RunConfig | GenerationConfig, recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recorded values of the settings that a section leaves to the machine."""
    given = plain(section)
    settings = {}
    for name, unset in _LEFT_OUT.items():
        is_left_out = given.get(name) == unset
        if is_left_out and name in recorded:
            settings[name] = recorded[name]
    return settings


def _device(config: RunConfig) -> Literal["cpu", "cuda"]:
    """Return the type of the devices that a run uses."""
    if not config.uses_this_host:
        return "cuda"
    return "cuda" if torch.cuda.is_available() else "cpu"


def _devices(recipe: Recipe, config: RunConfig) -> _Devices:
    """Return the devices of this host, or assumed ones of a cluster."""
    if config.device == "cpu":
        memory = memory_bytes()
        number = 2 if _generates_ahead(recipe, config) else 1
        words = f"a CPU with {_gib(memory)}"
        return _Devices("cpu", number, memory, words)
    if not torch.cuda.is_available():
        words = f"GPUs with {_gib(_ASSUMED_BYTES)}, assumed"
        return _Devices("cuda", 1, _ASSUMED_BYTES, words)
    properties = torch.cuda.get_device_properties(0)
    number = torch.cuda.device_count()
    memory = properties.total_memory
    words = f"{number} x {properties.name} with {_gib(memory)}"
    return _Devices("cuda", number, memory, words)


def _with_allocation(recipe: Recipe, config: RunConfig, inputs: RunInputs, devices: _Devices) -> RunConfig:
    """Return the config with the first allocation that the batch, the models and the memory allow."""
    if not config.uses_this_host:
        raise ValueError(
            "allocation: auto is for mode: local; on a cluster, say which layouts are to get devices, as"
            " allocation=gen.d16+d8p2"
        )
    if config.placements:
        return replace(config, allocation="*:d1")
    trials = [replace(config, allocation=text) for text in _allocations(recipe, config, devices.number)]
    allowed = [trial for trial in trials if _is_allowed(recipe, trial, inputs)]
    for trial in allowed:
        if _fits(recipe, _least(trial, devices), inputs, devices):
            return trial
    # If none is allowed, the check of the run says why the last one is not.
    return (allowed or trials)[-1]


def _is_allowed(recipe: Recipe, config: RunConfig, inputs: RunInputs) -> bool:
    """Return whether batches and models can be cut as the config's allocation says."""
    try:
        plan = make_plan(recipe, config)
        check_plan(recipe, config, plan, inputs.models)
    except ValueError:
        return False
    return True


def _allocations(recipe: Recipe, config: RunConfig, number: int) -> Iterator[str]:
    """Yield allocations of up to `number` ranks: the least model parallelism first, then the most ranks."""
    is_ahead = _generates_ahead(recipe, config)
    has_other_engine = bool(_engines(recipe, config) - {OWN_ENGINE})
    share = max(number // 2, 1) if is_ahead else number
    for power in range(share.bit_length()):
        tp = 1 << power
        for dp in range(share // tp, 0, -1):
            others = f"d{dp}t{tp}" if tp > 1 else f"d{dp}"
            # Another engine takes only whole models.
            generating = f"d{dp * tp}" if has_other_engine else others
            if is_ahead:
                yield f"gen.{generating}+{others}"
            elif generating != others:
                yield f"gen:{generating},*:{others}"
            else:
                yield f"*:{others}"


def _generates_ahead(recipe: Recipe, config: RunConfig) -> bool:
    """Return whether generation is ahead of training: the two need ranks of their own then."""
    if not isinstance(config, TrainingConfig) or not config.max_staleness:
        return False
    return bool(_engines(recipe, config))


def _engines(recipe: Recipe, config: RunConfig) -> set[str]:
    """Return the engines that generate."""
    calls = recipe.graph(config).calls.values()
    return {call.engine for call in calls if call.kind is CallKind.GENERATE}


def _with_budgets(recipe: Recipe, config: RunConfig, inputs: RunInputs, devices: _Devices) -> RunConfig:
    """Return the config with the most tokens per micro-batch, and the largest cache, that memory allows."""
    trial = config
    for trial in _budgets(config, devices):
        if trial == config or _fits(recipe, trial, inputs, devices):
            break
    return trial


def _budgets(config: RunConfig, devices: _Devices) -> Iterator[RunConfig]:
    """Yield the config with every pair of budgets that are left out, the largest first."""
    given = config.max_tokens_per_microbatch
    choices = (given,) if given else _MICROBATCHES[devices.kind]
    generation = generation_of(config)
    for num_tokens in choices:
        trial = replace(config, max_tokens_per_microbatch=num_tokens)
        if generation is None or generation.cache_mib:
            yield trial
            continue
        for share in _CACHE_SHARES:
            cache_mib = _power_of_two(devices, share)
            yield with_generation(trial, replace(generation, cache_mib=cache_mib))


def _power_of_two(devices: _Devices, share: int) -> int:
    """Return one part in `share` of the memory in MiB, rounded down to a power of two."""
    mib = max(devices.usable_bytes // share >> 20, 1)
    return 1 << (mib.bit_length() - 1)


def _least(config: RunConfig, devices: _Devices) -> RunConfig:
    """Return the config with the smallest budgets that could be chosen."""
    *_, last = _budgets(config, devices)
    return last


def _fits(recipe: Recipe, config: RunConfig, inputs: RunInputs, devices: _Devices) -> bool:
    """Return whether the predicted memory can be used."""
    peak = _peak_bytes(recipe, config, inputs)
    return peak <= devices.usable_bytes


def _peak_bytes(recipe: Recipe, config: RunConfig, inputs: RunInputs) -> int:
    """Return the memory that the fullest device needs; ranks on CPUs share theirs."""
    plan = make_plan(recipe, config)
    found = moments(recipe, config, plan, inputs)
    peak = max(moment.use.total_bytes for moment in found)
    return peak * plan.num_workers if config.device == "cpu" else peak


def _notes(
    recipe: Recipe, given: RunConfig, chosen: RunConfig, inputs: RunInputs, devices: _Devices
) -> list[str]:
    """Return what was chosen, and a warning if memory is not likely to suffice."""
    changed = list(_differences(given, chosen))
    if not changed:
        return []
    notes = [f"chosen for {devices.words}: {', '.join(changed)}"]
    peak = _peak_bytes(recipe, chosen, inputs)
    if peak > devices.usable_bytes:
        notes.append(
            f"warning: {_gib(peak)} of memory are predicted, {_gib(devices.usable_bytes)} can be used; take a"
            " smaller model, more devices (allocation) or shorter responses (generation.max_new_tokens)"
        )
    return notes


def _differences(given: RunConfig, chosen: RunConfig) -> Iterator[str]:
    """Yield each changed setting as `key=value`."""
    yield from _changed_settings(plain(given), plain(chosen), "")
    before = generation_of(given)
    after = generation_of(chosen)
    if before is not None and after is not None:
        yield from _changed_settings(plain(before), plain(after), "generation.")


def _changed_settings(given: Mapping[str, Any], chosen: Mapping[str, Any], path: str) -> Iterator[str]:
    """Yield the changed settings of one section."""
    for name in _LEFT_OUT:
        value = chosen.get(name)
        if value != given.get(name):
            yield f"{path}{name}={value}"


def _gib(num_bytes: int) -> str:
    """Return a size in GiB, as text."""
    size = num_bytes / 2**30
    return f"{size:.1f} GiB"
