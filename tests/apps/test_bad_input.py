"""Bad input ends with exit code 2 and one plain message, before any worker starts."""

import json
import shutil

import pytest

from realrl.apps.quickstart import main

ROW = {"query_id": "1", "prompt": "1 + 1 =", "solutions": ["2"]}


def refused(result) -> str:
    """The message of a command that was refused."""
    code, out, err = result
    assert code == 2 and out == ""
    assert err.startswith("realrl: error: ") and err.count("\n") == 1, err
    return err


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("batch_sise=3", "did you mean batch_size?"),
        ("batch_size=many", "batch_size: expected a whole number, got 'many'"),
        ("allocation=*:q2", "allocation: layout 'q2'"),
        ("placements.actor_gen={ranks: [0], tp: 2}", "placements.actor_gen: layout p1d1t2 needs 2 ranks"),
        ("allocation=*:t3", "allocation: actor_gen: t3 must divide the model's 4 attention heads"),
        ("allocation=actor_train:p5,*:d1", "allocation: actor_train: p5 needs at least 5 layers"),
        ("allocation=*:d9", "allocation: actor_gen: d9 needs at least 9 prompts, batch_size=8 gives 8"),
        ("allocation=*:d1,actor_train:d2", "'actor_train:d2' comes too late"),
        ("actor.model.path=nowhere", "actor.model.path: nowhere"),
        ("critic.model.path=nowhere", "critic.model.path: nowhere"),
        ("data.path=nowhere.jsonl", "nowhere.jsonl"),
        ("data.eval_path=nowhere.jsonl", "nowhere.jsonl"),
        (
            "generation.max_new_tokens=256",
            "that and generation.max_new_tokens=256 exceeds the 256 tokens",
        ),
        ("--no-such-option", "unrecognized arguments: --no-such-option"),
        ("--config=nowhere.yaml", "nowhere.yaml: cannot be read"),
    ],
)
def test_refused_with_a_message(cli, override, message):
    assert message in refused(cli(override))


def test_more_ranks_than_samples_in_a_minibatch(cli):
    """A rank without samples in some mini-batch would have nothing to train on."""
    overrides = ("ppo.group_size=2", "ppo.num_minibatches=8", "allocation=actor_train:d3,*:d1")
    assert "d3 needs at least 3 samples in each of 8 mini-batches" in refused(cli(*overrides))


def test_ranks_without_a_call(cli):
    message = refused(cli("placements.reward={ranks: [5]}"))
    assert "3 of the ranks 0 to 5 run no call (first: 2)" in message


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([json.dumps(ROW), "{oops"], "rows.jsonl:2"),
        ([json.dumps({**ROW, "solutions": 2})], "rows.jsonl:1"),
        ([json.dumps({"query_id": "1", "prompt": "1"})], "rows.jsonl:1"),
        ([json.dumps({**ROW, "prompt": "1 + " * 100})], "rows.jsonl:1"),
        ([], "rows.jsonl"),
    ],
)
def test_bad_data(cli, tmp_path, lines, message):
    """Malformed lines and too long prompts are named by file and line; an empty file is refused."""
    (tmp_path / "rows.jsonl").write_text("".join(line + "\n" for line in lines))
    assert message in refused(cli(f"data.path={tmp_path / 'rows.jsonl'}"))


def broken(model, directory, name, text):
    """A copy of the model with one file written over, or left out."""
    shutil.copytree(model, directory)
    (directory / name).unlink()
    if text is not None:
        (directory / name).write_text(text)
    return directory


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.json", None, "actor.model.path: "),
        ("config.json", "{", "its config.json is not JSON"),
        ("config.json", '{"model_type": "llama"}', "its config.json lacks"),
        ("config.json", '{"model_type": "bert"}', "model_type must be 'llama', got 'bert'"),
        ("model.safetensors", None, "actor.model.path: "),
        ("model.safetensors", "rubbish", "actor.model.path: "),
        ("tokenizer.json", "{", "its tokenizer cannot be loaded"),
    ],
)
def test_a_broken_model_directory(cli, model, tmp_path, name, text, message):
    directory = broken(model, tmp_path / "broken", name, text)
    assert message in refused(cli(f"actor.model.path={directory}"))


def test_a_checkpoint_that_lacks_a_weight(cli, model, tmp_path):
    directory = tmp_path / "deeper"
    shutil.copytree(model, directory)
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 5}))
    assert "model.layers.4." in refused(cli(f"actor.model.path={directory}"))


def test_models_with_different_vocabularies(cli, tmp_path):
    from tests.tiny import tiny_llama

    other = tiny_llama(tmp_path / "other", vocab=80)
    assert "its vocabulary has 80 tokens, that of actor.model.path 67" in refused(cli(f"ref.path={other}"))


def test_outputs_that_cannot_be_written(cli, tmp_path):
    """Also for one who may write everywhere: a file stands where the directory should."""
    (tmp_path / "file").write_text("")
    assert "runs_dir: cannot write to" in refused(cli(f"runs_dir={tmp_path / 'file'}"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "recipe: expected one of ppo-math, sft, got none"),
        (["ppo-maths"], "did you mean ppo-math?"),
        (["batch_size=2"], "recipe: expected one of"),
    ],
)
def test_a_recipe_that_is_none(capsys, arguments, message):
    assert message in refused((main(arguments), *capsys.readouterr()))
