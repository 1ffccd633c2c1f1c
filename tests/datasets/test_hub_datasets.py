"""Datasets of the Hugging Face Hub: the real `datasets` library against a server of our own."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import pytest

from realrl.api.data import DataConfig
from realrl.datasets.parquet import dataset_commit
from realrl.datasets.prompts import load_prompts
from tests.tiny import tiny_tokenizer

pytest.importorskip("datasets")

CARD = b"""---
configs:
- config_name: main
  data_files:
  - {split: train, path: main/train-*}
  - {split: test, path: main/test-*}
- config_name: other
  data_files: other/train-*
---
"""
READ = """
import json, sys
from realrl.datasets.parquet import read_hugging_face

for path, split, commit in json.loads(sys.argv[1]):
    try:
        rows = [row for _, row in read_hugging_face(path, split, "data.path", {"question"}, commit)]
        print(json.dumps(rows[0]["question"]))
    except ValueError as error:
        print(json.dumps(str(error)))
"""
"""In a process of its own, as the library looks at its environment when it is imported."""


def parquet(question: str) -> bytes:
    import pyarrow
    from pyarrow.parquet import write_table

    file = io.BytesIO()
    write_table(pyarrow.table({"question": [question], "answer": ["4"]}), file)
    return file.getvalue()


def files(question: str) -> dict[str, bytes]:
    """A dataset of two configurations."""
    splits = {
        "main/train-0.parquet": question,
        "main/test-0.parquet": "test",
        "other/train-0.parquet": "other",
    }
    card = {"README.md": CARD, ".gitattributes": b"*.parquet filter=lfs"}
    return card | {path: parquet(text) for path, text in splits.items()}


def read(*cases: tuple[str, str, str | None]) -> list[str]:
    """The first row's question, or the message, of each (path, split, commit)."""
    command = [sys.executable, "-c", READ, json.dumps(cases)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_rows_are_those_of_the_commit(hub, monkeypatch):
    """By a revision or a pinned commit; the cache of another commit does not do, in silence least of all."""
    repository = hub.add("acme/sums", "dataset")
    first = repository.commit(files("1+1"), "v1")
    second = repository.commit(files("2+2"))
    assert dataset_commit("hf:acme/sums:main", "data.path") == second
    assert dataset_commit("hf:acme/sums@v1:main", "data.path") == first
    assert read(
        ("hf:acme/sums:main", "train", None),
        ("hf:acme/sums:main", "test", second),
        ("hf:acme/sums:other", "train", second),
        ("hf:acme/sums@v1:main", "train", None),
        ("hf:acme/sums:main", "train", first),
    ) == ["2+2", "test", "other", "1+1", "1+1"]
    no_config, no_split = read(("hf:acme/sums", "train", None), ("hf:acme/sums:main", "dev", None))
    assert no_config.startswith("data.path: hf:acme/sums: ")
    assert "'main', 'other'" in no_config and "'train', 'test'" in no_split

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert dataset_commit("hf:acme/sums@v1:main", "data.path") == first
    kept, other = read(("hf:acme/sums:main", "train", first), ("hf:acme/sums:main", "train", "0" * 40))
    assert kept == "1+1"
    assert "out of reach, and the cache has another commit of it than 0000" in other


@pytest.mark.parametrize(
    ("path", "token", "said"),
    [
        ("hf:acme/none", None, "no dataset of that name, or a private one"),
        (
            "hf:acme/gated",
            None,
            "it is gated; ask for access at http.*/datasets/acme/gated, then set HF_TOKEN",
        ),
        ("hf:acme/gated", "guest", "gated, and the account of your token has no access"),
        ("hf:acme/open@v9:main", None, "that dataset, but no revision 'v9'"),
        ("hf:./folder", None, "expected hf:OWNER/NAME"),
    ],
)
def test_what_the_hub_refuses_is_said(hub, monkeypatch, path, token, said):
    """Before a worker starts."""
    hub.add("acme/gated", "dataset", gated=True).commit({"README.md": b""})
    hub.add("acme/open", "dataset").commit({"README.md": b""})
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(ValueError, match=f"^data.path: {path}: .*{said}"):
        dataset_commit(path, "data.path")


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("HF_HUB_OFFLINE", "1", "HF_HUB_OFFLINE is set, and the cache .* does not have all of it"),
        ("HF_ENDPOINT", "http://127.0.0.1:9", "the connection to http://127.0.0.1:9 failed"),
    ],
)
def test_without_the_hub_a_new_dataset_is_refused(hub, monkeypatch, variable, value, said):
    hub.add("acme/open", "dataset").commit({"README.md": b""})
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=f"^data.path: hf:acme/open: {said}"):
        dataset_commit("hf:acme/open", "data.path")


def test_what_is_no_dataset_of_the_hub_has_no_commit(tmp_path):
    for path in ("sums", "rows.jsonl", f"hf:{tmp_path}"):
        assert dataset_commit(path, "data.path") is None


def test_a_name_without_hf_is_said():
    with pytest.raises(ValueError, match="^data.path: there is no file 'openai/gsm8k'.*hf:openai/gsm8k:main"):
        load_prompts(DataConfig(path="openai/gsm8k", template="plain"), tiny_tokenizer())
