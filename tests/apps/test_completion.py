"""Completion, as bash has it after loading the script."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from realrl.apps.main import main
from realrl.apps.verbs import SUBMIT, VERBS
from realrl.recipes import RECIPES

ASK = r"""
eval "$(realrl completion bash)"
COMP_WORDBREAKS=$' \t\n"\'><=;|&(:'
while IFS= read -r COMP_LINE; do
    COMPREPLY=() COMP_POINT=${#COMP_LINE} COMP_TYPE=9
    _python_argcomplete realrl
    printf '%s|' "${COMPREPLY[@]}"
    printf '\n'
done
"""
CASES = {
    "realrl ": {"--help", "--version", SUBMIT, *VERBS, *RECIPES},
    "realrl sta": {"status", "stacks"},
    "realrl grpo batch_s": {"batch_size="},
    "realrl submit gr": {"grpo "},
    "realrl train dr": {"dr-grpo "},
    "realrl grpo num_steps=3 --config own.yaml ppo.kl_": {
        *("ppo.kl_coef=", "ppo.kl_estimator=", "ppo.kl_clip=", "ppo.kl_weighted="),
        *("ppo.kl_target=", "ppo.kl_horizon="),
    },
    "realrl --config own.yaml beta": {"beta="},
    "realrl grpo --dry-run actor.model.dtype=": {"float32", "bfloat16"},
    "realrl grpo generation.interruptible=t": {"true "},
    "realrl grpo --config o": {"own.yaml "},
    "realrl grpo data.path=o": {"other.jsonl", "own.yaml"},
    "realrl eval --data a --engine=v": {"vllm "},
    "realrl eval --data-": {"--data-dir "},
    "realrl status su": {"sums/trial "},
    "realrl completion f": {"fish "},
}


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
def test_bash_completes_commands_recipes_keys_values_and_files(tmp_path):
    """Also behind an option in the midst of keys, and for a recipe that the file names."""
    (tmp_path / "realrl").write_text(f'#!/bin/sh\nexec {sys.executable} -m realrl "$@"\n')
    (tmp_path / "realrl").chmod(0o755)
    (tmp_path / "own.yaml").write_text("recipe: dpo\n")
    (tmp_path / "other.jsonl").write_text("")
    (tmp_path / "runs" / "sums" / "trial").mkdir(parents=True)
    (tmp_path / "runs" / "sums" / "trial" / "status.json").write_text("")
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(root)}
    done = subprocess.run(
        ["bash", "--norc", "-c", ASK],
        input="".join(f"{line}\n" for line in CASES),
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        env=environment,
    )
    assert not done.stderr
    found = [set(line.split("|")[:-1]) for line in done.stdout.splitlines()]
    assert dict(zip(CASES, found, strict=True)) == CASES


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script(capsys, shell):
    """One that the shell itself can read, where it is installed."""
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "realrl" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True, timeout=60)
