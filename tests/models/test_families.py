"""Every family against transformers, in one process; what its files say, and what is refused."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from realrl.api.mesh import DeviceMesh, ParallelLayout, Placement
from realrl.models.decoder import Decoder
from realrl.models.layout import decoder_layout, local_tensors
from realrl.models.registry import FAMILIES, read_decoder_config
from realrl.parallel.flat import FlatTensors
from realrl.parallel.groups import local_groups
from realrl.realloc import checkpoint
from tests.models.families import ONE_EACH, ROWS, packed_logits, reference_model, tiny_model

ALONE = Placement(DeviceMesh((0,)), ParallelLayout())


def loaded(directory) -> Decoder:
    config, groups = read_decoder_config(directory), local_groups(ALONE)
    shapes = {t.name: t.shape for t in local_tensors(config, ParallelLayout(), groups.place, "lm")}
    weights = FlatTensors(shapes, torch.float32, "cpu").views
    checkpoint.load(directory, decoder_layout(config, ALONE, "lm"), 0, weights, base=config.names.base)
    return Decoder(config, groups, "lm", weights)


@torch.no_grad()
@pytest.mark.parametrize("row", ROWS)
def test_logits_match_transformers(row, tmp_path):
    """Float32 logits of ragged packed sequences, past every window and the original context, to 1e-4."""
    directory = tiny_model(tmp_path, row)
    generator = torch.Generator().manual_seed(0)
    ids = [torch.randint(3, 60, (n,), generator=generator) for n in (1, 17, 90, 5)]
    reference = reference_model(directory)
    expected = torch.cat([reference(sequence[None]).logits[0] for sequence in ids])
    torch.testing.assert_close(packed_logits(loaded(directory), ids), expected, rtol=0, atol=1e-4)


def test_every_family_has_a_row():
    assert {read.split("-")[0] for read in ROWS} == set(FAMILIES) == set(ONE_EACH)


@torch.no_grad()
def test_a_checkpoint_of_the_bare_model_is_read(tmp_path):
    """Files such as the published GPT-2 lack the base's prefix."""
    directory = tiny_model(tmp_path, "gpt2")
    expected = packed_logits(loaded(directory), [torch.arange(3, 20)])
    file = directory / checkpoint.SINGLE_FILE
    bare = {name.removeprefix("transformer."): tensor for name, tensor in load_file(file).items()}
    save_file(bare, file, metadata={"format": "pt"})
    assert torch.equal(packed_logits(loaded(directory), [torch.arange(3, 20)]), expected)


@pytest.mark.parametrize(
    ("row", "changes", "says"),
    [
        ("llama", {"model_type": "bert"}, "model_type must be one of llama, qwen2, .*, got 'bert'"),
        ("llama", {"hidden_act": "relu"}, "hidden_act must be one of silu, .*, got 'relu'"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "rope_type must be default"),
        ("llama", {"rope_parameters": {"rope_type": "llama3"}}, "rope_parameters: llama3 needs a factor"),
        (
            "llama",
            {"rope_parameters": {"partial_rotary_factor": 0.5}},
            "rope_parameters: mscale and partial",
        ),
        ("qwen2-window", {"layer_types": ["full_attention"]}, "layer_types must name 4 layers, got 1"),
        ("gemma", {"use_bidirectional_attention": True}, "use_bidirectional_attention must be false"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ("gpt2", {"n_head": 7}, "n_head must divide n_embd 64, got 7"),
    ],
)
def test_what_is_not_supported_is_refused(row, changes, says, tmp_path):
    """With the file, the key and what it should be, before anything is loaded."""
    file = tiny_model(tmp_path, row) / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(ValueError, match=f"config.json: {says}"):
        read_decoder_config(tmp_path)
