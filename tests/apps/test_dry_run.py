"""A dry run says what a run would do, from the same plan, and starts nothing."""

import math
import re
import shutil

import pytest
import torch
from safetensors import safe_open

from realrl.api.configure import build_config
from realrl.recipes import RECIPES
from tests.hub import files_of
from tests.tiny import tiny_llama


def sections(text: str) -> dict[str, str]:
    return dict(re.findall(r"^== (.+)\n((?:(?!== ).*\n)*)", text, flags=re.M))


def dry_run(cli, *overrides: str) -> dict[str, str]:
    code, out, err = cli(*overrides, "--dry-run")
    assert (code, err) == (0, "")
    return sections(out)


def num_elements(model) -> int:
    """Of every tensor in the checkpoint."""
    with safe_open(model / "model.safetensors", "pt") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())


def rows(table: str) -> list[list[str]]:
    return [re.split(r" {2,}", line) for line in table.strip().splitlines()]


def test_the_config_that_it_prints_is_the_config(cli, model, tmp_path):
    """Given back as a file, it leads to the same text."""
    first = dry_run(cli, "batch_size=4", f"critic={{model: {{path: {model}}}, optimizer: {{lr: 1e-7}}}}")
    assert "generation.cache_mib=" in first.pop("Notes")
    (tmp_path / "again.yaml").write_text(first["Config"])
    again = dry_run(cli, f"--config={tmp_path / 'again.yaml'}")
    assert "generation.cache_mib=" not in again.pop("Notes"), "what was chosen is chosen no more"
    assert again == first
    config = build_config(RECIPES["ppo-math"].default_config, first["Config"])
    assert config.batch_size == 4 and config.critic.optimizer.lr == 1e-7


@pytest.mark.parametrize("critic", ["null", "{model: {path: MODEL}}"])
def test_each_call_stands_in_graph_and_plan(cli, model, critic):
    found = dry_run(cli, f"critic={critic.replace('MODEL', str(model))}", "allocation=actor_gen:d2,*:p2")
    config = build_config(RECIPES["ppo-math"].default_config, found["Config"])
    calls = RECIPES["ppo-math"].graph(config).calls
    assert len(calls) == (5 if critic == "null" else 7)
    header, *graph_rows = rows(found["Graph of one step"])
    assert [row[:3] for row in graph_rows] == [[c.name, c.kind.value, c.model or "-"] for c in calls.values()]
    where = {row[0]: row[3:] for row in rows(found["Plan"])[2:]}
    expected = {name: ["[0-1]", "p1d2t1" if name in ("actor_gen", "reward") else "p2d1t1"] for name in calls}
    assert where == expected


def test_nothing_is_reallocated_on_one_layout(cli):
    assert dry_run(cli, "allocation=*:d2")["Reallocations"].startswith("none")


@pytest.mark.parametrize(
    ("allocation", "dtype", "copies"),
    [
        ("gen.d1+d1", "float32", 1),
        ("gen.d2+p2", "float32", 2),
        ("gen.d3+t2", "bfloat16", 3),
    ],
)
def test_bytes_on_disjoint_ranks_are_every_weight_once_a_replica(cli, model, allocation, dtype, copies):
    """Nobody in the generation mesh holds anything, so each replica receives the whole model."""
    itemsize = {"float32": 4, "bfloat16": 2}[dtype]
    found = dry_run(cli, f"allocation={allocation}", f"actor.model.dtype={dtype}")
    _, step, evaluation = rows(found["Reallocations"])
    assert step[0] == "actor" and step[3] == "each step, before actor_gen"
    assert step[4].startswith(f"{copies * num_elements(model) * itemsize} bytes")
    assert step[5].startswith(f"{num_elements(model) * itemsize} bytes")
    assert evaluation[3] == "each evaluation, before actor_gen"


def test_what_a_rank_holds_is_not_counted(cli, model):
    """From two tensor shards to two replicas on the same ranks, each rank lacks under half the model."""
    found = dry_run(cli, "allocation=gen:d2,*:t2")
    moved = int(rows(found["Reallocations"])[1][4].split()[0])
    assert 0 < moved <= num_elements(model) * 4


def test_a_cluster_that_is_not_here(cli):
    """64 CUDA devices can be planned for on a laptop."""
    found = dry_run(cli, "device=cuda", "batch_size=64", "allocation=gen.d64+d16p2t2")
    assert found["Plan"].startswith("128 workers on cuda")


def test_devices_that_are_not_here_are_said(cli, monkeypatch):
    """A start here would be refused for want of them; on a cluster it would not look for them here."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    refused = "a start on this machine would be refused: device: expected a CUDA device for 'cuda'"
    assert refused in dry_run(cli, "device=cuda", "allocation=*:d1")["Notes"]
    assert "refused" not in dry_run(cli, "device=cpu")["Notes"]
    elsewhere = ("mode=slurm", "device=cuda", "allocation=*:d1")
    assert "refused" not in dry_run(cli, *elsewhere)["Notes"]


def test_settings_that_the_rows_are_too_few_for_are_said(cli, tmp_path):
    """Rows that come again within a step, and evaluations of no rows."""
    rows_file = tmp_path / "rows.jsonl"
    rows_file.write_text('{"prompt": "1 + 1 =", "solutions": ["2"]}\n')
    few = (f"data.path={rows_file}", "allocation=*:d1")
    notes = dry_run(cli, *few, "data.eval_path=", "batch_size=4", "eval_every=1")["Notes"]
    assert "data.path has 1 row, fewer than batch_size=4: rows are repeated in a step" in notes
    assert "eval_every=1: nothing is evaluated, as there are no held-out rows" in notes
    held_out = shutil.copyfile(rows_file, tmp_path / "held-out.jsonl")
    enough = dry_run(cli, *few, f"data.eval_path={held_out}", "batch_size=1", "eval_every=1")["Notes"]
    assert "repeated" not in enough and "evaluated" not in enough


@pytest.mark.parametrize("spoil", ["missing", "cut short", "of another size"])
def test_weights_that_cannot_be_loaded_are_refused_as_by_a_start(cli, model, tmp_path, spoil):
    directory = tmp_path / "spoilt"
    shutil.copytree(model, directory)
    weights = directory / "model.safetensors"
    if spoil == "missing":
        weights.unlink()
    elif spoil == "cut short":
        weights.write_bytes(weights.read_bytes()[:-100])
    else:
        tiny_llama(tmp_path / "other", intermediate=64)
        shutil.copyfile(tmp_path / "other" / "config.json", directory / "config.json")
    code, out, err = cli(f"actor.model.path={directory}", "--dry-run")
    assert (code, out) == (2, "") and err.startswith("realrl: error: actor.model.path: ")
    assert cli(f"actor.model.path={directory}") == (code, out, err)


def memory_table(found: dict[str, str]) -> dict[str, list[float]]:
    """Rank, weights, optimizer, activations, cache, staging, all, by row."""
    _, _, *lines = rows(found["Memory of the fullest rank"])
    return {row[0]: [float(cell.replace(",", "")) for cell in row[1:]] for row in lines}


@pytest.fixture
def larger(tmp_path):
    """A model of some MiB."""
    return tiny_llama(tmp_path / "larger", hidden=256, intermediate=512)


def test_memory_has_a_row_for_each_call_and_reallocation(cli, larger):
    """Its parts sum to the whole, and the largest is named."""
    found = dry_run(cli, "allocation=actor_gen:d2,*:p2", f"actor.model.path={larger}")
    memory = memory_table(found)
    names = ["reallocate actor", "actor_gen", "ref_inf", "actor_train"]
    assert list(memory) == [*names, *(f"{name}, evaluating" for name in names[:2])]
    for _, *parts, whole in memory.values():
        assert sum(parts) == pytest.approx(whole, abs=0.5)
    peak = max(memory, key=lambda name: memory[name][-1])
    first = found["Memory of the fullest rank"].splitlines()[0]
    assert first == f"in MiB; most is held by rank {memory[peak][0]:.0f} in {peak}"


def test_memory_of_each_set_is_that_of_its_answers(cli, larger):
    """More answers and longer ones need more cache; the other numbers are those without the set."""
    plain = ("allocation=*:d1", f"actor.model.path={larger}", "generation.cache_mib=0")
    sets = "evals={few: {path: sums}, many: {path: sums, n: 8, temperature: 1, max_new_tokens: 64}}"
    found = dry_run(cli, *plain, sets, "eval_every=5")
    memory = memory_table(found)
    assert memory["actor_gen, evaluating on many"][4] > 4 * memory["actor_gen, evaluating on few"][4] > 0
    assert memory["actor_gen"] == memory_table(dry_run(cli, *plain))["actor_gen"]
    assert (
        "evaluation on many: 8 answers to each problem, at temperature 1, every 5 steps" in found["Batches"]
    )


@pytest.mark.parametrize(
    ("options", "weights", "optimizer"),
    [
        ((), (2, 2, 2), 3),
        (("ppo.kl_coef=0",), (1, 1), 3),
        (("critic={}",), (3,) * 5, 6),
        (("ref={path: MODEL, dtype: float32, offload: true}",), (2, 3, 2), 3),
        (("actor.model.dtype=bfloat16",), (1, 1, 1), 4),
    ],
)
def test_memory_counts_every_model_that_is_there(cli, larger, options, weights, optimizer):
    """In float32 models: weights by call, a copy in host memory among them, and the states of the trained."""
    options = [option.replace("MODEL", str(larger)) for option in options]
    found = dry_run(cli, "allocation=*:d1", f"actor.model.path={larger}", *options)
    one = num_elements(larger) * 4 / 2**20
    memory = [row for name, row in memory_table(found).items() if not name.endswith("evaluating")]
    assert [row[1] / one for row in memory] == pytest.approx(weights, rel=0.02)
    assert [row[2] / one for row in memory] == pytest.approx([optimizer] * len(memory), rel=0.02)


def test_a_model_of_the_hub_shows_its_commit_and_what_a_start_downloads(
    cli, hub, model, tmp_path, monkeypatch
):
    """Not its weights; a config that names the commit gives the same one once the branch has moved."""
    monkeypatch.chdir(tmp_path)
    repository, files = hub.add("acme/tiny"), files_of(model)
    commit = repository.commit(files)
    code, out, _ = cli("actor.model.path=acme/tiny", "--dry-run")
    assert code == 0
    heading, row = rows(sections(out)["Models"])[:2]
    assert dict(zip(heading, row)) | {"directory": "", "to download": row[-1].partition(" ")[0]} == {
        "model": "actor",
        "path": "acme/tiny",
        "commit": commit,
        "directory": "",
        "to download": str(len(files["model.safetensors"])),
    }
    assert not list(tmp_path.rglob("*.safetensors"))
    repository.commit(files | {"config.json": files["config.json"] + b"\n"})
    (tmp_path / "again.yaml").write_text(sections(out)["Config"])
    again = dry_run(cli, f"--config={tmp_path / 'again.yaml'}", "actor.model.path=acme/tiny")
    assert rows(again["Models"])[1] == row


def test_weights_of_the_hub_are_checked_by_a_start_alone(cli, hub, model, tmp_path, monkeypatch):
    """A dry run does not download them."""
    monkeypatch.chdir(tmp_path)
    other = tiny_llama(tmp_path / "other", intermediate=64)
    spoilt = files_of(model) | {"config.json": (other / "config.json").read_bytes()}
    hub.add("acme/spoilt").commit(spoilt)
    assert cli("actor.model.path=acme/spoilt", "--dry-run")[0] == 0
    code, out, err = cli("actor.model.path=acme/spoilt")
    assert (code, out) == (2, "") and "actor.model.path: " in err and "of shape [64, 32], got [48, 32]" in err
