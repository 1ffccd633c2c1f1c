"""How densely the package is written: limits that keep its code readable.

Measured over functions and methods, without their docstrings: syntax nodes a line, comprehensions, lengths.
Docstrings are counted over public functions.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import realrl

PACKAGE = Path(realrl.__file__).parent
MOST_NODES_A_LINE = 9.5
MOST_NODES_A_LINE_IN_ONE = 16.0
"""In any one function of at least `SHORT` lines: in shorter ones, one statement decides."""
SHORT = 7
MOST_COMPREHENSIONS_PER_100_LINES = 4.0
MOST_LINES_P99 = 40
LEAST_DOCUMENTED = 0.85

Function = ast.FunctionDef | ast.AsyncFunctionDef
Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


class Measured(NamedTuple):
    """A function, and how it is written."""

    where: str
    folder: str
    is_public: bool
    is_documented: bool
    length: int
    """Lines, with its head and its docstring."""
    num_lines: int
    """Lines of its body."""
    num_nodes: int
    num_comprehensions: int


def _functions(tree: ast.AST) -> Iterator[Function]:
    for node in ast.walk(tree):
        if isinstance(node, Function):
            yield node


def _measured(function: Function, path: Path) -> Measured:
    relative = path.relative_to(PACKAGE)
    body = function.body
    is_documented = ast.get_docstring(function, clean=False) is not None
    if is_documented:
        body = body[1:]
    nodes: list[ast.AST] = []
    for statement in body:
        nodes += ast.walk(statement)
    num_lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
    return Measured(
        where=f"{relative}:{function.lineno} {function.name}",
        folder=relative.parts[0],
        is_public=not function.name.startswith("_"),
        is_documented=is_documented,
        length=(function.end_lineno or 0) - function.lineno + 1,
        num_lines=num_lines,
        num_nodes=len(nodes),
        num_comprehensions=sum(isinstance(node, Comprehension) for node in nodes),
    )


@lru_cache
def _package() -> list[Measured]:
    measured = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for function in _functions(ast.parse(path.read_text(encoding="utf-8"))):
            measured.append(_measured(function, path))
    return measured


def _share_documented(functions: list[Measured]) -> float:
    public = [function for function in functions if function.is_public]
    return sum(function.is_documented for function in public) / len(public)


def test_lines_are_not_dense():
    """Syntax nodes and comprehensions, over all lines of function bodies."""
    num_lines = sum(function.num_lines for function in _package())
    nodes_a_line = sum(function.num_nodes for function in _package()) / num_lines
    comprehensions = 100 * sum(function.num_comprehensions for function in _package()) / num_lines
    assert nodes_a_line <= MOST_NODES_A_LINE
    assert comprehensions <= MOST_COMPREHENSIONS_PER_100_LINES


def test_no_function_is_dense():
    dense = []
    for function in _package():
        if function.num_lines >= SHORT and function.num_nodes > MOST_NODES_A_LINE_IN_ONE * function.num_lines:
            dense.append(f"{function.num_nodes / function.num_lines:.1f} {function.where}")
    assert dense == []


def test_functions_are_short():
    lengths = sorted(function.length for function in _package())
    assert lengths[int(0.99 * len(lengths))] <= MOST_LINES_P99


def test_public_functions_have_docstrings():
    """Every one of the recipes, which people read first."""
    recipes = [function for function in _package() if function.folder == "recipes"]
    bare = [function.where for function in recipes if function.is_public and not function.is_documented]
    assert bare == []
    assert _share_documented(_package()) >= LEAST_DOCUMENTED


def test_the_measure_counts_what_it_says():
    """One function by hand: `return [a for a in b]` has 9 nodes with their contexts on its one line."""
    (function,) = _functions(ast.parse('def f(b):\n    """Doc."""\n    return [a for a in b]\n'))
    measured = _measured(function, PACKAGE / "recipes" / "one.py")
    assert (measured.length, measured.num_comprehensions, measured.is_documented) == (3, 1, True)
    # Return, ListComp, Name a, Load, comprehension, Name a, Store, Name b, Load
    assert measured.num_nodes == 9
