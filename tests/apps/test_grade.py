"""The verifier on a file."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from realrl.apps import grade
from realrl.apps.grade import main
from realrl.rewards.verdict import Checked, Verdict

LINES = [
    {"completion": r"It is \boxed{\frac{2}{4}}.", "solutions": ["3", "0.5"]},
    {"completion": r"\boxed{[1,2)}", "solutions": ["(1,2]"]},
    {"completion": "I do not know.", "solutions": ["3"]},
    {"completion": r"\boxed{10^{10^{10}}}", "solutions": ["3"]},
]
GRADED = [
    {"verdict": "correct", "answer": r"\frac{2}{4}"},
    {"verdict": "wrong", "answer": "[1,2)"},
    {"verdict": "no_answer", "answer": None},
    {"verdict": "wrong", "answer": "10^{10^{10}}"},
]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text("\n\n".join(map(json.dumps, LINES)) + "\n")
    return path


def test_every_line_gets_its_verdict_in_its_place(file, capsys):
    """With `--json` that is all that is written; else the counts stand apart, in the errors."""
    assert main([str(file), "--json"]) == 0
    out, errors = capsys.readouterr()
    assert [json.loads(line) for line in out.splitlines()] == GRADED and not errors
    assert main([str(file)]) == 0
    same, errors = capsys.readouterr()
    assert same == out
    assert [line.split()[:2] for line in errors.splitlines()[1:]] == [
        ["correct", "1"],
        ["wrong", "2"],
        ["no_answer", "1"],
        ["timeout", "0"],
        ["error", "0"],
        ["all", "4"],
    ]


def test_files_in_the_forms_of_data(tmp_path, capsys):
    """Packed, a list in place of lines, NaN in other fields, answers that are numbers."""
    rows = (
        '[{"completion": "0.00001", "solutions": 1e-5, "score": NaN}, {"completion": "3", "solutions": [4]}]'
    )
    (tmp_path / "rows.json.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf" + rows.encode()))
    assert main([str(tmp_path / "rows.json.gz"), "--json"]) == 0
    verdicts = [json.loads(line)["verdict"] for line in capsys.readouterr().out.splitlines()]
    assert verdicts == ["correct", "wrong"]


def test_records_of_a_run(file, tmp_path, capsys):
    """They name a completion `response`; where a line has both names, `completion` is graded."""
    lines = [
        {"row": i, "response": line["completion"], "solutions": line["solutions"]}
        for i, line in enumerate(LINES)
    ]
    lines[0] |= {"completion": "4"}
    (tmp_path / "generations.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main([str(tmp_path / "generations.jsonl"), "--json"]) == 0
    graded = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert graded == [{"verdict": "wrong", "answer": "4"}, *GRADED[1:]]
    (tmp_path / "one.jsonl").write_text(json.dumps(lines[1]))
    assert main([str(tmp_path / "one.jsonl"), "--json"]) == 0, "a file of one line"


def test_more_lines_than_a_batch_keep_their_order(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(grade, "BATCH", 3)
    file = tmp_path / "many.jsonl"
    lines = [{"completion": f"\\boxed{{{i}}}", "solutions": [str(i - i % 2)]} for i in range(10)]
    file.write_text("\n".join(map(json.dumps, lines)))
    assert main([str(file), "--json"]) == 0
    graded = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["answer"] for line in graded] == [str(i) for i in range(10)]
    assert [line["verdict"] for line in graded] == ["correct", "wrong"] * 5


def test_the_example_of_the_documentation_is_what_it_shows(tmp_path, capsys):
    text = (Path(__file__).parents[2] / "docs" / "verifier.md").read_text().split("```")[1]
    file = tmp_path / "answers.jsonl"
    file.write_text("\n".join(line for line in text.splitlines() if line.startswith('{"completion"')))
    assert main([str(file)]) == 0
    out, errors = capsys.readouterr()
    assert out and text.endswith(out + errors)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (None, "cannot be read (No such file or directory)"),
        ("\n", "it is empty"),
        (
            '{"completion": "4", "solutions": ["4"]}\n\n{"completion": "4"}',
            "jsonl:3: Object missing required",
        ),
        ('{"completion": "4", "solutions": {"4": 4}}', "jsonl:1: Expected `array`"),
        ('{"completion": "4", "solutions": []}', "jsonl:1: Expected `array` of length >= 1"),
        ('{"completion": null, "solutions": ["4"]}', "jsonl:1: Expected `str`"),
        ("completion", "jsonl:1: "),
    ],
)
def test_bad_files_are_refused_with_one_line_before_anything_is_graded(content, named, tmp_path, capsys):
    """It says where, and what a line looks like."""
    file = tmp_path / "bad.jsonl"
    if content is not None:
        file.write_text(content)
    assert main([str(file)]) == 2
    out, errors = capsys.readouterr()
    assert not out and errors.startswith("realrl: error: ") and errors.count("\n") == 1
    assert named in errors and '"solutions"' in errors


def test_a_pool_that_cannot_start_fails_with_one_line(file, capsys, monkeypatch):
    def broken(*_: object) -> list[Checked]:
        raise RuntimeError("realrl.rewards.child did not start")

    monkeypatch.setattr(grade, "check_all", broken)
    assert main([str(file)]) == 1
    assert capsys.readouterr().err == "realrl: error: realrl.rewards.child did not start\n"


def test_it_reads_its_input_as_a_program_of_its_own(file):
    command = [sys.executable, "-m", "realrl.apps.grade", "-", "--json"]
    done = subprocess.run(command, input=file.read_bytes(), capture_output=True, timeout=60)
    assert done.returncode == 0
    assert [json.loads(line)["verdict"] for line in done.stdout.splitlines()] == [
        g["verdict"] for g in GRADED
    ]
    assert {v.value for v in Verdict} >= {g["verdict"] for g in GRADED}
