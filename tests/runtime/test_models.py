"""Where models are: directories go before the Hub, and what the Hub refuses is said with what to do."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date

import pytest

from realrl.api.config import ModelConfig, TrainedModelConfig
from realrl.api.configure import build_config, dump_config
from realrl.api.data import DataConfig, DataSetConfig
from realrl.api.evals import EvalConfig
from realrl.recipes.gen import GEN
from realrl.recipes.ppo_math import PPO_MATH, PPOMathConfig
from realrl.runtime.master.recorder import run_directory
from realrl.runtime.model_directories import bytes_to_download, hub_repo, resolve_model
from realrl.runtime.pins import commits, pin
from realrl.runtime.run_files import CONFIG
from tests.hub import Hub, files_of
from tests.tiny import tiny_llama

CODE = {"modeling_tiny.py": b"1 / 0", "pytorch_model.bin": b"pickle", "consolidated.safetensors": b"twice"}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, bytes]:
    """Of a tiny model, and of what else such repositories have."""
    return files_of(tiny_llama(tmp_path_factory.mktemp("model"))) | CODE


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """An empty working directory."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def test_only_what_is_read_is_downloaded(hub, elsewhere, files):
    """Never code, pickles or a second copy; the weights only when they are asked for, and nothing twice."""
    commit = hub.add("acme/tiny").commit(files)
    directory = resolve_model("acme/tiny", weights=False)
    assert directory.name == commit
    assert bytes_to_download(hub_repo("acme/tiny"), commit) == len(files["model.safetensors"])
    assert not (directory / "model.safetensors").exists()
    assert resolve_model("acme/tiny", commit) == directory
    assert files_of(directory) == {name: content for name, content in files.items() if name not in CODE}
    hub.requests.clear()
    assert resolve_model("acme/tiny", commit) == directory
    assert not hub.requests


def test_shards_are_those_that_the_index_names(hub, elsewhere, files):
    index = json.dumps({"weight_map": {"a": "part-1.safetensors", "b": "part-2.safetensors"}}).encode()
    whole = {name: content for name, content in files.items() if name != "model.safetensors"}
    shards = {"part-1.safetensors": b"1", "part-2.safetensors": b"2", "part-3.safetensors": b"3"}
    hub.add("acme/shards").commit(whole | shards | {"model.safetensors.index.json": index})
    found = {path.name for path in resolve_model("acme/shards").glob("*.safetensors")}
    assert found == {"part-1.safetensors", "part-2.safetensors"}


def test_a_directory_of_that_name_goes_before_the_hub(hub, elsewhere, files):
    hub.add("acme/tiny").commit(files)
    local = elsewhere / "acme" / "tiny"
    local.mkdir(parents=True)
    (local / "config.json").write_text("{}")
    assert resolve_model("acme/tiny").resolve() == local
    assert not hub.requests
    with pytest.raises(ValueError, match="no model of the Hugging Face Hub here.*leave `commit` out"):
        resolve_model("acme/tiny", "0" * 40)


@pytest.mark.parametrize(
    ("path", "token", "said"),
    [
        ("acme/none", None, "no model of that name, or a private one.*HF_TOKEN.*no directory here"),
        ("acme/none", "guest", "no model of that name, or a private one that the account of your token"),
        ("acme/private", None, "no model of that name, or a private one.*HF_TOKEN"),
        ("acme/gated", None, "it is gated; ask for access at http.*/acme/gated, then set HF_TOKEN"),
        ("acme/gated", "guest", "gated, and the account of your token has no access to it; ask for access"),
        ("acme/tiny", "wrong", "does not accept your token"),
        ("acme/tiny@v9", None, "no revision 'v9' of it"),
        ("acme/pickles", None, "it has no model.safetensors; .*never from pickles"),
        ("acme/adapter", None, "this is an adapter of acme/tiny "),
        ("acme/ti--ny", None, "it is no name that the Hugging Face Hub allows"),
    ],
)
def test_what_the_hub_refuses_is_said(hub, elsewhere, monkeypatch, files, path, token, said):
    described = {name: content for name, content in files.items() if not name.endswith("safetensors")}
    hub.add("acme/tiny").commit(files)
    hub.add("acme/gated", gated=True).commit(files)
    hub.add("acme/private", private=True).commit(files)
    hub.add("acme/pickles").commit(described)
    hub.add("acme/adapter").commit({"adapter_config.json": b'{"base_model_name_or_path": "acme/tiny"}'})
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(ValueError, match=f"^{path}: .*{said}"):
        resolve_model(path)


def test_a_member_gets_what_is_gated_and_private(hub, elsewhere, monkeypatch, files):
    """The server itself fails where the token goes to the host of the large files."""
    monkeypatch.setenv("HF_TOKEN", "member")
    for name, traits in (("acme/gated", {"gated": True}), ("acme/private", {"private": True})):
        hub.add(name, **traits).commit(files)
        assert (resolve_model(name) / "model.safetensors").is_file()


def _break_offline(hub: Hub, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def _break_network(hub: Hub, monkeypatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")


def _break_server(hub: Hub, monkeypatch) -> None:
    hub.status = 503


def _silence(hub: Hub, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "1")
    hub.silent_s = 1.2


@pytest.mark.parametrize(
    ("fail", "said"),
    [
        (_break_offline, "HF_HUB_OFFLINE is set, and the cache .* does not have all of it"),
        (_break_network, "the connection to http://127.0.0.1:9 failed .*; check the network"),
        (_break_server, "failed with HTTP status 503; start again later"),
        (_silence, "did not answer in time .HF_HUB_ETAG_TIMEOUT"),
    ],
)
def test_without_the_hub_its_cache_does(hub, elsewhere, monkeypatch, capfd, files, fail, said):
    """It knows the branch's commit too; that this is of an earlier day is said. All else is refused."""
    commit = hub.add("acme/tiny").commit(files)
    whole = resolve_model("acme/tiny")
    capfd.readouterr()
    fail(hub, monkeypatch)
    assert resolve_model("acme/tiny") == whole
    assert whole.name == commit
    assert ("out of reach: taking commit" in capfd.readouterr().err) == (fail is not _break_offline)
    with pytest.raises(ValueError, match=said):
        resolve_model("acme/other")


def test_a_part_of_a_model_in_the_cache_does_not_do(hub, elsewhere, monkeypatch, files):
    commit = hub.add("acme/tiny").commit(files)
    resolve_model("acme/tiny", weights=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for known in (None, commit):
        with pytest.raises(
            ValueError, match="HF_HUB_OFFLINE is set, and the cache .* does not have all of it"
        ):
            resolve_model("acme/tiny", known)


@pytest.fixture
def config(tmp_path):
    given = ["model.path=acme/tiny", f"runs_dir={tmp_path / 'runs'}", "data.path=sums"]
    return build_config(GEN.default_config, None, given, recipe="gen")


def test_a_run_keeps_the_commit_that_it_began_with(hub, elsewhere, files, config):
    """A branch that moves matters neither to its workers nor to a resume; a new run gets the new commit."""
    repository = hub.add("acme/tiny")
    first = repository.commit(files)
    pinned = pin(GEN, config)
    assert commits(pinned) == {"model.commit": first}
    assert pinned.model.path == "acme/tiny"

    second = repository.commit(files | {"config.json": files["config.json"] + b"\n"})
    directory = run_directory(config)
    directory.mkdir(parents=True)
    (directory / CONFIG).write_text(dump_config(pinned, recipe="gen"))
    assert pin(GEN, config) == pinned
    assert resolve_model(pinned.model.path, pinned.model.commit).name == first
    assert commits(pin(GEN, replace(config, trial="another"))) == {"model.commit": second}


def test_sets_keep_their_commits_too(hub, elsewhere, files, config):
    """Each one has its own, which is found by its name; what is no dataset of the Hub has none."""
    hub.add("acme/tiny").commit(files)
    repository = hub.add("acme/rows", "dataset")
    first = repository.commit({"README.md": b"1"})
    sets = {"hub": DataSetConfig(path="hf:acme/rows"), "own": DataSetConfig(path="sums")}
    config = replace(config, data=DataConfig(sets=sets))
    pinned = pin(GEN, config)
    assert {key: found for key, found in commits(pinned).items() if key != "model.commit"} == {
        "data.sets.hub.commit": first
    }
    repository.commit({"README.md": b"2"})
    directory = run_directory(config)
    directory.mkdir(parents=True)
    (directory / CONFIG).write_text(dump_config(pinned, recipe="gen"))
    assert pin(GEN, config) == pinned

    sets["own"] = replace(sets["own"], commit="1" * 40)
    with pytest.raises(ValueError, match=r"^data\.sets\.own\.commit: data\.sets\.own\.path is no dataset of"):
        pin(GEN, replace(config, data=DataConfig(sets=sets)))
    sets["own"] = DataSetConfig(path="hf:acme/none")
    with pytest.raises(ValueError, match=r"^data\.sets\.own\.path: hf:acme/none: .*no dataset of that name"):
        pin(GEN, replace(config, data=DataConfig(sets=sets), trial="another"))


def test_sets_to_evaluate_on_get_commits_and_the_day(hub, elsewhere, files, tmp_path):
    """The day, where a chat template is theirs alone."""
    first = hub.add("acme/rows", "dataset").commit({"README.md": b"1"})
    evals = {"hub": EvalConfig(path="hf:acme/rows"), "own": EvalConfig(path="sums", template="chat")}
    actor = TrainedModelConfig(model=ModelConfig(path=str(elsewhere)))
    data = DataConfig(path="sums", template="plain")
    config = PPOMathConfig(runs_dir=str(tmp_path), actor=actor, data=data, evals=evals)
    pinned = pin(PPO_MATH, config)
    assert commits(pinned) == {"evals.hub.commit": first}
    assert pinned.data == replace(data, date=date.today().isoformat())
    assert pin(PPO_MATH, replace(config, evals={"hub": evals["hub"]})).data == data
    wrong = {"own": replace(evals["own"], commit="1" * 40)}
    with pytest.raises(ValueError, match=r"^evals\.own\.commit: evals\.own\.path is no dataset of the"):
        pin(PPO_MATH, replace(config, evals=wrong))


def test_a_commit_that_is_given_is_taken(hub, elsewhere, files, config):
    given = replace(config, model=replace(config.model, commit="1" * 40))
    pinned = pin(GEN, given)
    assert replace(pinned, data=given.data) == given
    assert not hub.requests


def test_a_commit_of_rows_that_are_not_of_the_hub_is_refused(config):
    model, data = replace(config.model, commit="1" * 40), replace(config.data, commit="1" * 40)
    with pytest.raises(ValueError, match=r"^data\.commit: data\.path is no dataset of the Hugging Face Hub"):
        pin(GEN, replace(config, model=model, data=data))


def test_the_message_names_the_key(hub, elsewhere, config):
    with pytest.raises(ValueError, match=r"^model\.path: acme/tiny: .*no model of that name"):
        pin(GEN, config)


def test_a_run_in_place_of_its_model_is_refused_with_the_latest_of_its_models(elsewhere):
    """As one would give it to an evaluation: the run, its checkpoints, or one of them."""
    for place in ("runs/own/trial/checkpoints/step-1/actor", "runs/own/trial/checkpoints/step-2/actor"):
        tiny_llama(elsewhere / place)
    for given in ("runs/own/trial", "runs/own/trial/checkpoints", "runs/own/trial/checkpoints/step-2"):
        with pytest.raises(ValueError, match="did you mean runs/own/trial/checkpoints/step-2/actor"):
            resolve_model(given)
    (elsewhere / "empty").mkdir()
    with pytest.raises(
        ValueError, match="it has no config.json; give one, or a model of the Hugging Face Hub"
    ):
        resolve_model("empty")
