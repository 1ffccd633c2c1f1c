"""What vLLM cannot do is said before a worker starts, and a dry run shows what it would get."""

from pathlib import Path

import pytest

from realrl.api.config import GenerationConfig
from realrl.api.mesh import Coordinate, ParallelLayout
from realrl.models.registry import read_decoder_config, read_family
from realrl.planner import vllm_memory as memory
from realrl.planner.model_memory import Stage
from realrl.planner.vllm_memory import CONTEXT_BYTES
from tests.apps.test_bad_input import changed, refused
from tests.apps.test_dry_run import dry_run, memory_table, num_elements, rows
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


MIB = 1 << 20


def memory_of(cli, *options: str) -> dict[str, list[float]]:
    """MiB of weights, optimizer, activations, cache, staging and context, by call and reallocation."""
    found = memory_table(dry_run(cli, "generation.engine=vllm", *options))
    return {name: parts for name, (_, *parts, _) in found.items() if not name.endswith("evaluating")}


def test_a_cpu_s_memory_holds_what_vllm_has_all_the_time(cli, served):
    """Its weights, the memory in which they arrive, and its cache, next to trainer and reference."""
    options = ("generation.cache_mib=7", f"actor.model.path={served}", "allocation=*:d1")
    weights = num_elements(served) * 4 / MIB
    for name, (held, _, _, cache, _, context) in memory_of(cli, *options).items():
        assert held == pytest.approx(4 * weights, rel=0.02, abs=0.1), name
        assert (cache, context) == (7, 0), name


def test_a_gpu_s_memory_holds_what_vllm_has_awake(cli, served):
    """At the hand-over, twice the weights and its cache; asleep, the context of its process."""
    options = ("device=cuda", "generation.cache_mib=700", f"actor.model.path={served}", "allocation=*:d1")
    memory = memory_of(cli, *options, "actor.model.dtype=bfloat16", "max_tokens_per_microbatch=1000")
    assert list(memory) == ["reallocate actor", "actor_gen", "ref_inf", "actor_train"]
    assert [parts[3] for parts in memory.values()] == [0, 700, 0, 0]
    assert {parts[5] for parts in memory.values()} == {2 * CONTEXT_BYTES / MIB}
    weights = num_elements(served) * 2 / MIB
    arrived, training = memory["reallocate actor"][0], memory["actor_train"][0]
    assert arrived - training == pytest.approx(weights, rel=0.05, abs=0.1)


@pytest.mark.parametrize("max_sequences", [1, 4000])
def test_the_fuller_moment_of_a_call_is_predicted(served, max_sequences):
    """The hand-over, or the logits of many sequences."""
    stage = Stage(
        decoder=read_decoder_config(served),
        layout=ParallelLayout(),
        place=Coordinate(0, 0, 0),
        head="lm",
        itemsize=2,
        device="cuda",
    )
    config = GenerationConfig(cache_mib=3, max_sequences=max_sequences)
    use = memory.generating(stage, config, num_tokens=1)
    assert use.cache_bytes == 3 * MIB and use.context_bytes == 0
    weights, logits = stage.num_elements * 2, stage.drawing_bytes(max_sequences, config)
    assert (use.weights_bytes, use.activations_bytes) == ((weights, 0) if max_sequences == 1 else (0, logits))
    assert logits > weights or max_sequences == 1
