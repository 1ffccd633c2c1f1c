"""What a user's Python file defines, and what is said where it does not."""

from __future__ import annotations

import pytest

from realrl.base.user_code import is_reference, load_user_function, load_user_object

FILE = """
from dataclasses import dataclass

@dataclass
class Point:
    x: "int" = 3

number = 7

def double(x):
    return 2 * x

async def later(x):
    return x
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(FILE)
    return path


def test_a_reference_is_a_file_and_a_name():
    assert is_reference("own.py:double") and is_reference("~/a/b.py:RECIPE")
    assert not any(map(is_reference, ("grpo", "own.py", "own.py:", "own.py:a-b", "hf:owner/name", "gym:sum")))


def test_what_a_file_defines_is_loaded_once(file):
    """Whichever key names it; a dataclass of its own works, and a file of this name elsewhere is another."""
    double = load_user_function("loss", f"{file}:double", 1, "f(x)")
    assert double(4) == 8 and load_user_function("advantage", f"{file}:double", 1, "f(x)") is double
    assert load_user_object("recipe", f"{file}:Point", "recipe")().x == 3
    other = file.parent / "other" / "own.py"
    other.parent.mkdir()
    other.write_text("number = 8")
    assert load_user_object("a", f"{other}:number", "number") == 8
    assert load_user_object("a", f"{file}:number", "number") == 7


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "own.py:triple",
            r"^loss: .*own.py has no function 'triple'; it has Point, double, later",
        ),
        ("own.py:number", r"^loss: .*own.py:number is no function; expected one that is called as f\(x, y\)"),
        ("own.py:later", "^loss: .*own.py:later is an async function; give a plain one"),
        ("own.py:double", r"^loss: .*own.py:double takes \(x\), expected a function that can be called as"),
        ("none.py:double", "^loss: .*none.py is no file; give the path of a Python file"),
    ],
)
def test_what_cannot_be_meant_is_refused(file, name, message):
    """With the key that named it."""
    with pytest.raises(ValueError, match=message):
        load_user_function("loss", f"{file.parent}/{name}", 2, "f(x, y)")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nothing_of_this_name", r"cannot be loaded \(ModuleNotFoundError: No module named"),
        ("def broken(:", r"cannot be loaded \(SyntaxError"),
        ("raise SystemExit(3)", "it ends the process when it is imported; guard that part"),
    ],
)
def test_a_file_that_does_not_run_is_named(tmp_path, text, message):
    """Every time it is asked for."""
    (tmp_path / "own.py").write_text(text)
    for _ in range(2):
        with pytest.raises(ValueError, match=f"^data.path: .*{message}"):
            load_user_function("data.path", f"{tmp_path}/own.py:rows", 0, "f()")
