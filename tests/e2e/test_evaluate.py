"""Evaluation from the command line: undisturbed, and gone on with on another layout."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from realrl.apps.evaluate import main
from tests.command_line import call
from tests.tiny import tiny_llama

NUM_PROBLEMS = 5

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate")
    tiny_llama(folder / "model")
    for name, solutions in (("even", "02468"), ("odd", "13579")):
        lines = [
            {"query_id": f"{name}-{i}", "prompt": f"{i}+{i * i}=", "solutions": list(solutions)}
            for i in range(NUM_PROBLEMS)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def options(folder: Path, output: str, *more: str) -> list[str]:
    given = ["--model", str(folder / "model"), "--output", str(folder / output), "--dtype", "float32"]
    given += ["--data", f"{folder / 'even.jsonl'},{folder / 'odd.jsonl'}", "--n", "2"]
    return [*given, "--max-new-tokens", "12", "--max-prompt-tokens", "64", *more]


def evaluated(folder: Path, output: str, *more: str) -> str:
    """Evaluate in this process; what it says."""
    code, said = call(main, options(folder, output, *more))
    assert code == 0, said
    return said


@pytest.fixture(scope="module")
def undisturbed(folder) -> Path:
    said = evaluated(folder, "undisturbed", "--allocation", "*:d2", "--batch-size", "3")
    assert said.endswith((folder / "undisturbed" / "results.md").read_text())
    return folder / "undisturbed"


def test_each_benchmark_has_its_problems_and_its_numbers(folder, undisturbed):
    """Greedy answers are those of transformers, and of the files come the numbers of the table."""
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    results = json.loads((undisturbed / "results.json").read_text())
    assert list(results["benchmarks"]) == ["even", "odd"]
    for name, found in results["benchmarks"].items():
        problems = [json.loads(line) for line in (undisturbed / f"{name}.jsonl").read_text().splitlines()]
        assert [p["query_id"] for p in problems] == [f"{name}-{i}" for i in range(NUM_PROBLEMS)]
        for problem in problems:
            ids = torch.tensor([tokenizer.encode(problem["prompt"])])
            tokens = model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
            assert problem["greedy"]["response"] == tokenizer.decode(tokens, skip_special_tokens=True)
            assert len(problem["samples"]) == 2
        right = [a["verdict"] == "correct" for p in problems for a in p["samples"]]
        assert found["accuracy"]["pass@1"]["mean"] == pytest.approx(sum(right) / len(right))


def test_what_was_interrupted_comes_to_the_same(folder, undisturbed):
    """Killed within a line of its answers; gone on with on another layout, in other batches."""
    left = folder / "left"
    shutil.copytree(undisturbed, left)
    for name in ("even.jsonl", "odd.jsonl", "results.json", "results.md"):
        (left / name).unlink()
    (left / "run" / "gen" / "summary.json").unlink()
    answers = left / "run" / "gen" / "generations.jsonl"
    written = answers.read_bytes()
    answers.write_bytes(written[: len(written) * 2 // 3])
    config = left / "run" / "gen" / "config.yaml"
    config.write_text(config.read_text().replace(str(undisturbed), str(left)))
    evaluated(folder, "left", "--allocation", "*:p2", "--batch-size", "2")
    assert answers.read_bytes() == written
    for name in ("even.jsonl", "odd.jsonl", "results.json", "results.md"):
        assert (left / name).read_bytes() == (undisturbed / name).read_bytes()
    (first, *_), (made_first, *made) = (_metrics(directory) for directory in (undisturbed, left))
    assert made_first == first, "what was there was made again"
    assert sum(line["num_sequences"] for line in (first, *made)) == len(written.splitlines())
    mean, expected = (_summary(directory)["mean"] for directory in (left, undisturbed))
    assert mean == pytest.approx(expected)


def _metrics(evaluation: Path) -> list[dict]:
    lines = (evaluation / "run" / "gen" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def _summary(evaluation: Path) -> dict:
    return json.loads((evaluation / "run" / "gen" / "summary.json").read_text())


def test_another_evaluation_does_not_go_on_with_it(folder, undisturbed, capsys):
    """Other settings, other problems, other weights under the same name: each is refused, and named."""
    before = {path: path.read_bytes() for path in undisturbed.rglob("*.json*")}

    def refusal(*more: str) -> str:
        assert main(options(folder, "undisturbed", *more)) == 2
        return capsys.readouterr().err

    assert "was made with --temperature=0.6, got 0.5; restore that, or give another --output" in refusal(
        "--temperature", "0.5"
    )
    assert "is an evaluation of other problems" in refusal("--limit", "2")
    tiny_llama(folder / "model", seed=1)
    assert "is an evaluation of another model" in refusal()
    assert before == {path: path.read_bytes() for path in undisturbed.rglob("*.json*")}
