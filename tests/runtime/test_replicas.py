"""What a worker's models are written as, opened by transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from realrl.api.batch import Sample, pack
from realrl.api.config import ModelConfig, OptimizerConfig, RunConfig
from realrl.api.mesh import DeviceMesh, ParallelLayout, Placement
from realrl.api.recipe import ModelSpec
from realrl.layouts.topology import Topology
from realrl.parallel.groups import local_groups
from realrl.program.instructions import Save
from realrl.program.resources import Weights
from realrl.realloc.transfer import TransferSettings
from realrl.runtime.worker.replicas import Replicas
from tests.models.families import ONE_EACH, tiny_model

ALONE = Placement(DeviceMesh((0,)), ParallelLayout())


def critic_of(actor: Path) -> Replicas:
    """A critic in float32 that starts from an actor's files."""
    spec = ModelSpec(ModelConfig(path=str(actor), dtype="float32"), "scalar", OptimizerConfig(lr=1e-2))
    return Replicas(
        {"critic": spec},
        {"critic": ALONE},
        [Weights("critic", ALONE)],
        {ALONE: local_groups(ALONE)},
        rank=0,
        config=RunConfig(experiment="critic"),
        device="cpu",
        topology=Topology.even(1, 1),
        settings=TransferSettings(staging_bytes=1 << 20, timeout_s=10.0, checksum=True),
    )


@pytest.mark.parametrize("row", ONE_EACH)
def test_transformers_opens_a_critic(row, tmp_path):
    """As a classifier of one label, which gives a sequence the value after its last token."""
    replicas = critic_of(tiny_model(tmp_path / "actor", row))
    engine = replicas.engine(Weights("critic", ALONE))
    ids = [torch.randint(3, 60, (n,), generator=torch.Generator().manual_seed(n)) for n in (5, 12, 30)]
    batch = pack([Sample(i, i) for i in range(3)], {"input_ids": ids})
    assert not engine.values(batch).any(), "the head starts at zero"
    engine.train_values(batch, lambda values, micro: ((values - 1).square().sum(), {}), lr=1e-2)
    values = engine.values(batch)

    replicas.save(Save(seq=0, job=0, step=1, model="critic", placement=ALONE, directory=str(tmp_path)))
    opened = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "critic", dtype=torch.float32, attn_implementation="eager"
    )
    with torch.no_grad():
        found = torch.stack([opened(sequence[None]).logits[0, 0] for sequence in ids])
    assert found.abs().min() > 1e-3
    torch.testing.assert_close(values[batch.cu_seqlens[1:].long() - 1], found, rtol=0, atol=1e-4)


def test_what_generation_keeps_is_given_back_to_others(tmp_path):
    """Not where the same weights generate next."""
    weights = Weights("critic", ALONE)
    replicas = critic_of(tiny_model(tmp_path / "actor", ONE_EACH[0]))
    slot = replicas.engine(weights)._decoding
    for generating, is_kept in ((weights, True), (Weights("other", ALONE), False), (None, False)):
        slot._decoding = object()
        replicas.end_decodings(generating)
        assert (slot._decoding is not None) == is_kept
