"""What vLLM cannot do is said before a worker starts, and a dry run shows what it would get."""

from pathlib import Path

import pytest

from realrl.models.reading import read_decoder_config, read_family
from tests.apps.test_bad_input import changed, refused
from tests.apps.test_dry_run import dry_run, num_elements, rows
from tests.models.families import tiny_model
from tests.tiny import tiny_llama


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Path:
    """Heads of 32 dimensions, which vLLM has; the tiny model's have 8."""
    return tiny_llama(tmp_path_factory.mktemp("served"), hidden=64, heads=2, kv_heads=2, max_position=1024)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "allocation=actor_gen:t2,*:d1",
            "allocation: actor_gen: with generation.engine=vllm each rank has a",
        ),
        ("allocation=gen.d1p2+d1", "got p2d1t1; give actor_gen a layout of d alone, as actor_gen:d2, or set"),
        ("placements.actor_gen={ranks: [0, 1], tp: 2}", "placements.actor_gen: with generation.engine=vllm"),
        (
            "deterministic=true",
            "deterministic: true needs the products of realrl's own engine, got generation",
        ),
        ("actor.model.path=MODEL", "actor.model.path: on a CPU vLLM serves attention heads of 32, 64, 80,"),
        # Keys and values of 4 layers of 2 heads of 32 dimensions are 2 KiB a token.
        (
            "data.max_prompt_tokens=1000",
            "generation.cache_mib: vLLM needs 2 MiB for the longest sample's keys",
        ),
    ],
)
def test_what_it_cannot_do(cli, model, served, override, message):
    given = ("generation.engine=vllm", "generation.cache_mib=1", f"actor.model.path={served}")
    assert message in refused(cli(*given, override.replace("MODEL", str(model)), "--dry-run"))


def test_windows_in_some_layers(cli, tmp_path):
    """vLLM has no Qwen2 with them."""
    small = tiny_model(tmp_path / "small", "qwen2-window")
    directory = changed(small, tmp_path / "windows", "config.json", hidden_size=256, head_dim=32)
    assert len(set(read_decoder_config(directory).windows)) == 2, read_family(directory)
    said = refused(cli("generation.engine=vllm", f"actor.model.path={directory}", "--dry-run"))
    assert "actor.model.path: vLLM serves no model of this family with a sliding window in some" in said


def test_where_there_is_none(cli, served, monkeypatch):
    """It says what to install."""
    monkeypatch.setattr("realrl.engines.vllm.fits.find_spec", lambda name: None)
    said = refused(cli("generation.engine=vllm", f"actor.model.path={served}", "allocation=*:d1"))
    assert "generation.engine: expected vLLM to be installed for 'vllm', it is not; install" in said
    assert "bash scripts/peers.sh vllm" in said and "generation.engine=realrl" in said


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_gets_the_weights_even_where_they_are(cli, served, dtype):
    """Nothing goes from rank to rank, but the replica takes memory."""
    vllm = ("generation.engine=vllm", f"actor.model.path={served}", f"actor.model.replica_dtype={dtype}")
    _, step, evaluation = rows(dry_run(cli, *vllm, "allocation=*:d1")["Reallocations"])
    assert step[:4] == ["actor", "p1d1t1@[0]", "p1d1t1@[0] in vllm", "each step, before actor_gen"]
    assert step[4] == "0 bytes" and evaluation[3] == "each evaluation, before actor_gen"
    assert int(step[6].split()[0]) >= num_elements(served) * {"float32": 4, "bfloat16": 2}[dtype]
