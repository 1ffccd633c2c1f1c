"""`examples/model_family.py`, named by its path as a user names it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers

from realrl.api.mesh import DeviceMesh, ParallelLayout, Placement
from realrl.apps.command_line import BAD_INPUT
from realrl.apps.quickstart import main
from realrl.models.decoder import Decoder
from realrl.models.layout import decoder_layout, local_tensors
from realrl.models.registry import load_family, read_decoder_config
from realrl.parallel.flat import FlatTensors
from realrl.parallel.groups import local_groups
from realrl.realloc import checkpoint
from tests.command_line import run_recipe
from tests.models.families import SIZES, packed_logits, reference_model
from tests.tiny import tiny_tokenizer

FAMILY = f"{Path(__file__).parents[2] / 'examples' / 'model_family.py'}:PHI3"
DIGITS = """
def digits(prompt, response, solutions):
    return float(sum(map(str.isdigit, response)))
"""
ALONE = Placement(DeviceMesh((0,)), ParallelLayout())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Phi-3 by transformers, with grouped heads and a sliding window."""
    directory = tmp_path_factory.mktemp("phi3")
    keys = {key: value for key, value in SIZES.items() if key != "head_dim"}
    config = transformers.Phi3Config(
        **keys,
        sliding_window=6,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.Phi3ForCausalLM(config).float().save_pretrained(directory)
    tiny_tokenizer().save_pretrained(directory)
    return directory


@torch.no_grad()
def test_logits_match_transformers(model):
    """Float32 logits of ragged packed sequences, past the window, to 1e-4."""
    family = load_family(FAMILY)
    config, groups = read_decoder_config(model, family), local_groups(ALONE)
    shapes = {t.name: t.shape for t in local_tensors(config, ParallelLayout(), groups.place, "lm")}
    weights = FlatTensors(shapes, torch.float32, "cpu").views
    checkpoint.load(model, decoder_layout(config, ALONE, "lm"), 0, weights, base=config.names.base)
    decoder = Decoder(config, groups, "lm", weights)

    generator = torch.Generator().manual_seed(0)
    ids = [torch.randint(3, 60, (length,), generator=generator) for length in (1, 17, 90, 5)]
    reference = reference_model(model)
    expected = torch.cat([reference(sequence[None]).logits[0] for sequence in ids])
    torch.testing.assert_close(packed_logits(decoder, ids), expected, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_a_run_trains_it(model, tmp_path):
    """Two steps of PPO, which generates in another layout than it trains in; transformers opens the result.

    Digits are rewarded: a random model is never right, and learns nothing from that.
    """
    (tmp_path / "reward.py").write_text(DIGITS)
    overrides = {
        "actor.model.path": model,
        "actor.model.family": FAMILY,
        "actor.model.dtype": "float32",
        "ref.path": model,
        "ref.family": FAMILY,
        "ref.dtype": "float32",
        "actor.optimizer.lr": 1e-3,
        "data.path": "sums",
        "data.template": "plain",
        "reward": f"{tmp_path / 'reward.py'}:digits",
        "batch_size": 4,
        "num_steps": 2,
        "generation.max_new_tokens": 4,
        "max_tokens_per_microbatch": 512,
        "device": "cpu",
        "allocation": "actor_gen:d2,*:t2",
        "runs_dir": tmp_path / "runs",
    }
    run_recipe("ppo-math", overrides)
    run = tmp_path / "runs" / "ppo-math" / "trial"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if row["kind"] == "train"]
    assert len(steps) == 2
    assert all(row["actor_logprob_diff"] < 1e-4 for row in steps)

    (trained,) = (run / "checkpoints").glob("*/actor")
    assert json.loads((trained / "config.json").read_text())["model_type"] == "phi3"
    before, after = (reference_model(folder).state_dict() for folder in (model, trained))
    assert before.keys() == after.keys()
    name = "model.layers.0.self_attn.qkv_proj.weight"
    assert not torch.equal(before[name], after[name])


def test_a_family_that_is_none_is_refused_before_a_start(model, tmp_path, capsys):
    """With the dotted key, and what the file has."""
    file = FAMILY.rpartition(":")[0]
    usual = [f"actor.model.path={model}", f"runs_dir={tmp_path}", "data.path=sums", "device=cpu"]
    assert main(["ppo-math", *usual, "--dry-run"]) == BAD_INPUT
    assert "got 'phi3'; for another one, name a family of your own" in capsys.readouterr().err
    assert main(["ppo-math", *usual, f"actor.model.family={file}:phi3", "--dry-run"]) == BAD_INPUT
    assert f"actor.model.family: {file} has no Family 'phi3'; it has PHI3" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
