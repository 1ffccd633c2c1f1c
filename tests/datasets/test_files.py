"""Data files as people have them: what is read, and what is named by its kind."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os

import pyarrow
import pytest

from realrl.api.data import DataConfig
from realrl.datasets.prompts import load_problems

ROWS = [{"query_id": str(a), "prompt": f"{a}+1?", "solutions": [str(a + 1)]} for a in range(3)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
PLAIN = [(row["query_id"], row["prompt"], row["solutions"]) for row in ROWS]


def zstd(content: bytes) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


def load(path, content: bytes | str):
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return load_problems(DataConfig(path=str(path)), held_out=False)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)),
        ("rows.json.gz", gzip.compress(json.dumps(ROWS).encode(), mtime=0)),
        ("rows.jsonl.zst", zstd(LINES.encode())),
        ("rows.jsonl", bz2.compress(LINES.encode())),
        ("rows.xz", lzma.compress(LINES.encode())),
        ("rows.jsonl", LINES.replace("\n", "\r")),
        ("rows.jsonl", LINES.replace("\n", "\r\n")),
        ("rows.jsonl", "\ufeff" + LINES),
        ("rows.json", "\ufeff" + json.dumps(ROWS)),
        ("rows.json", LINES),
        ("rows.jsonl", json.dumps(ROWS, indent=2)),
        ("rows.json", json.dumps({"version": "1", "tags": ["a"], "data": ROWS}, indent=2)),
        ("rows.json", json.dumps({"rows": ROWS, "authors": []})),
    ],
)
def test_every_form_of_a_file_gives_the_same_rows(tmp_path, name, content):
    """Packed or not, with any line ends, a byte-order mark, a list, or a list under a key."""
    rows, notes = load(tmp_path / name, content)
    assert [(row.query_id, row.prompt, row.solutions) for row in rows] == PLAIN
    assert not notes


@pytest.mark.parametrize("indent", [None, 1])
def test_a_file_of_one_row_is_no_wrapped_one(tmp_path, indent):
    """Though it holds a list of objects; messages are no rows either."""
    row = {**ROWS[0], "steps": [{"a": 1}]}
    rows, _ = load(tmp_path / "one.json", json.dumps(row, indent=indent))
    assert [row.prompt for row in rows] == ["0+1?"] and rows[0].place.endswith("one.json:1")
    with pytest.raises(ValueError, match=r"one\.json:1: no `prompt`, but `turns`; say which"):
        load(tmp_path / "one.json", json.dumps({"turns": [{"role": "user", "content": "1+1?"}]}))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.csv", "question,answer\n1+1?,2\n", "rows.csv is a table of text .CSV.: write it as JSONL, or"),
        ("rows.jsonl", "question,answer\n1+1?,2\n", "rows.jsonl is a table of text .CSV."),
        ("rows.jsonl", LINES.encode("utf-16"), "rows.jsonl is text in UTF-16: write it in UTF-8"),
        ("rows.jsonl", LINES.encode("utf-16-le"), "rows.jsonl is text in UTF-16"),
        ("rows.jsonl", b"PAR1\x15\x04", "rows.jsonl is a Parquet file: rename it to end in .parquet"),
        ("rows.zip", b"PK\x03\x04\x14\x00", "rows.zip is a zip archive: unpack it"),
        ("rows.gz", gzip.compress(LINES.encode(), mtime=0)[:-9], "rows.gz: cannot unpack this gzip file"),
        ("rows.zst", zstd(LINES.encode())[:-9], "rows.zst: cannot unpack this zstd file"),
        ("rows.json", json.dumps({"train": ROWS, "test": ROWS}), "under the keys `train`, `test`; write the"),
        ("rows.jsonl", '{"prompt": "1", "x": ' + "[" * 1_000_000, "rows.jsonl:1: it is nested too deeply"),
        ("rows.json", "[" * 1_000_000, "rows.json: it is nested too deeply"),
        ("rows.jsonl", "", "rows.jsonl: the dataset is empty"),
        ("rows.jsonl", "\ufeff\n", "rows.jsonl: the dataset is empty"),
        ("rows.json", "[]", "rows.json: the dataset is empty"),
    ],
)
def test_other_files_are_named(tmp_path, name, content, message):
    with pytest.raises(ValueError, match=message):
        load(tmp_path / name, content)


def test_only_files_are_read(tmp_path):
    """Every rank reads the rows: what gives them but once, or without end, is refused."""
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "b.jsonl").write_text(LINES)
    os.mkfifo(tmp_path / "pipe.parquet")
    for path, message in (
        (tmp_path / "pipe.parquet", "pipe.parquet is a pipe"),
        (tmp_path / "pipe.jsonl", "pipe.jsonl is a pipe, which can be read but once"),
        ("/dev/zero", "data.path: /dev/zero is a device: give a file"),
        (tmp_path / "folder", r"folder is a folder: give one of its files, as .*/folder/b\.jsonl, or hf:"),
    ):
        with pytest.raises(ValueError, match=message):
            load_problems(DataConfig(path=str(path)), held_out=False)


def test_json_as_python_writes_it(tmp_path):
    """NaN, infinities, halves of characters and numbers of any length; in columns that are not used, too."""
    extra = '"pass_rate": NaN, "best": -Infinity, "text": "\\ud83d", "seed": ' + "9" * 5000
    lines = [f'{{"prompt": "{a}+1?", "solutions": ["{a}"], {extra}}}' for a in range(2)]
    rows, notes = load(tmp_path / "rows.jsonl", "\n".join(lines))
    assert [row.prompt for row in rows] == ["0+1?", "1+1?"] and not notes
    rows, notes = load(tmp_path / "rows.json", f"[{','.join(lines)}]")
    assert [row.prompt for row in rows] == ["0+1?", "1+1?"] and not notes


def test_halves_of_characters_are_replaced_and_counted(tmp_path):
    """Where they are used; a whole character may be written as two halves."""
    texts = ["1+1?", "\\ud83d\\ude00", "a\\ud83d"]
    lines = [f'{{"prompt": "{text}", "solutions": "2"}}\n' for text in texts]
    rows, (note,) = load(tmp_path / "rows.jsonl", "".join(lines))
    assert [row.prompt for row in rows] == ["1+1?", "\U0001f600", "a\ufffd"]
    assert "1 of 3 rows have halves of characters" in note and note.endswith("rows.jsonl:3")


def test_repeated_ids_are_counted(tmp_path):
    _, (note,) = load(tmp_path / "rows.jsonl", LINES + LINES)
    assert "3 of 6 rows have the `query_id` of an earlier one" in note and "rows.jsonl:4 ('0')" in note
