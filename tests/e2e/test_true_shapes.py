"""Experiments for GPUs with the shapes of the models that they name, rather than of a tiny one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from realrl.api.configure import build_config
from realrl.apps.checks import check_plan, make_plan
from realrl.apps.defaults import choose_settings
from realrl.datasets.digests import RowsDigest
from realrl.models.registry import read_decoder_config
from realrl.planner.run_inputs import FoundModel, RowFacts, RunInputs
from realrl.recipes import RECIPES

FOLDER = Path(__file__).parents[2] / "experiments"
EXPERIMENTS = sorted(
    file for name in ("areal", "dapo", "deepscaler", "orz") for file in FOLDER.glob(f"{name}/*")
)
QWEN2 = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 131072,
    "rope_theta": 1e6,
    "bos_token_id": 151643,
    "eos_token_id": 151643,
    "use_sliding_window": False,
}


def shape(hidden: int, layers: int, heads: int, kv_heads: int, inner: int, vocab: int) -> dict:
    sizes = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads}
    more = {"num_key_value_heads": kv_heads, "intermediate_size": inner, "vocab_size": vocab}
    return {**QWEN2, **sizes, **more, "tie_word_embeddings": False}


SHAPES = {
    "1.5b": shape(1536, 28, 12, 2, 8960, 151936),
    "7b": shape(3584, 28, 28, 4, 18944, 152064),
    "32b": shape(5120, 64, 40, 8, 27648, 152064),
}
"""By the size in an experiment's name. Source: config.json of deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B,
Qwen/Qwen2.5-7B and Qwen/Qwen2.5-32B."""


def inputs_of(recipe, config, directory: Path) -> RunInputs:
    """The experiment's models, and a step's rows that are as long as the experiment allows."""
    decoder = read_decoder_config(directory)
    longest = config.data.max_prompt_tokens
    rows = RowFacts(
        longest=longest,
        sequence_lengths=(longest,) * config.batch_size,
        longest_place="",
        largest_token=decoder.vocab_size - 1,
        largest_place="",
        notes=(),
        form="",
        digest=RowsDigest(config.batch_size, ""),
    )
    specs = recipe.models(config).items()
    return RunInputs({name: FoundModel(name, spec, directory, decoder) for name, spec in specs}, rows, None)


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_it_fits_gpus_of_80_gib(file, tmp_path, monkeypatch):
    """By the prediction of memory; its plan, and vLLM where it generates, take the model as it is."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    size = file.stem.partition("-")[0]
    (tmp_path / "config.json").write_text(json.dumps(SHAPES[size]))
    name = yaml.safe_load(file.read_text())["recipe"]
    recipe = RECIPES[name]
    config = build_config(recipe.default_config, file, recipe=name)
    inputs = inputs_of(recipe, config, tmp_path)
    chosen, notes = choose_settings(recipe, config, inputs)
    check_plan(recipe, chosen, make_plan(recipe, chosen), inputs.models)
    assert not [note for note in notes if "warning" in note], notes
    assert chosen.generation.cache_mib >= 8192
