"""Settings that are left to the machine: device, allocation, micro-batches, cache, and the number of steps.

    device ──▶ num_steps ──▶ allocation ──▶ max_tokens_per_microbatch, generation.cache_mib
    (local)    (the rows)    (devices, memory)        (memory that is left)

What does not fit is found by the same prediction of memory that a dry run prints. Sizes are parts of the
machine's whole memory, rounded to powers of two, so that machines of one kind choose alike, however busy.
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
"""Tokens, the most first: beyond the first, products gain nothing."""
_CACHE_SHARES = (2, 4, 8, 16, 32)
"""Parts of the memory that the cache may take, the largest first."""
_USABLE_SHARE = {"cpu": 0.8, "cuda": 0.9}
"""Of the memory: the rest is the system's, the driver's and the allocator's."""
_LEFT_OUT = {
    "device": AUTO,
    "allocation": AUTO,
    "num_steps": 0,
    "max_tokens_per_microbatch": 0,
    "cache_mib": 0,
}
"""Values that leave a setting to the machine."""
_ASSUMED_BYTES = 80 << 30
"""Of a GPU of a cluster, where this host has none to look at."""


@dataclass(frozen=True)
class _Devices:
    """What one host lets a run use."""

    kind: str
    number: int
    """Ranks that a plan may have."""
    usable_bytes: int
    """Memory of each of them; ranks on CPUs share it."""
    words: str


def choose_settings(recipe: Recipe, config: RunConfig, inputs: RunInputs) -> tuple[RunConfig, list[str]]:
    """Fill in what the config leaves to the machine; return the whole config, and what to say of it.

    A run that is resumed keeps what was chosen when it began, where this machine has such a device.

    Raises:
        ValueError: a setting that cannot be chosen from here, or a plan that does not fit.
    """
    chosen = _as_recorded(config)
    if chosen.device == AUTO:
        chosen = replace(chosen, device=_device(chosen))
    if isinstance(chosen, TrainingConfig) and not chosen.num_steps:
        chosen = replace(chosen, num_steps=-(-len(inputs.rows) // chosen.batch_size))
    devices = _devices(recipe, chosen)
    if chosen.allocation == AUTO:
        chosen = _with_allocation(recipe, chosen, inputs, devices)
    # Memory can be predicted only for a plan that fits the models.
    check_plan(recipe, chosen, make_plan(recipe, chosen), inputs.models)
    chosen = _with_budgets(recipe, chosen, inputs, devices)
    return chosen, _notes(recipe, config, chosen, inputs, devices)


def _as_recorded(config: RunConfig) -> RunConfig:
    """Take over what the run of this name chose when it began, if it is resumed or finished."""
    recorded = earlier_settings(config)
    if recorded is None:
        return config
    if recorded.get("device") == "cuda" and not torch.cuda.is_available():
        return config
    filled = replace(config, **_recorded_settings(config, recorded))
    generation = generation_of(filled)
    if generation is None:
        return filled
    settings = _recorded_settings(generation, recorded.get("generation") or {})
    return with_generation(filled, replace(generation, **settings))


def _recorded_settings(section: RunConfig | GenerationConfig, recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was recorded of the settings that a section leaves to the machine."""
    given = plain(section)
    left_out = [name for name, unset in _LEFT_OUT.items() if given.get(name) == unset]
    return {name: recorded[name] for name in left_out if name in recorded}


def _device(config: RunConfig) -> Literal["cpu", "cuda"]:
    if not config.uses_this_host:
        return "cuda"
    return "cuda" if torch.cuda.is_available() else "cpu"


def _devices(recipe: Recipe, config: RunConfig) -> _Devices:
    usable = _USABLE_SHARE[config.device]
    if config.device == "cpu":
        memory = memory_bytes()
        number = 2 if _generates_ahead(recipe, config) else 1
        return _Devices("cpu", number, int(usable * memory), f"a CPU with {_gib(memory)}")
    if not torch.cuda.is_available():
        return _Devices("cuda", 1, int(usable * _ASSUMED_BYTES), f"GPUs with {_gib(_ASSUMED_BYTES)}, assumed")
    properties, number = torch.cuda.get_device_properties(0), torch.cuda.device_count()
    memory = properties.total_memory
    return _Devices("cuda", number, int(usable * memory), f"{number} x {properties.name} with {_gib(memory)}")


def _with_allocation(recipe: Recipe, config: RunConfig, inputs: RunInputs, devices: _Devices) -> RunConfig:
    """Take the first allocation that the batch, the models and the memory allow."""
    if not config.uses_this_host:
        raise ValueError(
            "allocation: auto is for mode: local; on a cluster, say which layouts are to get devices, as"
            " allocation=gen.d16+d8p2"
        )
    if config.placements:
        return replace(config, allocation="*:d1")
    trials = [replace(config, allocation=text) for text in _allocations(recipe, config, devices.number)]
    allowed = [trial for trial in trials if _is_allowed(recipe, trial, inputs)]
    fitting = (trial for trial in allowed if _fits(recipe, _least(trial, devices), inputs, devices))
    # Where none is allowed, the check of the run says why the last one is not.
    return next(fitting, (allowed or trials)[-1])


def _is_allowed(recipe: Recipe, config: RunConfig, inputs: RunInputs) -> bool:
    try:
        check_plan(recipe, config, make_plan(recipe, config), inputs.models)
    except ValueError:
        return False
    return True


def _allocations(recipe: Recipe, config: RunConfig, number: int) -> Iterator[str]:
    """Allocations of up to `number` ranks: the least model parallelism first, then the most ranks."""
    is_ahead = _generates_ahead(recipe, config)
    share = max(number // 2, 1) if is_ahead else number
    for degree in (1 << power for power in range(share.bit_length())):
        for dp in range(share // degree, 0, -1):
            others = f"d{dp}" + (f"t{degree}" if degree > 1 else "")
            # Another engine takes whole models alone.
            generating = f"d{dp * degree}" if _engines(recipe, config) - {OWN_ENGINE} else others
            if is_ahead:
                yield f"gen.{generating}+{others}"
            else:
                yield f"gen:{generating},*:{others}" if generating != others else f"*:{others}"


def _generates_ahead(recipe: Recipe, config: RunConfig) -> bool:
    """Whether generation is ahead of training: the two need ranks of their own then."""
    is_ahead = isinstance(config, TrainingConfig) and config.max_staleness > 0
    return is_ahead and bool(_engines(recipe, config))


def _engines(recipe: Recipe, config: RunConfig) -> set[str]:
    """The engines that generate."""
    calls = recipe.graph(config).calls.values()
    return {call.engine for call in calls if call.kind is CallKind.GENERATE}


def _with_budgets(recipe: Recipe, config: RunConfig, inputs: RunInputs, devices: _Devices) -> RunConfig:
    """Take the most tokens a micro-batch, and with them the largest cache, that memory allows."""
    trial = config
    for trial in _budgets(config, devices):
        if trial == config or _fits(recipe, trial, inputs, devices):
            break
    return trial


def _budgets(config: RunConfig, devices: _Devices) -> Iterator[RunConfig]:
    """Yield the config with every pair of budgets that are left out, the largest first."""
    given = config.max_tokens_per_microbatch
    generation = generation_of(config)
    for tokens in (given,) if given else _MICROBATCHES[devices.kind]:
        trial = replace(config, max_tokens_per_microbatch=tokens)
        if generation is None or generation.cache_mib:
            yield trial
            continue
        for share in _CACHE_SHARES:
            cache_mib = _power_of_two(devices, share)
            yield with_generation(trial, replace(generation, cache_mib=cache_mib))


def _power_of_two(devices: _Devices, share: int) -> int:
    """A part of the memory in MiB, rounded down."""
    mib = max(devices.usable_bytes // share >> 20, 1)
    return 1 << (mib.bit_length() - 1)


def _least(config: RunConfig, devices: _Devices) -> RunConfig:
    """The config with the smallest budgets that could be chosen."""
    *_, last = _budgets(config, devices)
    return last


def _fits(recipe: Recipe, config: RunConfig, inputs: RunInputs, devices: _Devices) -> bool:
    return _peak_bytes(recipe, config, inputs) <= devices.usable_bytes


def _peak_bytes(recipe: Recipe, config: RunConfig, inputs: RunInputs) -> int:
    """The memory that the fullest device needs; ranks on CPUs share theirs."""
    plan = make_plan(recipe, config)
    peak = max(moment.use.total_bytes for moment in moments(recipe, config, plan, inputs))
    return peak * plan.num_workers if config.device == "cpu" else peak


def _notes(
    recipe: Recipe, given: RunConfig, chosen: RunConfig, inputs: RunInputs, devices: _Devices
) -> list[str]:
    """Say what was chosen, and where memory is not likely to do."""
    changed = list(_differences(plain(given), plain(chosen), ""))
    notes = [f"chosen for {devices.words}: {', '.join(changed)}"] if changed else []
    peak = _peak_bytes(recipe, chosen, inputs) if changed else 0
    if peak > devices.usable_bytes:
        notes.append(
            f"warning: {_gib(peak)} of memory are predicted, {_gib(devices.usable_bytes)} can be used; take a"
            " smaller model, more devices (allocation) or shorter responses (generation.max_new_tokens)"
        )
    return notes


def _differences(given: Mapping[str, Any], chosen: Mapping[str, Any], path: str) -> Iterator[str]:
    """Yield each changed setting as `key=value`."""
    for name in _LEFT_OUT:
        value = chosen.get(name)
        if value != given.get(name):
            yield f"{path}{name}={value}"
    if "generation" in chosen:
        yield from _differences(given["generation"], chosen["generation"], "generation.")


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.1f} GiB"
