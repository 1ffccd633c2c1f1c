"""Rows of a function of a user's own."""

from __future__ import annotations

import pytest

from realrl.api.data import DataConfig
from realrl.datasets.prompts import load_prompts
from tests.tiny import tiny_tokenizer

FILE = """
import dataclasses

def rows():
    for number in range(3):
        yield {"question": f"{number}+1=", "answer": number + 1, "id": number}

def held_out():
    return [{"prompt": "9+9=", "solutions": ["18"]}]

def nothing():
    return []

def texts():
    return ["3+4="]

def one():
    return {"prompt": "3+4="}

def broken():
    yield {"prompt": "3+4=", "solutions": ["7"]}
    raise KeyError("no such thing")

def poor():
    return [{"prompt": "3+4=", "solutions": []}]
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(FILE)
    return path


def test_they_are_read_as_those_of_a_file_are(file):
    """Names of known data sets are recognised, and both sides may be made so."""
    data = DataConfig(path=f"{file}:rows", eval_path=f"{file}:held_out", template="plain")
    rows, held_out = load_prompts(data, tiny_tokenizer())
    assert [rows.prompt(row) for row in range(3)] == ["0+1=", "1+1=", "2+1="]
    assert [rows.solutions(row) for row in range(3)] == [["1"], ["2"], ["3"]]
    assert held_out.solutions(0) == ["18"]
    assert any("takes `question` as `prompt`" in note for note in rows.notes)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "^data.path: .*own.py:nothing: the dataset is empty"),
        ("texts", "^data.path: .*own.py:texts: row 1: expected a mapping, got a str"),
        ("one", r"^data.path: .*own.py:one gave a dict, expected f\(\), which returns rows"),
        ("broken", "^data.path: .*own.py:broken raised KeyError: 'no such thing'; mend it"),
        ("poor", "^data.path: .*own.py:poor: row 1"),
        ("missing", "^data.path: .*own.py has no function 'missing'"),
    ],
)
def test_what_is_no_row_is_named_by_its_place(file, name, message):
    with pytest.raises(ValueError, match=message):
        load_prompts(DataConfig(path=f"{file}:{name}", template="plain"), tiny_tokenizer())
