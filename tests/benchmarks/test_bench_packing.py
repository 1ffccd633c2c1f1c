"""The packing benchmark, and what it finds in real problems."""

import json
import os
from pathlib import Path

import msgspec
import pytest

from benchmarks import lengths as lengths_of
from benchmarks import packing
from benchmarks.command import main
from benchmarks.lengths import made_lengths, read_lengths
from benchmarks.packing import DPS, NUM_SAMPLES, Packed, Shared

DATA = Path(os.environ.get("REALRL_MATH_DATA", "no-such-folder"))


def rows_of(capsys, *options: str) -> list[Packed | Shared]:
    assert main(["packing", "--json", "--rounds", "1", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    return [msgspec.json.decode(line, type=Packed | Shared) for line in lines]


def test_made_lengths_are_packed_and_shared_out(capsys, monkeypatch):
    """Every size with every budget and every dp; nearly full, fuller than in order, and even."""
    monkeypatch.setattr(packing, "NUM_SAMPLES", (500, 2000))
    rows = rows_of(capsys, "--budgets", "8192,16384")
    packed = [row for row in rows if isinstance(row, Packed)]
    shared = [row for row in rows if isinstance(row, Shared)]
    assert [(r.num_samples, r.max_tokens) for r in packed] == [
        (n, b) for n in (500, 2000) for b in (8192, 16384)
    ]
    assert [(r.num_samples, r.dp) for r in shared] == [(n, dp) for n in (500, 2000) for dp in DPS]
    assert all(r.cpp_s > 0 and r.python_s > 0 and r.num_tokens > 500 * r.num_samples for r in rows)
    for row in packed:
        assert row.in_order_efficiency < 0.97 <= row.efficiency <= 1
        assert row.fewest <= row.num_microbatches <= row.fewest + 1
        assert 1 <= row.imbalance < 1.03
    assert all(1 <= r.imbalance <= r.longest_first_imbalance < 1.001 for r in shared if r.dp < 64)
    assert packing.render(packed).count("\n") == len(packed) + 2
    assert packing.render(shared).count("\n") == len(shared) + 2


def test_made_lengths_have_a_heavy_tail():
    """And are the same each time."""
    made = made_lengths(5000)
    assert made == made_lengths(5000)
    assert min(made) >= 1 and max(made) == 8192
    assert sorted(made)[2500] < 1200 < 1600 < sum(made) / 5000


def test_a_file_of_every_kind_of_line(tmp_path, monkeypatch):
    """A rollout and a problem count their prompts; blank lines count for nothing."""
    monkeypatch.setattr(lengths_of, "_count_tokens", lambda texts: [len(text) for text in texts])
    file = tmp_path / "lines.jsonl"
    lines = [
        {"prompt": "1+1=", "response": "2", "solutions": ["two"], "step": 0},
        {"length": 70},
        {"query_id": "a", "prompt": "2+2=", "solutions": ["four", "4"]},
        {"prompt": "nothing", "response": ""},
    ]
    file.write_text("\n\n".join(map(json.dumps, lines)) + "\n")
    assert read_lengths(file) == [5, 70, 8, 7]


def test_lengths_of_a_file_are_drawn_from_it(tmp_path):
    file = tmp_path / "lengths.jsonl"
    file.write_text("".join(f'{{"length": {n}}}\n' for n in (3, 50, 600)))
    (name, own), *drawn = packing.batches(file, [1000])
    assert (name, own) == ("lengths.jsonl", [3, 50, 600])
    assert [len(lengths) for _, lengths in drawn] == list(NUM_SAMPLES)
    assert all(set(lengths) == {3, 50, 600} for _, lengths in drawn)


@pytest.mark.parametrize(
    ("content", "options", "named"),
    [
        (None, "", "cannot be read"),
        ("\n", "", "it is empty"),
        ('{"length": 3}\n{"length": 0}', "", "jsonl:2: Expected `int` >= 1"),
        ('{"length": 3}\n\n{"task": "math"}', "", "jsonl:3: neither text nor a length"),
        ("{", "", "jsonl:1: "),
        ('{"length": 3000}', "--budgets 8192,2000", "--budgets: expected at least the longest length, 3000"),
    ],
)
def test_bad_files_and_budgets_are_refused_with_one_line(content, options, named, tmp_path, capsys):
    """It says where, and nothing else is printed."""
    file = tmp_path / "lengths.jsonl"
    if content is not None:
        file.write_text(content)
    assert main(["packing", "--file", str(file), *options.split()]) == 2
    out, errors = capsys.readouterr()
    assert not out and errors.count("\n") == 1 and named in errors


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="REALRL_MATH_DATA names no folder of problems")
@pytest.mark.parametrize("name", ["math_train", "gsm8k_train"])
def test_real_problems_are_packed_to_97_percent(name, capsys, monkeypatch):
    """At the budgets that trainers use, and in as few micro-batches as any packing, or one more."""
    monkeypatch.setattr(packing, "NUM_SAMPLES", ())
    rows = rows_of(capsys, "--file", str(DATA / f"{name}.jsonl"), "--budgets", "4096,8192,16384")
    packed = [row for row in rows if isinstance(row, Packed)]
    assert len(packed) == 3
    for row in packed:
        assert row.efficiency >= 0.97
        assert row.num_microbatches <= row.fewest + 1
    assert all(r.imbalance <= r.longest_first_imbalance < 1.001 for r in rows if isinstance(r, Shared))
