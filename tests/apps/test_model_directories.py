"""What a model's directory may say and hold: it is read as transformers reads it, or refused, or said."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from realrl.api.config import ModelConfig, OptimizerConfig
from realrl.api.recipe import ModelSpec
from realrl.apps.weights import check_weights
from realrl.models.registry import read_decoder_config
from realrl.models.rope import inverse_frequencies
from realrl.runtime.model_directories import load_tokenizer, resolve_model
from realrl.runtime.worker.replicas import _copy_description
from tests.tiny import tiny_llama

LM = ModelSpec(ModelConfig())
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
WEIGHT = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def directory(tiny, tmp_path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(tiny, tmp_path / "model"))


def look_at(directory: Path, spec: ModelSpec = LM) -> list[str]:
    """All that is checked of a directory before a start; returns its notes."""
    found = resolve_model(directory)
    decoder = read_decoder_config(found)
    load_tokenizer(found)
    return check_weights(found, decoder, spec)


def say(directory: Path, name: str = "config.json", **keys) -> None:
    """Set keys of one of its JSON files."""
    file = directory / name
    file.write_text(json.dumps({**json.loads(file.read_text()), **keys}))


def hold(directory: Path, **tensors: torch.Tensor) -> None:
    """Put tensors into its file, with `/` for the dots of their names."""
    file = directory / "model.safetensors"
    new = {name.replace("/", "."): tensor for name, tensor in tensors.items()}
    save_file({**load_file(file), **new}, file, metadata={"format": "pt"})


def test_a_plain_directory_has_no_notes(directory):
    assert look_at(directory) == []


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.float8_e4m3fn, torch.uint8])
def test_weights_that_are_no_floats_are_refused(directory, dtype):
    """As integers they would be taken for weights."""
    weight = load_file(directory / "model.safetensors")[WEIGHT]
    hold(directory, **{WEIGHT: weight.to(dtype)})
    with pytest.raises(ValueError, match=f"{WEIGHT}.*got (I8|BOOL|F8_E4M3|U8): quantised weights are not"):
        look_at(directory)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            {"quantization_config": {"quant_method": "bitsandbytes"}},
            r"quantised models .bitsandbytes. are not",
        ),
        ({"compression_config": {"format": "int-quantized"}}, "compression_config: quantised models are not"),
        (
            {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
            "does not say the same as rope_parameters",
        ),
        ({"rope_parameters": {"rope_theta": 1.0}}, "rope_theta must be more than 1, got 1"),
        ({"partial_rotary_factor": 0.5}, "partial rotary embeddings are not supported"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e6}}}, "of some types of layers alone"),
    ],
)
def test_a_config_that_cannot_be_followed_is_refused(directory, keys, said):
    say(directory, **keys)
    with pytest.raises(ValueError, match=f"config.json: .*{said}"):
        look_at(directory)


@pytest.mark.parametrize(
    "keys",
    [
        {"rope_parameters": None, "rope_theta": 5e5},
        {"rope_theta": 5e5},
        {"rope_parameters": {"rope_theta": 1e4, "rope_type": "linear", "type": "yarn", "factor": 2.0}},
        {"rope_scaling": {"type": "default"}},
        {
            "rope_parameters": {
                "rope_theta": 1e4,
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            },
            "original_max_position_embeddings": 8,
        },
    ],
)
def test_what_is_said_twice_is_taken_as_transformers_takes_it(directory, keys):
    """The frequencies of the two are the same."""
    say(directory, **keys)
    decoder = read_decoder_config(directory)
    theirs = LlamaRotaryEmbedding(AutoConfig.from_pretrained(directory, trust_remote_code=False))
    torch.testing.assert_close(inverse_frequencies(decoder.rope, decoder.head_dim), theirs.inv_freq)


def test_another_output_head_than_the_config_has_is_refused(directory):
    """transformers would take it; the same one again, as pickles have it, is all right."""
    embedding = load_file(directory / "model.safetensors")[EMBEDDING]
    hold(directory, **{HEAD: embedding.clone()})
    assert look_at(directory) == []
    hold(directory, **{HEAD: embedding + 1})
    with pytest.raises(ValueError, match="tie_word_embeddings.*another lm_head.weight"):
        look_at(directory)
    critic = ModelSpec(ModelConfig(), "scalar", OptimizerConfig())
    assert look_at(directory, critic) == []


def test_tensors_without_a_place_are_said(directory):
    """Those that transformers leaves out too."""
    hold(directory, **{"vision.tower.weight": torch.ones(3), "score.weight": torch.ones(1, 32)})
    (note,) = look_at(directory)
    assert "2 tensors of its files are left out" in note and "score.weight, vision.tower.weight" in note


def test_an_adapter_is_refused(directory):
    """Alone, and next to its base, where transformers would add it."""
    (directory / "adapter_config.json").write_text('{"base_model_name_or_path": "acme/base"}')
    with pytest.raises(ValueError, match="there is an adapter of acme/base .*merge it.*or remove that file"):
        look_at(directory)
    (directory / "config.json").unlink()
    with pytest.raises(ValueError, match="this is an adapter of acme/base .*not a whole model; merge it"):
        look_at(directory)


@pytest.mark.parametrize("known", [True, False])
def test_code_in_a_directory_never_runs(directory, monkeypatch, known):
    """Nor is anybody asked, whatever is typed: a tokenizer of another class than transformers' is refused."""
    mark = directory / "mark"
    for name in ("config", "tokenizer"):
        (directory / f"{name}_of_ours.py").write_text(f"open({str(mark)!r}, 'w')\n")
    say(directory, auto_map={"AutoConfig": "config_of_ours.Config"})
    made_by = {"auto_map": {"AutoTokenizer": ["tokenizer_of_ours.Tokenizer", None]}}
    if not known:
        made_by["tokenizer_class"] = "Tokenizer"
    say(directory, "tokenizer_config.json", **made_by)
    typed = io.StringIO("y\n" * 100)
    monkeypatch.setattr("sys.stdin", typed)
    if known:
        look_at(directory)
    else:
        with pytest.raises(
            ValueError, match="its tokenizer cannot be loaded .it is code of its own, which is"
        ):
            look_at(directory)
    assert not mark.exists()
    assert typed.tell() == 0


DEEP = '{"a":' * 200_000


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tokenizer.json", DEEP),
        ("tokenizer_config.json", DEEP),
        (
            "tokenizer.json",
            '{"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": [["a", "b"]]}}',
        ),
        ("generation_config.json", DEEP),
        ("adapter_config.json", DEEP),
        ("model.safetensors.index.json", DEEP),
    ],
)
def test_broken_files_are_one_message(directory, name, text):
    if name == "model.safetensors.index.json":
        (directory / "model.safetensors").unlink()
    (directory / name).write_text(text)
    with pytest.raises(ValueError) as refused:
        look_at(directory)
    assert len(str(refused.value)) < 900
    assert str(directory) in str(refused.value)


def test_a_regular_expression_that_is_none_is_one_message(directory):
    tokenizer = json.loads((directory / "tokenizer.json").read_text())
    tokenizer["pre_tokenizer"]["pattern"] = {"Regex": "(?<"}
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ValueError, match="its tokenizer cannot be loaded"):
        look_at(directory)


def test_a_checkpoint_says_nothing_that_no_longer_holds(directory, tmp_path):
    """Neither of code that stayed behind, nor of an adapter, nor of types: transformers opens it."""
    say(directory, auto_map={"AutoModelForCausalLM": "model_of_ours.Model"}, quantization_config={})
    say(directory, "tokenizer_config.json", auto_map={"AutoTokenizer": ["tokenizer_of_ours.Tokenizer", None]})
    (directory / "adapter_config.json").write_text("{}")
    (directory / "pytorch_model.bin.index.json").write_text("{}")
    saved = tmp_path / "saved"
    saved.mkdir()
    shutil.copyfile(directory / "model.safetensors", saved / "model.safetensors")
    _copy_description(directory, saved, ModelSpec(ModelConfig(dtype="float32")))
    names = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"}
    assert {file.name for file in saved.iterdir()} == {*names, "model.safetensors"}
    for name in ("config.json", "tokenizer_config.json"):
        assert not json.loads((saved / name).read_text()).keys() & {"auto_map", "quantization_config"}
    assert AutoModelForCausalLM.from_pretrained(saved, trust_remote_code=False).dtype == torch.float32
    load_tokenizer(saved)
