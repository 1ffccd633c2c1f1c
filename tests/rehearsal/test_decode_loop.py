"""What a decoding step asks of a device: how often the host waits, launches and copies."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from realrl.api.config import GenerationConfig
from realrl.api.mesh import DeviceMesh, ParallelLayout, Placement
from realrl.engines.decoder_engine import DecoderEngine
from realrl.parallel.groups import create_groups
from tests.engines.test_generate import assert_same, generated, loaded, prompts
from tests.models.families import tiny_model
from tests.rehearsal.decode_calls import Calls, Device, counted
from tests.rehearsal.rehearse import rehearsing
from tests.world import run_world

CONFIG = GenerationConfig(max_new_tokens=90, min_new_tokens=2, temperature=1.3, top_k=40)
MOST_LAUNCHES = 5
"""A decoding step's: the recorded step, the block that is read; and where sequences or pages change, one
message, and the page table and the lanes that it brings."""


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("tiny"), "qwen2")


def counts(engine: DecoderEngine, config: GenerationConfig) -> tuple[Device, list[Calls]]:
    """Of each decoding step that replays what was recorded, with no prefill behind it."""
    with counted(engine.local_tensors().values()) as device:
        generated(engine, prompts(), config)
    return device, [call for call in device.calls if call.is_alone]


def check(calls: list[Calls], most_launches: int, num_rows: int) -> None:
    assert len(calls) > 80
    assert max(call.reads for call in calls) == 1
    assert max(call.uploads for call in calls) == 1
    assert max(call.launches for call in calls) <= most_launches
    unchanged = [call for call in calls if not call.uploads]
    assert len(unchanged) > 60, "most steps change no row"
    assert max(call.launches for call in unchanged) <= most_launches - 3
    # A token, two log-probabilities and whether a break is due, of each row that is recorded.
    assert max(call.read_bytes for call in calls) <= 1.5 * 32 * num_rows


def test_a_step_waits_once_and_launches_little(model):
    """Also where sequences end and where they grow into new pages: both happen here."""
    engine = loaded(model)
    expected = generated(loaded(model), prompts(), CONFIG)
    device, calls = counts(engine, CONFIG)
    check(calls, MOST_LAUNCHES, len(expected))
    assert max(call.uploaded_bytes for call in calls) < 1024
    assert device.faults == [], "a graph cannot hold it"
    assert sum(call.uploads for call in calls) > 2


def test_tokens_are_the_same_while_they_are_counted(model):
    """Else the counts would be of something else."""
    engine = loaded(model)
    expected = generated(engine, prompts(), CONFIG)
    with counted(engine.local_tensors().values()):
        found = generated(engine, prompts(), CONFIG)
    assert_same(found, expected)


@pytest.mark.parametrize(
    "read", [lambda x: x.max().item(), lambda x: x.nonzero(), lambda x: x[torch.tensor([0])]]
)
def test_a_planted_sync_in_a_recorded_step_is_found(model, monkeypatch, read):
    """A number that the host reads, a result of unknown size, an index on the host."""
    engine = loaded(model)
    logits = engine.model.logits

    def reading(part):
        read(logits(part))
        return logits(part)

    monkeypatch.setattr(engine.model, "logits", reading)
    device, _ = counts(engine, GenerationConfig(max_new_tokens=3))
    assert device.faults


def test_a_planted_sync_outside_of_the_step_is_found(model, monkeypatch):
    engine = loaded(model)
    receive = engine.link.receive

    def reading(kind, num_rows, chunk):
        next(iter(engine.local_tensors().values())).max().item()
        return receive(kind, num_rows, chunk)

    monkeypatch.setattr(engine.link, "receive", reading)
    _, calls = counts(engine, CONFIG)
    assert max(call.reads for call in calls) == 2


def test_the_kernels_of_cuda_draw_the_tokens_of_the_cpu(library, model):
    """In a whole generation, with top-p, which waits for nothing in a recorded step."""
    config = GenerationConfig(max_new_tokens=6, temperature=0.9, top_p=0.8)
    engine = loaded(model)
    expected = generated(engine, prompts([0, 1, 3]), config)
    with rehearsing(library, order=2), counted(engine.local_tensors().values()) as device:
        found = generated(engine, prompts([0, 1, 3]), config)
    assert_same(found, expected)
    assert device.faults == []


@pytest.mark.slow
def test_layouts_of_several_ranks(model):
    """The broadcast of what was drawn, and rows that advance behind it, in a recorded step of their own."""
    run_world(_check_layouts, 2, model)


def _check_layouts(rank: int, model: Path) -> None:
    layouts = [ParallelLayout(tp=2), ParallelLayout(pp=2)]
    placements = [Placement(DeviceMesh((0, 1)), layout) for layout in layouts]
    for placement, groups in sorted(create_groups(placements, rank).items()):
        device, calls = counts(loaded(model, groups), CONFIG)
        # Beyond those of one rank: the broadcast and the advance; hidden states of another stage.
        check(calls, MOST_LAUNCHES + (2 if placement.layout.pp == 1 else 4), len(prompts()))
        assert device.faults == []
