"""A run on several data sets, which is interrupted and resumed."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from realrl.apps import train
from tests.command_line import call, run_recipe, words
from tests.tiny import tiny_llama

NUM_STEPS = 4
CHAT = "{% for m in messages %}{{ m.content }}{% endfor %}{% if ending is defined %}{{ ending }}{% endif %}"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A tiny model, two files of different fields, an example and a chat template."""
    folder = tmp_path_factory.mktemp("sets")
    tiny_llama(folder / "model")
    sums = [{"question": f"{i}+1", "answer": "02468", "level": i} for i in range(9)]
    times = [{"prompt": f"{i}*2", "solutions": list("13579")} for i in range(5)]
    held_out = [{"prompt": f"{i}-1", "solutions": ["0"]} for i in range(2)]
    examples = [{"prompt": "0*0", "response": "0"}]
    files = {"sums": sums, "times": times, "held-out": held_out, "examples": examples}
    for name, rows in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "own.jinja").write_text(CHAT)
    return folder


def overrides(folder: Path, trial: str, **more: object) -> dict[str, object]:
    return {
        "actor.model.path": folder / "model",
        "actor.model.dtype": "float32",
        "actor.optimizer.lr": 1e-3,
        "data.sets.sums": f"{{path: {folder}/sums.jsonl, weight: 3, difficulty: [0, 6], suffix: '='}}",
        "data.sets.sums.fields": "{prompt: question, solutions: answer, difficulty: level}",
        "data.sets.times": f"{{path: {folder}/times.jsonl, weight: 1, template_arguments: {{ending: '?'}}}}",
        "data.eval_path": folder / "held-out.jsonl",
        "data.template": folder / "own.jinja",
        "data.examples": folder / "examples.jsonl",
        "batch_size": 4,
        "ppo.group_size": 2,
        "generation.max_new_tokens": 4,
        "recover_every": 1,
        "num_steps": NUM_STEPS,
        "allocation": "*:d1",
        "runs_dir": folder / "runs",
        "trial": trial,
        **more,
    }


def rows_by_step(folder: Path, trial: str) -> dict[int, list[str]]:
    """The ids of the rows that were trained on, each once."""
    found: dict[int, dict[str, None]] = {}
    for line in (folder / "runs" / "grpo" / trial / "rollouts.jsonl").read_text().splitlines():
        record = json.loads(line)
        if not record["evaluating"]:
            found.setdefault(record["step"], {})[record["prompt"]] = None
    return {step: list(prompts) for step, prompts in found.items()}


def losses(folder: Path, trial: str) -> list[float]:
    lines = (folder / "runs" / "grpo" / trial / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return [record["actor_loss"] for record in records if record["kind"] == "train"]


def test_a_resumed_run_reads_the_same_rows_of_each_set(folder):
    """In the sets' shares; its first lines say them, and how prompts of each look."""
    said = run_recipe("grpo", overrides(folder, "at-once"))
    assert "data.sets: sums 7 rows, 75.0% of each batch; times 5 rows, 25.0% of each batch" in said
    assert "data.sets.sums: dropped 2 of 9 rows, whose difficulty is not from 0 to 6" in said
    assert "tokens: '0*0=0" in said and "form of prompts of data.sets.times: " in said
    at_once = rows_by_step(folder, "at-once")
    for prompts in at_once.values():
        kinds = Counter("*" in prompt for prompt in prompts)
        assert kinds == {False: 3, True: 1}

    run_recipe("grpo", overrides(folder, "in-parts", num_steps=2))
    run_recipe("grpo", overrides(folder, "in-parts"))
    assert rows_by_step(folder, "in-parts") == at_once
    assert losses(folder, "in-parts") == losses(folder, "at-once")


def test_what_is_wrong_is_said_before_workers_start(folder):
    """A dry run finds it, too; and a set that is too small for its share is noted."""
    wrong = {
        "data.sets.times.weight": (0, "data.sets.times.weight must be above 0"),
        "data.template_arguments": ("{end: 1}", "data.sets.sums.template_arguments.end: .*such variable"),
        "data.examples": (folder / "held-out.jsonl", "data.examples: .* is among the held-out rows"),
        "data.eval_path": (folder / "times.jsonl", "data.eval_path: .*the file of data.sets.times.path"),
        "data.sets.sums.difficulty": ("[20, 30]", "data.sets.sums: no rows are left"),
    }
    for key, (value, message) in wrong.items():
        code, said = call(train.main, words("grpo", {**overrides(folder, "wrong"), key: value}))
        assert code != 0 and re.search(f"error: {message}", said), said
        assert not (folder / "runs" / "grpo" / "wrong").exists()
    small = {**overrides(folder, "small"), "batch_size": 24}
    code, said = call(train.main, [*words("grpo", small), "--dry-run"])
    assert code == 0 and "data.sets.times has 5 rows, fewer than its 6 of batch_size=24" in said, said
    assert "data.sets.sums has 7 rows, fewer than its 18 of batch_size=24" in said


def test_a_resume_with_another_share_is_another_run(folder):
    """And so is one with another template's text."""
    keys = overrides(folder, "other", num_steps=1)
    run_recipe("grpo", keys)
    code, said = call(train.main, words("grpo", {**keys, "num_steps": 2, "data.sets.times.weight": 2}))
    assert code != 0 and "data.sets.times.weight=1.0, got 2.0" in said
    (folder / "own.jinja").write_text(CHAT + " ")
    try:
        code, said = call(train.main, words("grpo", {**keys, "num_steps": 2}))
    finally:
        (folder / "own.jinja").write_text(CHAT)
    assert code != 0 and "rows" in said and "then" in said
