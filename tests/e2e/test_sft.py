"""Supervised fine-tuning from the command line: it learns, and the plan does not change what it learns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import Tensor

from tests.command_line import run_recipe
from tests.tiny import tiny_llama

pytestmark = pytest.mark.slow


def train(folder: Path, allocation: str) -> tuple[list[float], dict]:
    """The loss of each step, and the summary."""
    trial = allocation.replace(":", "-").replace(",", "-").replace("*", "all")
    overrides = {
        "model.path": folder / "model",
        "model.dtype": "float32",
        "data.path": "sums",
        "optimizer.lr": 3e-3,
        "num_steps": 12,
        "eval_every": 5,
        "save_every": 5,
        "max_tokens_per_microbatch": 100,
        "runs_dir": folder,
        "allocation": allocation,
        "trial": trial,
    }
    run_recipe("sft", overrides)
    run = folder / "sft" / trial
    losses = [row["loss"] for row in metrics(run) if row["kind"] == "train"]
    return losses, json.loads((run / "summary.json").read_text())


def metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_held_out_loss_falls_alike_under_two_plans(tmp_path):
    tiny_llama(tmp_path / "model")
    single, summary = train(tmp_path, "*:d1")
    assert summary["eval"]["after"]["loss"] < 0.5 * summary["eval"]["before"]["loss"]
    split, summary = train(tmp_path, "validate:d2,*:p2")
    assert len(single) == 12
    assert split == pytest.approx(single, rel=1e-4)
    check_best(Path(summary["best"]["checkpoint"]), summary["best"])


def check_best(checkpoint: Path, said: dict) -> None:
    """It has the weights of the step whose evaluation had the least loss."""
    losses = {row["step"]: row["loss"] for row in metrics(checkpoint.parents[1]) if row["kind"] == "eval"}
    best = min(losses, key=losses.get)
    assert set(losses) == {0, 5, 10, 12} and (said["step"], said["loss"]) == (best, losses[best])
    found, expected = weights(checkpoint), weights(checkpoint.with_name(f"step-{best}"))
    assert found.keys() == expected.keys() and all(found[name].equal(expected[name]) for name in expected)


def weights(checkpoint: Path) -> dict[str, Tensor]:
    files = checkpoint.glob("model/*.safetensors")
    return {name: tensor for file in files for name, tensor in load_file(file).items()}
