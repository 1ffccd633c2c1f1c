"""Objects of a user's own files."""

from __future__ import annotations

import sys

import pytest

from realrl.base.user_files import is_file_reference, load_from_file

SOURCE = """
from __future__ import annotations
from dataclasses import dataclass
from typing import ClassVar

import msgspec

class Keys(msgspec.Struct):
    inner: Inner

class Inner(msgspec.Struct):
    size: int

@dataclass
class Settings:
    shared: ClassVar[int] = 3

RUNS = []
RUNS.append(1)
"""


def load(reference: str, fits=callable) -> object:
    return load_from_file(reference, setting="a.b", what="thing", fits=fits)


def test_annotations_of_a_file_can_be_looked_up(tmp_path):
    """By msgspec and dataclasses, which go by the name of the module."""
    import msgspec

    file = tmp_path / "mine.py"
    file.write_text(SOURCE)
    keys = load(f"{file}:Keys")
    assert msgspec.json.decode(b'{"inner": {"size": 2}}', type=keys).inner.size == 2
    assert load(f"{file}:Settings").shared == 3


def test_a_file_is_run_once_however_its_path_is_written(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    is_list = lambda value: isinstance(value, list)  # noqa: E731
    one, other = load("mine.py:RUNS", is_list), load(f"{tmp_path}/mine.py:RUNS", is_list)
    assert one is other and one == [1]


def test_files_of_one_name_are_two_modules(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(f"def name(): return {folder!r}")
    assert [load(f"{tmp_path}/{folder}/mine.py:name")() for folder in ("a", "b")] == ["a", "b"]


def test_a_file_that_fails_leaves_no_module_and_is_run_again_once_mended(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("raise OSError('no such host')")
    before = set(sys.modules)
    with pytest.raises(
        ValueError, match=r"^a.b: .*mine.py cannot be loaded \(OSError: no such host\); mend it"
    ):
        load(f"{file}:name")
    assert set(sys.modules) == before
    file.write_text("def name(): return 1")
    assert load(f"{file}:name")() == 1


def test_what_is_missing_is_said_with_what_is_there(tmp_path):
    (tmp_path / "mine.py").write_text("def one(): ...\ndef two(): ...\ndef _hidden(): ...\nthree = 3\n")
    with pytest.raises(ValueError, match="a.b: .*mine.py has no thing 'three'; it has one, two$"):
        load(f"{tmp_path}/mine.py:three")
    with pytest.raises(ValueError, match="a.b: nowhere.py is no file; give the path of a Python file"):
        load("nowhere.py:one")


def test_a_reference_has_a_file_and_a_name():
    assert is_file_reference("a/b.py:Name")
    assert not any(map(is_file_reference, ("a/b.py", "b.py:", "b.txt:Name", "math", "b.py:two words")))
