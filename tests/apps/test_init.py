"""`realrl init`: a file that says all that a run must be told, and changes nothing else."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from realrl.api.config_keys import config_keys
from realrl.api.configure import build_config
from realrl.apps.init import FIRST, OFTEN
from realrl.apps.main import main
from realrl.apps.manual import field_docs
from realrl.recipes import RECIPES


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("recipe", RECIPES)
def test_its_file_has_the_recipe_s_defaults(folder, capsys, recipe):
    """Loaded as a run loads it; also once every comment is gone."""
    assert main(["init", "own", "--recipe", recipe]) == 0
    text = (folder / "own.yaml").read_text(encoding="utf-8")
    expected = replace(RECIPES[recipe].default_config, experiment="own")
    assert build_config(RECIPES[recipe].default_config, folder / "own.yaml", recipe=recipe) == expected
    bare = re.sub(r"^ *#.*\n", "", text, flags=re.M)
    assert build_config(RECIPES[recipe].default_config, bare, recipe=recipe) == expected
    assert max(map(len, text.splitlines())) <= 110


def test_its_options_set_the_model_and_the_data(folder, capsys):
    """Whatever the recipe calls its model."""
    for recipe, model_of in (("ppo", lambda c: c.actor.model), ("dpo", lambda c: c.model)):
        name = f"{recipe}.yml"
        assert main(["init", name, "--recipe", recipe, "--model", "1e5", "--data", "a b.jsonl"]) == 0
        assert capsys.readouterr().out == f"wrote {name}; start: realrl --config {name}\n"
        config = build_config(RECIPES[recipe].default_config, folder / name, recipe=recipe)
        assert (model_of(config).path, config.data.path, config.experiment) == ("1e5", "a b.jsonl", recipe)


def comments_of(text: str) -> dict[str, str]:
    """The comment above each dotted key, its lines joined."""
    found, comment, above = {}, [], []
    for line in text.splitlines():
        word, depth = line.strip(), (len(line) - len(line.lstrip())) // 2
        if word.startswith("#"):
            comment.append(word.removeprefix("#").strip())
        elif word and not word.startswith("-"):
            above = [*above[:depth], word.partition(":")[0]]
            found[".".join(above)] = " ".join(comment)
        if not word.startswith("#"):
            comment = []
    return found


def test_each_key_stands_under_its_docstring(folder, capsys):
    """The comment above a key is what the config's source says of it, with its default."""
    assert main(["init", "own.yaml"]) == 0
    found = comments_of((folder / "own.yaml").read_text(encoding="utf-8"))
    config = RECIPES["grpo"].default_config
    named = {key.path: key for key in config_keys(type(config))}
    shown = [named[path] for path in (*FIRST, *OFTEN) if path in named]
    assert len(shown) > 15
    for key in shown:
        doc = " ".join(field_docs(key.owner).get(key.name, "").split())
        assert found[key.path].startswith(doc) and "default " in found[key.path]


def test_every_key_that_it_knows_is_some_recipe_s():
    """So that a key that gets another name is not lost silently."""
    known = {key.path for entry in RECIPES.values() for key in config_keys(type(entry.default_config))}
    assert set(FIRST) | set(OFTEN) <= known


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["there"], "NAME: there.yaml exists and stays as it is"),
        (["no/folder/own"], "NAME: cannot write no/folder/own.yaml (No such file or directory)"),
        (["own", "--recipe", "gpo"], "did you mean gspo or grpo or gmpo?"),
        (["own", "--modle", "x"], "--modle: unknown option; did you mean --model?"),
        (["x" * 101], "experiment must be a plain folder name of at most 100 bytes"),
    ],
)
def test_what_it_refuses(folder, capsys, words, message):
    (folder / "there.yaml").write_text("mine")
    assert main(["init", *words]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["there.yaml"]
    assert (folder / "there.yaml").read_text() == "mine"


def test_a_run_starts_from_its_file(folder, model, monkeypatch, capsys):
    """With the model and the data named on its command line, all checks of a start pass."""
    seen = []
    monkeypatch.setattr("realrl.runtime.run.run", lambda *arguments, **_: seen.append(arguments))
    assert main(["init", "own", "--model", str(model), "--data", "sums"]) == 0
    given = ["actor.model.dtype=float32", "generation.max_new_tokens=8", "data.template=plain"]
    assert main(["--config", "own.yaml", *given]) == 0, capsys.readouterr().err
    assert [recipe.name for recipe, *_ in seen] == ["grpo"]
