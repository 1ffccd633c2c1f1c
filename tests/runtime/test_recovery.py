"""What recovery goes on from: found, checked and dropped; and what is left of the records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from realrl.api.messages import File
from realrl.base.files import checksum
from realrl.runtime.checkpoints import RECOVERIES, partial_directory
from realrl.runtime.recorder import METRICS, RECORDS
from realrl.runtime.recovery import cut_batches, cut_records, newest_recovery, publish_recovery


def publish(run: Path, step: int, keep: int = 2) -> Path:
    """Two files, by two ranks."""
    partial = partial_directory(run / RECOVERIES, f"step-{step}")
    (partial / "m").mkdir(parents=True)
    files = []
    for rank in range(2):
        path = partial / "m" / f"rank-{rank}"
        path.write_text(f"{step} of rank {rank}")
        files.append(File(path=f"m/{path.name}", num_bytes=path.stat().st_size, checksum=checksum(path)))
    return publish_recovery(partial, step, files, keep)


def test_the_newest_are_kept(tmp_path):
    """By number, not by name."""
    for step in (8, 9, 10, 11):
        publish(tmp_path, step)
    assert sorted(p.name for p in (tmp_path / RECOVERIES).iterdir()) == ["step-10", "step-11"]
    found, notes = newest_recovery(tmp_path)
    assert (found.step, Path(found.directory).name, notes) == (11, "step-11", [])


def test_there_may_be_none(tmp_path):
    assert newest_recovery(tmp_path) == (None, [])


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


BREAKS = {
    "m/rank-1 has another checksum": lambda final: flipped(final / "m" / "rank-1"),
    "m/rank-0 has 5 bytes, not 11": lambda final: (final / "m" / "rank-0").write_text("2 of "),
    "m/rank-0 is missing": lambda final: (final / "m" / "rank-0").unlink(),
    "manifest.json: ": lambda final: (final / "manifest.json").write_text("{"),
    "manifest.json: \\[Errno 2\\]": lambda final: (final / "manifest.json").unlink(),
    "manifest.json is of step 1": lambda final: (final / "manifest.json").write_text('{"step":1,"files":[]}'),
}


@pytest.mark.parametrize("fault", BREAKS)
def test_one_that_is_broken_gives_way_to_the_one_before(tmp_path, fault):
    """With a line that says what is wrong; it is there no more."""
    older, newest = publish(tmp_path, 1), publish(tmp_path, 2)
    BREAKS[fault](newest)
    found, (note,) = newest_recovery(tmp_path)
    assert found.directory == str(older)
    assert fault.replace("\\", "") in note and str(newest) in note
    assert not newest.exists() and newest_recovery(tmp_path) == (found, [])


def test_records_end_where_recovery_goes_on(tmp_path):
    """With the evaluation of that step and before the training; whatever was written after it, in whatever
    order, or not to its end, is dropped, and the rest stays to the byte."""
    kept = [("eval", 0), ("train", 0), ("train", 1), ("eval", 2)]
    dropped = [("train", 2), ("eval", 3), ("train", 3)]
    order = [*kept[:3], dropped[0], kept[3], *dropped[1:]]
    metrics = {
        key: json.dumps({"step": key[1], "kind": key[0], "loss": 0.1 + key[1]}) + "\n" for key in order
    }
    records = {
        key: json.dumps({"step": key[1], "evaluating": key[0] == "eval", "text": "é"}, ensure_ascii=False)
        + "\n"
        for key in order
    }
    for name, lines in ((METRICS, metrics), (RECORDS["train"], records)):
        (tmp_path / name).write_text("".join(lines.values()) + '{"step": 0, "kind": "tr')
    found = cut_records(tmp_path, 2)
    assert (found.steps, [(line["kind"], line["step"]) for line in found.metrics]) == (2, kept)
    for name, lines in ((METRICS, metrics), (RECORDS["train"], records)):
        assert (tmp_path / name).read_text() == "".join(lines[key] for key in kept)


@pytest.mark.parametrize(
    ("num_records", "num_metrics", "expected"),
    [(10, 3, 3), (10, 2, 2), (9, 3, 2), (4, 0, 0), (0, 3, 0), (None, None, 0)],
)
def test_a_pass_goes_on_after_its_last_whole_batch(tmp_path, num_records, num_metrics, expected):
    """Of which every record and the metrics are there; what stands behind it, ended or not, is cut off."""
    records = [f'{{"row": {row}, "sample": {sample}}}\n' for row in range(5) for sample in range(2)]
    metrics = [json.dumps({"step": step, "num_sequences": n}) + "\n" for step, n in enumerate((4, 4, 2))]
    if num_records is not None:
        (tmp_path / RECORDS["pass"]).write_text("".join(records[:num_records]) + '{"row": 5, "sam')
        (tmp_path / METRICS).write_text("".join(metrics[:num_metrics]) + '{"step": 9, "num_seq')
    rows = (0, 2, 4, 5)[expected]
    for _ in range(2):
        steps, num_rows, kept = cut_batches(tmp_path, 2)
        assert (steps, num_rows, [line["step"] for line in kept]) == (expected, rows, [*range(expected)])
    if num_records is not None:
        assert (tmp_path / RECORDS["pass"]).read_text() == "".join(records[: 2 * rows])
        assert (tmp_path / METRICS).read_text() == "".join(metrics[:expected])
