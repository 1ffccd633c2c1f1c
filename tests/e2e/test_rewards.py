"""Runs whose rewards are by the row: one function for each source, and a judge that a resumed run spares."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.command_line import run_recipe
from tests.rewards.judge_server import Reply, judge_server
from tests.tiny import tiny_llama

pytestmark = pytest.mark.slow

CODE = """
async def by_level(sample):
    assert sample.source == "sums" and len(sample.group) == 4
    return sample.metadata["level"] + len(sample.tokens) / 100

def by_length(samples):
    assert all(sample.source == "times" for sample in samples)
    return [float(len(sample.tokens)) for sample in samples]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A tiny model, three files of rows, functions and a judge's template."""
    folder = tmp_path_factory.mktemp("rewards")
    tiny_llama(folder / "model")
    files = {
        "sums": [{"prompt": f"{i}+1", "level": i} for i in range(6)],
        "times": [{"prompt": f"{i}*2"} for i in range(6)],
        "minus": [{"prompt": f"{i}-1", "solutions": list("02468")} for i in range(6)],
    }
    for name, rows in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "mine.py").write_text(CODE)
    (folder / "judge.txt").write_text("{prompt}\n{response}")
    return folder


def overrides(folder: Path, trial: str, **more: object) -> dict[str, object]:
    return {
        "actor.model.path": folder / "model",
        "actor.model.dtype": "float32",
        "data.template": "plain",
        "batch_size": 6,
        "ppo.group_size": 4,
        "ppo.kl_coef": 0,
        "generation.max_new_tokens": 4,
        "num_steps": 2,
        "allocation": "*:d2",
        "device": "cpu",
        "experiment": "rewards",
        "runs_dir": folder / "runs",
        "trial": trial,
        **more,
    }


def written(folder: Path, trial: str) -> tuple[list[dict], list[dict]]:
    """Return the records of all responses, and what the training steps report."""
    directory = folder / "runs" / "rewards" / trial
    records = [json.loads(line) for line in (directory / "rollouts.jsonl").open()]
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").open()]
    return records, [row for row in rows if row["kind"] == "train"]


def test_each_source_has_its_own_reward(folder):
    """Also with the estimator that looks at each reward by itself; verdicts are of rows that have them."""
    sets = {
        "data.sets.sums": f"{{path: {folder}/sums.jsonl, reward: {folder}/mine.py:by_level}}",
        "data.sets.times": f"{{path: {folder}/times.jsonl, reward: {{{folder}/mine.py:by_length: 2.0}}}}",
        "data.sets.minus": f"{{path: {folder}/minus.jsonl}}",
    }
    run_recipe("grpo", overrides(folder, "sources", advantage="gdpo", **sets))
    records, steps = written(folder, "sources")
    assert len(records) == 48 and len(steps) == 2
    kinds = set()
    for record in records:
        prompt, length = record["prompt"], record["num_tokens"]
        kinds.add(prompt[1])
        expected = {"+": int(prompt[0]) + length / 100, "*": 2.0 * length}.get(prompt[1])
        assert ("verdict" in record) == (prompt[1] == "-")
        if expected is None:
            expected = float(record["verdict"] == "correct")
        assert record["reward"] == pytest.approx(expected, abs=1e-6)
    assert kinds == set("+*-")
    minus = [record["verdict"] == "correct" for record in records if record["prompt"][1] == "-"]
    assert sum(step["accuracy"] for step in steps) / 2 == pytest.approx(sum(minus) / len(minus))
    assert {"reward/math", "reward/by_level", "reward/by_length"} <= steps[0].keys()


def test_a_judge_is_asked_once_for_each_question(folder):
    """Rewards are its scores; failures are counted; a second run with the same answers asks nothing again."""

    def reply(question: str, number: int) -> Reply:
        if question.startswith("0"):
            return Reply(status=500)
        return Reply(f"Fine.\nScore: {len(question) % 10}")

    with judge_server(reply) as server:
        settings = {
            "data.path": folder / "times.jsonl",
            "reward": "judge",
            "judge.url": server.url,
            "judge.model": "strict",
            "judge.prompt": folder / "judge.txt",
            "judge.timeout_s": 10,
            "judge.retries": 0,
        }
        run_recipe("grpo", overrides(folder, "judged", **settings))
        records, steps = written(folder, "judged")
        for record in records:
            question = f"{record['prompt']}\n{record['response']}"
            expected = None if question.startswith("0") else pytest.approx((len(question) % 10) / 10)
            assert record["reward"] == expected
        assert all(step["judge_failed"] == step["ungraded"] == pytest.approx(1 / 6) for step in steps)
        asked = [question for question in server.questions if not question.startswith("0")]
        assert len(asked) >= 10
        num_asked = len(server.requests)
        kept = folder / "runs" / "rewards" / "judged" / "judge"
        run_recipe("grpo", overrides(folder, "again", **settings, **{"judge.cache": kept}))
        again = server.questions[num_asked:]
        assert again and all(question.startswith("0") for question in again)
