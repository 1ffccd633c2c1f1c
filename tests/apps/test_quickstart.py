"""The command line: exit codes, the manual, and that what a run gets is what was asked for."""

import dataclasses
import io
import re

import pytest
from rich.console import Console

from realrl.api.config import OptimizerConfig
from realrl.api.config_keys import config_keys
from realrl.apps import quickstart
from realrl.apps.manual import field_docs, manual
from realrl.recipes import RECIPES
from realrl.runtime.failure import RunFailed, RunRefused, Terminated
from realrl.runtime.master.summary import Summary, print_summary


def test_a_run_gets_the_config_and_the_plan(cli, monkeypatch, tmp_path):
    """File, then overrides, wherever the options stand; the plan covers training and evaluation."""
    (tmp_path / "run.yaml").write_text("recipe: ppo-math\nbatch_size: 4\nnum_steps: 3\n")
    seen = []
    monkeypatch.setattr("realrl.runtime.run.run", lambda *arguments, **_: seen.append(arguments) or {})
    code, out, err = cli("num_steps=5", "--config", str(tmp_path / "run.yaml"), "allocation=gen.d2+p2")
    assert (code, out, err) == (0, "", "")
    ((recipe, config, plan, _),) = seen
    assert (recipe.name, config.batch_size, config.num_steps) == ("ppo-math", 4, 5)
    assert {str(plan[call]) for call in plan.placements} == {"p1d2t1@[0-1]", "p1d2t1@[2-3]", "p2d1t1@[2-3]"}
    assert not list(tmp_path.glob("runs/*/*")), "the run's own directory is the master's to make"


@pytest.mark.parametrize("words", [[], ["submit"], ["sft"], ["submit", "sft"]])
def test_a_file_names_its_recipe(capsys, tmp_path, words):
    """Also before other overrides, and after `submit`; a name on the command line is the same."""
    (tmp_path / "run.yaml").write_text("recipe: sft\nnum_steps: many\n")
    code = quickstart.main([*words, "batch_size=3", "--config", str(tmp_path / "run.yaml")])
    assert code == 2
    assert "num_steps: expected a whole number, got 'many'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("raised", "code", "message"),
    [
        (RunFailed("rank 1 died in actor_gen of step 2"), 1, "rank 1 died in actor_gen of step 2"),
        (RunRefused("trial has a master at work"), 2, "trial has a master at work"),
        (KeyboardInterrupt(), 130, "stopped by Ctrl-C"),
        (KeyboardInterrupt("stopped by Ctrl-C; it resumes"), 130, "stopped by Ctrl-C; it resumes"),
        (Terminated("stopped by SIGTERM; it resumes"), 143, "stopped by SIGTERM; it resumes"),
    ],
)
def test_how_a_run_ends_badly(cli, monkeypatch, raised, code, message):
    def run(*_, **__):
        raise raised

    monkeypatch.setattr("realrl.runtime.run.run", run)
    assert cli() == (code, "", f"realrl: error: {message}\n")


def test_our_own_mistakes_are_not_taken_for_bad_input(cli, monkeypatch):
    """A ValueError inside a run is a defect: it keeps its traceback."""

    def run(*_, **__):
        raise ValueError("a defect")

    monkeypatch.setattr("realrl.runtime.run.run", run)
    with pytest.raises(ValueError, match="a defect"):
        cli()


def test_help_lists_recipes_and_every_key_with_its_docstring(capsys):
    assert quickstart.main(["--help"]) == 0
    text = capsys.readouterr().out
    for name, recipe in RECIPES.items():
        assert f"keys of {name}:" in text
        for key in config_keys(type(recipe.default_config)):
            assert f"  {key.path}: " in text


def test_help_says_in_what_a_variant_differs(capsys):
    """From what all recipes share: each key of its own, and each that has another default there."""
    shared, _, own = manual([RECIPES["dapo"], RECIPES["sft"]]).partition("keys of dapo:\n")
    own, _, _ = own.partition("keys of sft:\n")
    assert "  ppo.group_size: a whole number, default 8\n" in shared
    shown = re.findall(r"^  (\S+): .*, default (.*)$", own, flags=re.M)
    assert dict(shown) == {
        "ppo.group_size": "16",
        "ppo.max_draws": "10",
        "ppo.clip_eps": "0.2",
        "ppo.clip_eps_high": "0.28",
        "ppo.dual_clip": "0.0",
        "ppo.aggregation": "'token'",
        "ppo.advantage_scale": "'group_std'",
        "ppo.std": "'population'",
        "scores.wrong": "-1.0",
    }


def test_help_has_the_keys_docstrings(capsys):
    assert quickstart.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert "AdamW" not in field_docs(OptimizerConfig).values()
    assert field_docs(OptimizerConfig)["lr"] in text


def test_help_of_one_recipe_shows_its_defaults_alone():
    recipe = RECIPES["sft"]
    config = dataclasses.replace(recipe.default_config, optimizer=OptimizerConfig(lr=0.125))
    text = manual([dataclasses.replace(recipe, default_config=config)])
    assert "optimizer.lr: a number, default 0.125" in text and "ppo.clip_eps" not in text


def test_the_summarys_table_shows_what_both_ends_have():
    """A mean of nothing is at neither."""
    text = io.StringIO()
    ends = {
        "before": {"reward": 0.0},
        "after": {"reward": 0.5, "greedy_accuracy": 1.0, "response_tokens": 3.0},
    }
    summary = Summary(0.0).result(experiment="e", trial="t", checkpoint="c")
    print_summary({**summary, "eval": ends}, Console(file=text, width=100))
    assert "held-out reward" in text.getvalue() and "0 -> 0.5" in text.getvalue()
    assert "greedy_accuracy" not in text.getvalue() and "response_tokens" not in text.getvalue()


def test_the_summarys_table_leaves_housekeeping_out():
    """`summary.json` has it."""
    text = io.StringIO()
    summary = Summary(0.0).result(experiment="e", trial="t", checkpoint="c")
    print_summary({**summary, "phases_s": {"train": 1.0, "forget": 2.0}}, Console(file=text, width=100))
    assert "time in train" in text.getvalue() and "forget" not in text.getvalue()
