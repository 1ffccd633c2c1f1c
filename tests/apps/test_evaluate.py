"""Evaluation without a worker: benchmarks by name, scores, tables, what is refused."""

from __future__ import annotations

import json
import random
import re

import pytest

from realrl.apps import evaluate
from realrl.apps.evaluation.benchmarks import load_benchmarks
from realrl.apps.evaluation.score_tables import render
from realrl.apps.evaluation.scores import problems_of, score

VERDICTS = ("correct", "wrong", "no_answer", "timeout", "error")


def write(path, number=3):
    lines = [
        {"query_id": f"{path.stem}-{i}", "prompt": f"{i}+1=", "solutions": [str(i + 1)]}
        for i in range(number)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_benchmarks_are_found_by_name_or_path(tmp_path, monkeypatch):
    """In the folder that is given, else in that of the environment; `limit` takes the first problems."""
    write(tmp_path / "gsm8k_test.jsonl"), write(tmp_path / "aime24.jsonl")
    own = write(tmp_path / "my own.jsonl")
    found = load_benchmarks(["gsm8k", str(own), "sums"], tmp_path, limit=2)
    assert [(b.name, b.title, len(b.problems)) for b in found] == [
        ("gsm8k", "GSM8K", 2),
        ("my-own", "my-own", 2),
        ("sums", "sums", 2),
    ]
    assert found[0].problems[1].query_id == "gsm8k_test-1" and not found[0].notes
    monkeypatch.setenv("REALRL_MATH_DATA", str(tmp_path))
    assert len(load_benchmarks(["aime24", "sums"], None, limit=None)[1].problems) == 30, "the held-out ones"


def test_what_is_guessed_of_a_file_is_noted(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"question": "1+1=", "answer": "#### 2"}')
    (found,) = load_benchmarks([str(tmp_path / "rows.jsonl")], None, limit=None)
    assert found.problems[0].prompt == "1+1=" and "takes `question` as `prompt`" in found.notes[0]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("math500", "--data: math500: expected math500.jsonl in .*found none; give another --data-dir"),
        ("gsm8k", "expected gsm8k.jsonl or gsm8k_test.jsonl in"),
        ("nothing.jsonl", "--data: 'nothing.jsonl': cannot read this dataset"),
        ("sums,sums", "--data: two are named 'sums'"),
        (
            "gsm8kk",
            "gsm8k, sums or a file of rows, got 'gsm8kk'; did you mean gsm8k?",
        ),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path, data, message):
    with pytest.raises(ValueError, match=message):
        load_benchmarks(data.split(","), tmp_path, None)


def test_a_benchmark_needs_a_folder(monkeypatch):
    monkeypatch.delenv("REALRL_MATH_DATA", raising=False)
    with pytest.raises(
        ValueError, match=r"aime24 is read from a file aime24.jsonl; give its folder as --data-d"
    ):
        load_benchmarks(["aime24"], None, None)


def records(num_problems: int, num_samples: int) -> list[dict]:
    """As `gen` writes them, each verdict by chance."""
    draw = random.Random(num_problems)
    return [
        {
            "query_id": f"q{row}",
            "prompt": f"{row}?",
            "solutions": ["1"],
            "row": row,
            "sample": sample,
            "greedy": sample == 0,
            "response": f"r{row}-{sample}",
            "verdict": draw.choice(VERDICTS),
            "answer": None,
            "num_tokens": draw.randrange(1, 50),
            "ended": draw.random() < 0.5,
        }
        for row in range(num_problems)
        for sample in range(1 + num_samples)
    ]


def test_answers_are_joined_to_problems():
    """One line for each, with all of its answers in order."""
    problems = list(problems_of(records(3, 2)))
    assert [p["query_id"] for p in problems] == ["q0", "q1", "q2"]
    assert problems[1]["greedy"]["response"] == "r1-0"
    assert [a["response"] for a in problems[1]["samples"]] == ["r1-1", "r1-2"]
    assert list(problems_of([])) == []


def test_scores_are_those_of_plain_loops():
    """Accuracies over all answers, whether they could be checked or not; lengths; the five verdicts."""
    made = records(20, 4)
    found = score(list(problems_of(made)))
    greedy, samples = ([r for r in made if r["greedy"] == which] for which in (True, False))
    assert (found["num_problems"], found["num_samples"]) == (20, 4)
    for answers, described, accuracy in ((greedy, "greedy", "greedy"), (samples, "samples", "pass@1")):
        right = [r for r in answers if r["verdict"] == "correct"]
        of = found["accuracy"][accuracy]
        assert of["mean"] == pytest.approx(len(right) / len(answers))
        assert of["low"] < of["mean"] < of["high"]
        of = found[described]
        assert of["tokens"] == pytest.approx(sum(r["num_tokens"] for r in answers) / len(answers))
        assert of["tokens_right"] == pytest.approx(sum(r["num_tokens"] for r in right) / len(right))
        assert of["truncated"] == pytest.approx(sum(not r["ended"] for r in answers) / len(answers))
        assert of["verdicts"] == {v: sum(r["verdict"] == v for r in answers) for v in VERDICTS}
    solved = {r["row"] for r in samples if r["verdict"] == "correct"}
    assert found["accuracy"]["pass@4"]["mean"] == pytest.approx(len(solved) / 20)
    assert list(found["accuracy"]) == ["greedy", "pass@1", "pass@2", "pass@4"]


def results(name: str, num_samples: int = 4, **benchmarks: int) -> dict:
    scored = {b: score(list(problems_of(records(number, num_samples)))) for b, number in benchmarks.items()}
    return {
        "name": name,
        "settings": {"n": num_samples},
        "benchmarks": {b: {"title": b.upper(), **of} for b, of in scored.items()},
    }


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("| \n").split("|")]


def test_the_table_has_a_row_for_each_model():
    """And columns of every benchmark that one of them has; each table's rows are of one width."""
    first, second = results("base", a=10), results("trained", a=20, b=30)
    lines = render([first, second]).splitlines()
    head, _, *rows = map(cells, lines[:4])
    assert head == ["model", "A greedy", "A pass@1", "B greedy", "B pass@1"]
    assert [row[0] for row in rows] == ["base", "trained"] and rows[0][3:] == ["-", "-"]
    of = first["benchmarks"]["a"]["accuracy"]["greedy"]
    assert rows[0][1] == f"{100 * of['mean']:.1f} ± {50 * (of['high'] - of['low']):.1f}"
    detail = [cells(line) for line in lines[4:] if line.startswith("|")]
    assert [row[1] for row in detail[2:]] == ["greedy", "4 samples"]
    assert {len(row) for row in detail} == {len(detail[0])}
    verdicts = first["benchmarks"]["a"]["samples"]["verdicts"]
    assert detail[3][-5:] == [str(verdicts[v]) for v in VERDICTS]


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (
            "recover: out/run was made with generation.max_new_tokens=16, got 8; set it back, give another"
            " trial, or set recover=off to begin afresh",
            "--output: out/run was made with --max-new-tokens=16, got 8; restore that, or give another"
            " --output",
        ),
        (
            "data.path: a:1 has 20 tokens; lower that, or set data.drop_long=true to leave such rows out",
            "--data: a:1 has 20 tokens; give a smaller --max-new-tokens, or leave such problems out",
        ),
        ("data: no rows in seed/model.path.json; mend it", "data: no rows in seed/model.path.json; mend it"),
        ("model.path: my seed; give another", "--model: my seed; give another"),
    ],
)
def test_messages_name_options(message, said):
    """And no key of `gen` that an evaluation fixes."""
    assert evaluate._in_own_words(message) == said


def test_without_samples_there_are_greedy_answers_alone():
    text = render([results("base", num_samples=0, a=5)])
    assert "pass@2" not in text and "samples |" not in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--n", "-1"], "--n must be at least 1, or 0 with greedy: true, got -1"),
        (["--temperature", "0"], "--n: with --temperature=0 all answers"),
        (["--allocation", "*:d99"], "--allocation: generate: d99 needs at least 99 prompts"),
        (["--allocation", "*:t3"], "t3"),
        (["--max-new-tokens", "5000"], "exceeds the 256 tokens of model model's context"),
        (["--model", "no/such/model"], "no/such/model: expected a Hugging Face model directory"),
        (["--limit", "0"], "--limit: expected at least 1, got 0"),
        (["--prompt-type", "poem"], "--prompt-type: expected one of chat, plain"),
        (["--set", "generation.magic=1"], "generation.magic: unknown key"),
        (["--beside", "no-folder"], "--beside: no-folder: cannot read results.json"),
    ],
)
def test_bad_options_are_refused(model, tmp_path, capsys, monkeypatch, options, message):
    """Before a worker starts, with one message."""
    monkeypatch.setattr(evaluate, "_answer", lambda *_: pytest.fail("a worker was started"))
    given = {"--model": str(model), "--data": "sums", "--output": str(tmp_path / "out"), "--n": "2"}
    given |= {"--max-new-tokens": "8", "--max-prompt-tokens": "64"} | dict(zip(options[::2], options[1::2]))
    code = evaluate.main([word for pair in given.items() for word in pair])
    error = capsys.readouterr().err
    assert (code, error.count("\n")) == (2, 1) and error.startswith("realrl: error: ")
    assert message in error


def test_the_help_shows_defaults():
    """Of each option that results depend on."""
    parser = evaluate.make_parser()
    _, *abouts = re.split(r"\n  --", parser.format_help().partition("options:")[2])
    shown = {about.split()[0]: " ".join(about.split()) for about in abouts}
    for option in evaluate.SHOWN:
        assert f"(default: {parser.get_default(option)})" in shown[option.replace("_", "-")]
