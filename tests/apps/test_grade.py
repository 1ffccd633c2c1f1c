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


def test_units_are_converted_unless_that_is_not_wanted(tmp_path, capsys):
    """In verdicts and in reasons; a unit alone is still no difference."""
    rows = [("200 cm", "2 m"), ("x = 200 cm", "2 m"), ("2 m", "2 metres"), ("2 m", "2")]
    lines = [{"completion": rf"\boxed{{{answer}}}", "solutions": [solution]} for answer, solution in rows]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for options, wanted in (((), [True] * 4), (("--no-conversion",), [False, False, True, True])):
        for more in ((), ("--explain",)):
            assert main([str(tmp_path / "rows.jsonl"), "--json", *options, *more]) == 0
            verdicts = [json.loads(line)["verdict"] for line in capsys.readouterr().out.splitlines()]
            assert [verdict == "correct" for verdict in verdicts] == wanted


def test_leniency_is_set_by_options(tmp_path, capsys):
    """Each option changes the verdict of its own line."""
    rows = [("0.67", r"\frac23"), ("2n + 1", "2k + 1"), ("y > 4", r"(4, \infty)")]
    lines = [{"completion": rf"\boxed{{{answer}}}", "solutions": [solution]} for answer, solution in rows]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    usual = [False, False, True]
    for place, options in enumerate((["--digits", "2"], ["--other-letters"], ["--no-orders"])):
        wanted = [right != (number == place) for number, right in enumerate(usual)]
        for more in ([], ["--explain"]):
            assert main([str(tmp_path / "rows.jsonl"), "--json", *options, *more]) == 0
            verdicts = [json.loads(line)["verdict"] for line in capsys.readouterr().out.splitlines()]
            assert [verdict == "correct" for verdict in verdicts] == wanted


def test_only_answers_in_their_form_count(tmp_path, capsys):
    """A line may say whether its completion ended; without a form, that makes no difference."""
    lines = [
        {"completion": r"<answer>\boxed{34}</answer>", "solutions": ["34"], "ended": True},
        {"completion": r"<answer>\boxed{34}</answer>", "solutions": ["34"], "ended": False},
        {"completion": r"<answer>\boxed{34}</answer>", "solutions": ["34"], "ended": None},
        {"completion": r"\boxed{34}", "solutions": ["34"]},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    right, none = "correct", "no_answer"
    for form, wanted in (
        ("any", [right] * 4),
        ("orz", [right, none, right, none]),
        ("place=box", [right] * 4),
    ):
        for more in ([], ["--explain"]):
            assert main([str(tmp_path / "rows.jsonl"), "--json", "--form", form, *more]) == 0
            verdicts = [json.loads(line)["verdict"] for line in capsys.readouterr().out.splitlines()]
            assert verdicts == wanted
    assert main([str(tmp_path / "rows.jsonl"), "--form", "nothing"]) == 2
    assert "expected one of any, box" in capsys.readouterr().err


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


EXPLAINED = r"""1: correct
   answer    \frac{2}{4}
   from      the last box
   read as   number 2/4
   solution  3
   read as   number 3
   wrong     their values differ: 1/2 and 3
   solution  0.5
   read as   number 0.5
   correct   they are equal, exactly: one quotient of polynomials
2: wrong
   answer    [1,2)
   from      the last box
   read as   interval [1, 2)
   solution  (1,2]
   read as   interval (1, 2]
   wrong     of the lower bounds one is part of the set, and the other is not
3: no_answer
   answer    none
   because   there is no box, no phrase that announces an answer, no number and no formula
4: wrong
   answer    10^{10^{10}}
   from      the last box
   read as   number 10^(10^10)
   solution  3
   read as   number 3
   wrong     their values differ: 1.0000000e+10000000000 and 3.0000000
"""


def test_reasons_are_given_in_words_or_as_a_field(file, capsys):
    """With the verdicts that lines have without them."""
    assert main([str(file), "--explain"]) == 0
    out, errors = capsys.readouterr()
    assert out == EXPLAINED and errors.startswith("verdict")
    assert main([str(file), "--explain", "--json"]) == 0
    out, errors = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    explanations = [line.pop("explanation") for line in lines]
    assert lines == GRADED and not errors
    assert explanations[0]["place"] == "the last box"
    assert [each["verdict"] for each in explanations[0]["comparisons"]] == ["wrong", "correct"]
    assert explanations[0]["comparisons"][1]["why"] in EXPLAINED


def test_what_an_answer_says_is_shown_and_not_obeyed(tmp_path, capsys):
    """Not by a terminal, and on one line."""
    lines = [{"completion": "<answer>\x1b[2J red\nline</answer>", "solutions": ["\u202eblue"]}]
    (tmp_path / "lines.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert main([str(tmp_path / "lines.jsonl"), "--explain"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\u202e" not in out
    assert r"   answer    \x1b[2J red line" in out.splitlines()


def test_the_examples_of_the_documentation_are_what_they_show(tmp_path, capsys):
    """The verdicts, and the reasons."""
    blocks = (Path(__file__).parents[2] / "docs" / "verifier.md").read_text().split("```")
    file = tmp_path / "answers.jsonl"
    file.write_text("\n".join(line for line in blocks[1].splitlines() if line.startswith('{"completion"')))
    assert main([str(file)]) == 0
    out, errors = capsys.readouterr()
    assert out and blocks[1].endswith(out + errors)
    assert main([str(file), "--explain"]) == 0
    (shown,) = (block for block in blocks if block.startswith("\n$ realrl grade answers.jsonl --explain\n"))
    assert shown.partition("--explain\n")[2] == capsys.readouterr().out


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
    def broken(*_: object, **__: object) -> list[Checked]:
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
