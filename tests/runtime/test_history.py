"""What is left of a run's records where it resumes, and damaged records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from realrl.runtime.failure import RunRefused
from realrl.runtime.history import cut_batches, cut_records
from realrl.runtime.run_files import METRICS, RECORDS


def metrics_line(step: int, kind: str, **more: object) -> str:
    times = {"tokens_per_s": 2.5, "duration_s": 1, "phases_s": {"train": 0.5}}
    line = {"step": step, "kind": kind, "weights": {"loss": 2}, "num_sequences": 2, "num_tokens": 9}
    return json.dumps({**line, **times, **more}) + "\n"


def rollout_line(step: int, kind: str) -> str:
    record = {"step": step, "evaluating": kind == "eval", "text": "é"}
    return json.dumps(record, ensure_ascii=False) + "\n"


def test_records_end_where_recovery_resumes(tmp_path):
    """With the evaluation of that step and before the training; whatever was written after it, in whatever
    order, or not to its end, is dropped, and the rest stays to the byte."""
    kept = [("eval", 0), ("train", 0), ("train", 1), ("eval", 2)]
    dropped = [("train", 2), ("eval", 3), ("train", 3)]
    order = [*kept[:3], dropped[0], kept[3], *dropped[1:]]
    metrics = {key: metrics_line(key[1], key[0], loss=0.1 + key[1]) for key in order}
    records = {key: rollout_line(key[1], key[0]) for key in order}
    for name, lines in ((METRICS, metrics), (RECORDS["train"], records)):
        (tmp_path / name).write_text("".join(lines.values()) + '{"step": 0, "kind": "tr')
    found = cut_records(tmp_path, 2)
    assert (found.steps, [(line["kind"], line["step"]) for line in found.metrics]) == (2, kept)
    for name, lines in ((METRICS, metrics), (RECORDS["train"], records)):
        assert (tmp_path / name).read_text() == "".join(lines[key] for key in kept)


def damaged(folder: Path, name: str, number: int, line: bytes | None) -> dict[str, bytes]:
    """Replace a line, counted from 1, of a run's file, or drop it; returns the content of all files."""
    path = folder / name
    lines = path.read_bytes().splitlines(keepends=True)
    lines[number - 1 : number] = [line] if line is not None else []
    path.write_bytes(b"".join(lines))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


DAMAGES = {
    "metrics.jsonl:2: expected a line that realrl wrote, got another .*truncated": (
        METRICS,
        2,
        b'{"step": \n',
    ),
    "metrics.jsonl:4: expected a line that realrl wrote": (METRICS, 4, b"\0\0\0\n"),
    "metrics.jsonl:1: .*Expected `object`, got `array`": (METRICS, 1, b"[]\n"),
    "metrics.jsonl:3: .*missing required field `kind`": (METRICS, 3, b'{"step": 1}\n'),
    "metrics.jsonl:3: .*": (METRICS, 3, b"[" * 100_000 + b"\n"),
    "metrics.jsonl has no line of step 1 where it should be: it ends": (METRICS, 3, None),
    "metrics.jsonl has no line of step 0 where it should be: the next": (METRICS, 2, None),
    "rollouts.jsonl:3: .*codec can't decode": (RECORDS["train"], 3, b'{"text": "\xff"}\n'),
    "rollouts.jsonl:1: .*Expected `int`, got `str`": (RECORDS["train"], 1, b'{"step": "0"}\n'),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_a_damaged_record_is_named_and_nothing_is_cut(tmp_path, message):
    """By its file and line; also one of a step that would be dropped, as nobody can tell."""
    steps = [("eval", 0), ("train", 0), ("train", 1), ("train", 2)]
    (tmp_path / METRICS).write_text("".join(metrics_line(step, kind) for kind, step in steps))
    (tmp_path / RECORDS["train"]).write_text("".join(rollout_line(step, kind) for kind, step in steps))
    before = damaged(tmp_path, *DAMAGES[message])
    with pytest.raises(RunRefused, match=f"recover: .*{message}") as refusal:
        cut_records(tmp_path, 2)
    assert "set recover=off to begin afresh" in str(refusal.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_step_that_is_recorded_twice_is_named(tmp_path):
    """So that no number counts twice."""
    (tmp_path / METRICS).write_text("".join(metrics_line(step, "train") for step in (0, 1, 1)))
    with pytest.raises(RunRefused, match="metrics.jsonl has more than one line of step 1"):
        cut_records(tmp_path, 2)


def write_pass(folder: Path, num_records: int, num_metrics: int) -> tuple[list[str], list[str]]:
    """Three batches of four, four and two answers, two to each row; all that would be written of them."""
    records = [f'{{"row": {row}, "sample": {sample}}}\n' for row in range(5) for sample in range(2)]
    metrics = [metrics_line(step, "pass", num_sequences=n) for step, n in enumerate((4, 4, 2))]
    (folder / RECORDS["pass"]).write_text("".join(records[:num_records]))
    (folder / METRICS).write_text("".join(metrics[:num_metrics]))
    return records, metrics


@pytest.mark.parametrize(
    ("num_records", "num_metrics", "expected"), [(10, 3, 3), (10, 2, 2), (9, 3, 2), (4, 0, 0), (0, 3, 0)]
)
def test_a_pass_resumes_after_its_last_whole_batch(tmp_path, num_records, num_metrics, expected):
    """Of which every record and the metrics are there; what stands behind it, ended or not, is cut off."""
    records, metrics = write_pass(tmp_path, num_records, num_metrics)
    for name in (RECORDS["pass"], METRICS):
        with (tmp_path / name).open("a") as file:
            file.write('{"row": 5, "sam')
    rows = (0, 2, 4, 5)[expected]
    for _ in range(2):
        steps, num_rows, kept = cut_batches(tmp_path, 2)
        assert (steps, num_rows, [line["step"] for line in kept]) == (expected, rows, [*range(expected)])
    assert (tmp_path / RECORDS["pass"]).read_text() == "".join(records[: 2 * rows])
    assert (tmp_path / METRICS).read_text() == "".join(metrics[:expected])


def test_a_pass_may_have_written_nothing(tmp_path):
    assert cut_batches(tmp_path, 2) == (0, 0, [])


@pytest.mark.parametrize(
    ("name", "number", "line", "message"),
    [
        (RECORDS["pass"], 3, b"\0\n", "generations.jsonl:3: expected a line that realrl wrote"),
        (
            RECORDS["pass"],
            3,
            None,
            "generations.jsonl:3: expected the answer to row 1, sample 0, got row 1, sa",
        ),
        (METRICS, 3, b"{}\n", "metrics.jsonl:3: expected a line that realrl wrote"),
        (METRICS, 2, None, "metrics.jsonl has no line of step 1"),
    ],
)
def test_a_damaged_record_of_a_pass_is_named_and_nothing_is_cut(tmp_path, name, number, line, message):
    """Answers, which took hours, are not dropped because a line of metrics cannot be read."""
    write_pass(tmp_path, 10, 3)
    before = damaged(tmp_path, name, number, line)
    with pytest.raises(RunRefused, match=message):
        cut_batches(tmp_path, 2)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_answers_without_their_metrics_are_not_dropped(tmp_path):
    """The file of metrics, which is made with theirs, is missing."""
    write_pass(tmp_path, 10, 3)
    (tmp_path / METRICS).unlink()
    with pytest.raises(RunRefused, match="metrics.jsonl is missing, and .*generations.jsonl has 10 lines"):
        cut_batches(tmp_path, 2)
    assert len((tmp_path / RECORDS["pass"]).read_text().splitlines()) == 10
