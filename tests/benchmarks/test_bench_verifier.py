"""The verifier's benchmark: on made answers, and on a made copy of what math-verify's archive looks like."""

import json
import tarfile

import msgspec
import pytest

from benchmarks import judged_answers, verifier, verifier_cases
from benchmarks.answers import FORMS, PERTURBATIONS
from benchmarks.command import main
from benchmarks.hostile import HOSTILE, mixed
from benchmarks.verifier import Accepted, Stream
from benchmarks.verifier_cases import Case, Score
from realrl.rewards.pool import JudgePool

TESTS = r"""
import pytest

@pytest.mark.parametrize(
    "gold, pred, expected",
    [("$9$", "so $9$", 1), ("$9$", "$8$", 0), (f"{1}", "$1$", 1)],
)
def test_a(gold, pred, expected): raise RuntimeError

@pytest.mark.parametrize("gold,pred,strict,result", [(r"$\frac{1}{2}$", "0.5", True, True)])
def test_b(): ...

@pytest.mark.parametrize("other,names", [("1", "2")])
def test_c(): ...
"""
MATH_VERIFY = """
def parse(text): return text[-2:].strip("$")
def verify(gold, pred, strict=False): return True if strict else gold == pred
"""


@pytest.fixture
def archive(tmp_path):
    """With three cases that can be read, and a package that grades by the last letters."""
    folder = tmp_path / "math_verify-0"
    for name, text in {"tests/test_all.py": TESTS, "src/math_verify/__init__.py": MATH_VERIFY}.items():
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(text)
    path = tmp_path / "math_verify-0.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(folder, arcname=folder.name)
    return path


def test_cases_are_read_by_their_syntax_and_put_to_every_system(archive):
    with verifier_cases.unpacked(archive) as folder:
        cases = verifier_cases.read_cases(folder)
        scores = {score.system: score for score in verifier_cases.measure("own", cases, folder)}
    assert [(c.gold, c.text, c.equal, c.options) for c in cases] == [
        ("$9$", "so $9$", True, {}),
        ("$9$", "$8$", False, {}),
        (r"$\frac{1}{2}$", "0.5", True, {"strict": True}),
    ]
    assert scores.keys() == {"realrl", "math-verify", "sympy"}
    for score in scores.values():
        assert (score.num, score.num_equal, score.accepted_right, score.accepted_wrong) == (3, 2, 2, 0)
        assert score.precision == score.recall == 1


def test_forms_are_cases_too():
    cases = verifier_cases.form_cases(["1", "2", "3", "4"], 2)
    assert {case.gold for case in cases} == {"$1$", "$3$"}
    assert {case.equal for case in cases} == {True, False} and all(case.text for case in cases)


def test_precision_and_recall():
    score = Score(
        cases="own", system="x", num=10, num_equal=5, accepted_right=4, accepted_wrong=1, seconds=1.0
    )
    assert (score.precision, score.recall) == (0.8, 0.8)
    assert verifier_cases.render([score]).splitlines()[-1].split() == ["x", "80.0%", "80.0%", "1", "1", "1.0"]


def test_failed_cases_and_disagreements_are_listed(tmp_path):
    """A case is listed if the verifier and the one who wrote it disagree, in either direction."""
    right = Case(gold="$9$", text="so $9$", equal=True)
    missed = Case(gold="$9$", text="so $8$", equal=True)
    wrong = Case(gold="$9$", text="so $9$", equal=False)
    assert verifier_cases.failed_cases([right, missed, wrong]) == [missed, wrong]
    assert verifier_cases.render_failed([missed, wrong]).count("accepted") == 1

    path = tmp_path / "judged.jsonl"
    lines = [("7", "correct"), ("7", "not"), ("8", "correct")]
    path.write_text(
        "\n".join(
            json.dumps({"completion": f"So {answer}.", "solutions": ["7"], "expect": expect})
            for answer, expect in lines
        )
    )
    with JudgePool(num_children=1) as pool:
        score = judged_answers.measure_judged(judged_answers.read_judged(path), pool)
    assert (score.num, score.num_correct, score.accepted_wrong, score.rejected_right) == (3, 2, 1, 1)
    assert [(each.line, each.verdict) for each in score.disagreements] == [(2, "correct"), (3, "wrong")]
    assert "3, 2 of them correct; 1 wrongly" in judged_answers.render_judged(score)


@pytest.mark.quiet
def test_a_small_run_prints_every_figure(capsys, monkeypatch):
    """No wrong answer is accepted, no right one refused, and the hostile ones change nothing."""
    monkeypatch.setattr(verifier, "NUM_MADE", 15)
    assert main(["verifier", "--answers", "300", "--children", "1", "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    accepted = [msgspec.json.decode(line, type=Accepted) for line in lines[:-1]]
    assert {row.form for row in accepted} == {verifier.ITSELF, *FORMS, *PERTURBATIONS}
    assert all(row.num_accepted == (row.num if row.equivalent else 0) for row in accepted)
    stream = msgspec.json.decode(lines[-1], type=Stream)
    assert (stream.num, stream.num_hostile) == (300, 3)
    assert stream.num_correct_rejected == stream.num_wrong_accepted == 0
    assert sum(stream.verdicts.values()) == 300 and sum(stream.hostile_verdicts.values()) == 3
    assert 0 < stream.p50_ms <= stream.p99_ms <= stream.longest_ms
    assert 10 < stream.child_peak_mib < 400
    assert verifier.render_forms(accepted).count("\n") > 20 and "300, of which 3" in verifier.render_stream(
        stream
    )


def test_a_stream_has_its_share_of_hostile_answers_and_is_the_same_each_time():
    solutions = ["3", r"\frac{1}{2}", "[1,2)"]
    samples = mixed(solutions, 8000, hostile_share=0.01)
    assert samples == mixed(solutions, 8000, hostile_share=0.01)
    assert {s.hostile for s in samples if s.hostile} == set(HOSTILE)
    assert sum(bool(s.hostile) for s in samples) == 80
    assert 3900 < sum(s.correct for s in samples) < 4100


@pytest.mark.parametrize(
    ("files", "options", "named"),
    [
        ({}, "--data .", "--data: math500.jsonl: cannot be read"),
        ({"math500.jsonl": "{}"}, "--data .", "--data: math500.jsonl: expected lines like"),
        ({}, "--cases nothing.tar.gz", "--cases: nothing.tar.gz: cannot be unpacked"),
        ({"a.txt": ""}, "--cases .", "--cases: .: no tests"),
        ({}, "--judged no.jsonl", "--judged: no.jsonl: cannot be read"),
        ({"a.jsonl": "{}"}, "--judged a.jsonl", "expected lines like"),
        ({}, "--answers 0", "expected a whole number from 1 up"),
    ],
)
def test_what_cannot_be_used_is_refused_with_one_line(files, options, named, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert main(["verifier", "--json", *options.split()]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert errors[-1].startswith("realrl: error: ") and named in errors[-1]


def test_data_is_the_first_solution_of_each_problem(tmp_path):
    (tmp_path / "math500.jsonl").write_text(
        "\n".join(json.dumps({"solutions": [a, "x"]}) for a in "12") + "\n"
    )
    assert verifier.read_solutions(tmp_path, "math500") == ["1", "2"]
