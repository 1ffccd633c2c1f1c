"""The command `realrl`: what its first word names, its help, and how quickly it answers."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from realrl import __version__
from realrl.apps.command_line import BAD_INPUT, run_command
from realrl.apps.main import main, overview
from realrl.apps.verbs import GENERATING, GROUPS, SUBMIT, VERBS
from realrl.recipes import RECIPES

ROOT = Path(__file__).parents[2]
LIGHT = """
import contextlib, io, os, sys
from realrl.apps.main import main
for line in sys.stdin.read().splitlines():
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            code = main(line.split())
        except SystemExit as end:
            code = end.code
    print(code, [name for name in ("torch", "transformers", "numpy") if name in sys.modules], line)
"""


def test_without_arguments_it_shows_a_help_of_one_screen(capsys):
    """Every command and every recipe is in it; `--help` is the same."""
    assert main([]) == 0
    out, err = capsys.readouterr()
    assert out == overview() and not err
    assert 24 <= len(out.splitlines()) <= 31 and max(map(len, out.splitlines())) <= 110
    for name, verb in VERBS.items():
        assert re.search(rf"^  {name} +{re.escape(verb.does)}$", out, flags=re.M)
    assert f"recipes {', '.join(RECIPES)} `realrl" in " ".join(out.split())
    assert main(["--help"]) == 0 and capsys.readouterr().out == out


def test_the_groups_of_the_help_are_the_commands():
    assert [name for names in GROUPS.values() for name in names if name != GENERATING] == list(VERBS)


def test_its_version_is_the_package_s(capsys):
    for words in (["--version"], ["-V"], ["version"]):
        assert main(words) == 0
        assert capsys.readouterr().out == f"realrl {__version__}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["stauts", "x"], "'stauts': expected a command or a recipe; did you mean status?"),
        (["gpro"], "'gpro': expected a command or a recipe; did you mean gspo or grpo or gmpo?"),
        (["xyzzy"], "'xyzzy': expected a command or a recipe; `realrl --help` lists both"),
        (["my.yaml"], "a file is given as --config my.yaml"),
        (["train", "gpro"], "got 'gpro'; did you mean gspo or grpo or gmpo?"),
        (["eval", "--modle", "x"], "--modle: unknown option; did you mean --model? See `realrl eval --help`"),
        (["eval", "--n", "1", "--n=2"], "--n: given 2 times; give it once; see `realrl eval --help`"),
        (
            ["eval"],
            "arguments are required: --model, --data, --output; see `realrl eval --help`",
        ),
        (["grpo", "--config", "a", "--config", "b"], "--config: given 2 times"),
        (["grpo", "ppo.kl_ceof=1"], "ppo.kl_ceof: unknown key; did you mean ppo.kl_coef (a number)?"),
        (["grpo", "ppo.kl=3"], "ppo.kl: unknown key; did you mean ppo.kl_coef (a number)?"),
        (["sft", "model_name=x"], "model_name: unknown key; did you mean model.path (text)?"),
        (["grpo", "data.fields={prmpt: q}"], "ended; did you mean prompt?"),
        (
            ["grpo", "--num_steps=3"],
            "--num_steps: unknown option; keys have no dashes: did you mean num",
        ),
        (["grpo", "--batch-size", "3"], "did you mean batch_size=VALUE?"),
        (["grpo", "--learning_rate=3"], "did you mean actor.optimizer.lr=VALUE?"),
        (["grpo", "--help", "xyzzy"], "--help xyzzy: no key of grpo has this in its path"),
    ],
)
def test_a_word_that_is_unknown_is_refused_with_its_nearest(capsys, words, message):
    """In one line, with exit code 2; a list of every key is not in it."""
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith("realrl: error: ") and err.count("\n") == 1
    assert message in err and len(err) < 250


def test_the_keys_of_a_recipe_can_be_searched(capsys):
    """`--help WORD` shows the keys that have it in their path, with this recipe's defaults, and no others."""
    assert main(["grpo", "--help", "kl_"]) == 0
    paths = re.findall(r"^  (\S+): ", capsys.readouterr().out, flags=re.M)
    kinds = ("clip", "coef", "estimator", "horizon", "target", "weighted")
    assert sorted(paths) == [f"ppo.kl_{kind}" for kind in kinds]


def test_an_override_that_is_replaced_is_mentioned(cli):
    """A key that is given twice counts once, as scripts that pass on their arguments need; it is said."""
    code, _, err = cli("num_steps=7", "--dry-run", "num_steps=5", "critic.clip_eps=0.3", "critic=null")
    assert code == 0
    assert err.splitlines() == [
        "realrl: note: num_steps=7 is replaced by num_steps=5, which comes later on the command line",
        "realrl: note: critic.clip_eps=0.3 is replaced by critic=null, which comes later on the command line",
    ]


def test_sigterm_ends_a_command_with_one_line():
    """Also before a run listens, whatever is imported then; the handler before is there again afterwards."""
    code = (
        "import os, signal, sys; from realrl.apps.command_line import run_command\n"
        "run_command(lambda _: 0, [])\n"
        "assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL\n"
        "run_command(lambda _: os.kill(os.getpid(), signal.SIGTERM) or sys.exit(5), [])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (143, "")
    assert done.stderr == "realrl: error: stopped by SIGTERM\n"


def test_what_needs_no_torch_does_not_import_it(tmp_path):
    """Help, completion, messages about words and keys: in one process, nothing heavy is imported by any."""
    words = [*VERBS, *RECIPES]
    lines = ["", *(f"{word} --help" for word in words), "version", "completion bash", "stauts"]
    lines += ["grpo batch_sise=3", "grpo batch_size=many", "status nowhere", "stacks nowhere"]
    done = subprocess.run(
        [sys.executable, "-c", LIGHT], input="\n".join(lines), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    found = [line.split(" ", 1) for line in done.stdout.splitlines()]
    assert [rest for _, rest in found] == [f"[] {line}" for line in lines]
    assert [code for code, _ in found] == ["0"] * (len(lines) - 5) + ["2"] * 5


def test_python_m_realrl_is_the_command():
    done = subprocess.run([sys.executable, "-m", "realrl", "version"], capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, f"realrl {__version__}\n".encode())


def test_a_package_that_is_missing_is_named(capsys, monkeypatch):
    """As in an installation without its dependencies; a missing module of realrl's own is a defect."""

    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr("realrl.apps.verbs.import_module", lambda _: missing("msgspec._core"))
    assert main(["doctor"]) == 1
    assert "error: msgspec: this package is not installed" in capsys.readouterr().err
    monkeypatch.setattr("realrl.apps.verbs.import_module", lambda _: missing("realrl.apps.nothing"))
    with pytest.raises(ModuleNotFoundError):
        main(["doctor"])


def test_the_page_on_commands_has_them_all():
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    shown = re.findall(r"`realrl (\w+)", text.partition("## Start a run")[0])
    assert {*VERBS, GENERATING, SUBMIT} <= set(shown)


def test_a_machine_without_a_temporary_folder_is_told_what_to_set(capsys, monkeypatch):
    """Libraries ask for one as they are imported."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/proc/no"])
    assert run_command(lambda words: len(tempfile.gettempdir()), []) == BAD_INPUT
    assert re.search(r"No usable temporary directory .*; set TMPDIR to ", capsys.readouterr().err)
