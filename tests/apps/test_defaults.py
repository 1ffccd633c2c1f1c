"""What is left to the machine is chosen for it; what is given stays."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from realrl.api.config import GenerationConfig, ModelConfig, TrainedModelConfig
from realrl.api.configure import dump_config
from realrl.api.data import DataConfig
from realrl.apps import defaults
from realrl.apps.checks import make_plan, read_inputs
from realrl.apps.defaults import choose_settings
from realrl.planner import run_memory as memory
from realrl.planner.engine_memory import MemoryUse
from realrl.planner.run_memory import moments
from realrl.recipes.ppo_math import PPO_MATH, PPOMathConfig, PPOMathSettings

NUM_ROWS = 37


@pytest.fixture(scope="module")
def config(model, tmp_path_factory) -> PPOMathConfig:
    """What a person gives: a model, data, and a limit that the tiny model's context has room for."""
    file = tmp_path_factory.mktemp("data") / "rows.jsonl"
    rows = [{"prompt": f"{i}+1=", "solutions": [str(i + 1)]} for i in range(NUM_ROWS)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return PPOMathConfig(
        actor=TrainedModelConfig(model=ModelConfig(path=str(model), dtype="float32")),
        data=DataConfig(path=str(file)),
        generation=GenerationConfig(max_new_tokens=64),
        runs_dir=str(file.parent / "runs"),
    )


@pytest.fixture
def chosen(config):
    """Chooses settings: `(config, lines for a person)`."""

    def choose(**given):
        whole = replace(config, **given)
        return choose_settings(PPO_MATH, whole, read_inputs(PPO_MATH, whole))

    return choose


def pretend_gpus(monkeypatch, number: int, memory_bytes: int) -> None:
    properties = SimpleNamespace(name="GPU", total_memory=memory_bytes)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: number)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)


def peak_bytes(config) -> int:
    plan, inputs = make_plan(PPO_MATH, config), read_inputs(PPO_MATH, config)
    return max(moment.use.total_bytes for moment in moments(PPO_MATH, config, plan, inputs))


def test_a_cpu_gets_one_rank_and_one_pass_over_the_rows(chosen, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found, (note,) = chosen()
    assert (found.device, found.allocation, found.num_steps) == ("cpu", "*:d1", 5)
    assert found.max_tokens_per_microbatch == 2048 and found.generation.cache_mib > 0
    assert "allocation=*:d1" in note and "num_steps=5" in note and "generation.cache_mib=" in note


def test_passes_over_the_rows_become_steps(chosen, config, tmp_path):
    """Also where a run is resumed, which they may lengthen; given with steps they are refused."""
    for num_epochs, batch_size in ((1, 4), (3, 4), (3, 7)):
        found, (note,) = chosen(num_epochs=num_epochs, batch_size=batch_size)
        assert found.num_steps == math.ceil(num_epochs * NUM_ROWS / batch_size)
        assert found.num_epochs == 0 and f"num_steps={found.num_steps}" in note
    begun, _ = chosen(num_epochs=2, runs_dir=str(tmp_path), recover_every=1)
    folder = Path(begun.runs_dir, begun.experiment, begun.trial)
    (folder / "recovery" / "step-1").mkdir(parents=True)
    (folder / "config.yaml").write_text(dump_config(begun, recipe="ppo-math"))
    for num_epochs in (2, 3):
        resumed, _ = chosen(num_epochs=num_epochs, runs_dir=str(tmp_path), recover_every=1)
        assert resumed.num_steps == math.ceil(num_epochs * NUM_ROWS / begun.batch_size)
    with pytest.raises(ValueError, match="^num_epochs: num_steps=3 says how long the run is; leave one"):
        replace(config, num_steps=3, num_epochs=2)


def test_generation_ahead_of_training_gets_ranks_of_its_own(chosen, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found, _ = chosen(max_staleness=1)
    assert found.allocation == "gen.d1+d1"


def test_what_is_given_stays(chosen):
    given = {
        "device": "cpu",
        "allocation": "*:d2",
        "num_steps": 3,
        "max_tokens_per_microbatch": 77,
        "generation": GenerationConfig(max_new_tokens=8, cache_mib=5),
    }
    found, notes = chosen(**given)
    assert {name: getattr(found, name) for name in given} == given and notes == []


def test_gpus_get_as_little_model_parallelism_as_memory_allows(chosen, config, monkeypatch):
    """Against the memory that every allocation is predicted to take, but for what CUDA itself takes, which is
    far more than a tiny model."""
    monkeypatch.setattr(memory, "context", lambda *_: MemoryUse())
    monkeypatch.setattr(defaults, "_MICROBATCHES", {"cuda": (256,)})
    monkeypatch.setattr(defaults, "_CACHE_SHARES", (8,))
    given = replace(config, device="cuda", max_tokens_per_microbatch=256, num_steps=1)
    peaks = [
        peak_bytes(replace(given, allocation=text, generation=GenerationConfig(max_new_tokens=64)))
        for text in ("*:d8", "*:d4t2")
    ]
    assert peaks[1] < peaks[0]
    for memory_bytes, allocation in ((2 * peaks[0], "*:d8"), ((peaks[0] + peaks[1]) / 2, "*:d4t2")):
        # A ninth is kept back for the driver.
        pretend_gpus(monkeypatch, 8, int(memory_bytes / 0.9))
        found, _ = chosen()
        assert (found.device, found.allocation) == ("cuda", allocation)


def test_no_more_ranks_than_prompts(chosen, monkeypatch):
    pretend_gpus(monkeypatch, 8, 80 << 30)
    assert chosen(batch_size=3)[0].allocation == "*:d3"


def test_budgets_shrink_with_the_memory(chosen, config, monkeypatch):
    """The largest pair that is predicted to fit; and a warning where none is."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    many = {"batch_size": 32, "ppo": PPOMathSettings(group_size=8)}
    monkeypatch.setattr(defaults, "memory_bytes", lambda: 1 << 40)
    plenty, _ = chosen(**many)
    monkeypatch.setattr(defaults, "memory_bytes", lambda: 12 << 20)
    little, _ = chosen(**many)
    assert little.max_tokens_per_microbatch < plenty.max_tokens_per_microbatch
    assert peak_bytes(little) <= 0.8 * (12 << 20)
    monkeypatch.setattr(defaults, "memory_bytes", lambda: 1 << 20)
    _, (_, warning) = chosen(**many)
    assert "warning: " in warning and "of memory are predicted" in warning


def test_a_cluster_is_told_its_allocation(chosen):
    with pytest.raises(ValueError, match="allocation: auto is for mode: local"):
        chosen(mode="slurm")


def test_a_run_that_is_resumed_keeps_what_was_chosen(chosen, config, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    begun, _ = chosen(max_tokens_per_microbatch=99)
    folder = Path(config.runs_dir, config.experiment, config.trial)
    folder.mkdir(parents=True)
    (folder / "recovery" / "step-1").mkdir(parents=True)
    (folder / "config.yaml").write_text(dump_config(replace(begun, num_steps=4), recipe="ppo-math"))
    resumed, _ = chosen()
    assert resumed == replace(begun, num_steps=4)
