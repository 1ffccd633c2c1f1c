"""Supervised fine-tuning from the command line: it learns, and the plan does not change what it learns."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny import tiny_llama

pytestmark = pytest.mark.slow


def train(folder: Path, allocation: str) -> tuple[list[float], dict]:
    """The loss of each step, and the summary."""
    trial = allocation.replace(":", "-").replace(",", "-").replace("*", "all")
    overrides = {
        "model.path": folder / "model",
        "model.dtype": "float32",
        "optimizer.lr": 3e-3,
        "num_steps": 12,
        "max_tokens_per_microbatch": 100,
        "runs_dir": folder,
        "allocation": allocation,
        "trial": trial,
    }
    command = [sys.executable, "-m", "realrl.apps.quickstart", "sft"]
    command += [f"{key}={value}" for key, value in overrides.items()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    run = folder / "sft" / trial
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if row["kind"] == "train"]
    return losses, json.loads((run / "summary.json").read_text())


def test_held_out_loss_falls_alike_under_two_plans(tmp_path):
    tiny_llama(tmp_path / "model")
    single, summary = train(tmp_path, "*:d1")
    assert summary["eval"]["after"]["loss"] < 0.5 * summary["eval"]["before"]["loss"]
    split, _ = train(tmp_path, "validate:d2,*:p2")
    assert len(single) == 12
    assert split == pytest.approx(single, rel=1e-4)
