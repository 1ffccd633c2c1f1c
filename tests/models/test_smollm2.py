"""The demo model's logits against transformers; skipped where it has not been made."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from realrl.api.mesh import DeviceMesh, ParallelLayout, Placement
from realrl.datasets.demo import demo_model_directory
from realrl.models.decoder import Decoder
from realrl.models.layout import decoder_layout, local_tensors
from realrl.models.registry import read_decoder_config
from realrl.parallel.flat import FlatTensors
from realrl.parallel.groups import local_groups
from realrl.realloc import checkpoint
from tests.models.families import packed_logits

pytestmark = pytest.mark.slow


@torch.no_grad()
def test_logits_match_transformers():
    """Float32 logits of ragged packed sequences, to 1e-3."""
    directory = demo_model_directory()
    config = read_decoder_config(directory)
    groups = local_groups(Placement(DeviceMesh((0,)), ParallelLayout()))
    shapes = {t.name: t.shape for t in local_tensors(config, groups.placement.layout, groups.place, "lm")}
    weights = FlatTensors(shapes, torch.float32, "cpu").views
    checkpoint.load(directory, decoder_layout(config, groups.placement, "lm"), 0, weights)

    generator = torch.Generator().manual_seed(0)
    ids = [torch.randint(3, config.vocab_size, (n,), generator=generator) for n in (1, 17, 64, 5)]
    reference = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    expected = torch.cat([reference(sequence[None]).logits[0] for sequence in ids])
    found = packed_logits(Decoder(config, groups, "lm", weights), ids)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)
