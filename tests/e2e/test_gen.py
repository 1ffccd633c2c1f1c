"""Batch generation from the command line; test_evaluate goes on with one that was interrupted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.command_line import run_recipe
from tests.tiny import tiny_llama

NUM_ROWS = 7

pytestmark = pytest.mark.slow


def generate(folder: Path, trial: str, **more: object) -> Path:
    """Run the command line; returns the run's directory."""
    overrides = {
        "model.path": folder / "model",
        "model.dtype": "float32",
        "data.path": folder / "rows.jsonl",
        "generation.max_new_tokens": 12,
        "greedy": "true",
        "num_samples": 2,
        "runs_dir": folder,
        "trial": trial,
        **more,
    }
    run_recipe("gen", overrides)
    return folder / "gen" / trial


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A tiny model, and rows of which one has no solutions."""
    folder = tmp_path_factory.mktemp("gen")
    tiny_llama(folder / "model")
    lines = [{"query_id": f"q{i}", "prompt": f"{i}+{i * i}=" + "?" * i} for i in range(NUM_ROWS)]
    lines = [line | ({"solutions": list("02468")} if i != 2 else {}) for i, line in enumerate(lines)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture(scope="module")
def undisturbed(folder) -> Path:
    return generate(folder, "undisturbed", allocation="*:d2", batch_size=3)


def test_each_row_is_answered_once_in_order(undisturbed):
    """One greedy answer and the samples; nothing is saved."""
    records = records_of(undisturbed)
    assert [(r["row"], r["sample"], r["greedy"]) for r in records] == [
        (row, sample, sample == 0) for row in range(NUM_ROWS) for sample in range(3)
    ]
    assert [r["query_id"] for r in records[::3]] == [f"q{row}" for row in range(NUM_ROWS)]
    assert {r["row"] for r in records if "verdict" not in r} == {2}
    assert not (undisturbed / "checkpoints").exists()
    summary = json.loads((undisturbed / "summary.json").read_text())
    right = [r["verdict"] == "correct" for r in records if r["greedy"] and "verdict" in r]
    assert summary["mean"]["greedy_accuracy"] == pytest.approx(sum(right) / len(right))


def test_greedy_answers_are_those_of_transformers(folder, undisturbed):
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    for record in (record for record in records_of(undisturbed) if record["greedy"]):
        ids = torch.tensor([tokenizer.encode(record["prompt"])])
        found = model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
        assert tokenizer.decode(found, skip_special_tokens=True) == record["response"]
        assert len(found) == record["num_tokens"]


def records_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "generations.jsonl").read_text().splitlines()]
