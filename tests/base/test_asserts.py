"""Asserts are checks alone: `python -O` and PYTHONOPTIMIZE leave them out."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "realrl"
PURE = {
    *(
        "len",
        "bool",
        "int",
        "isinstance",
        "callable",
        "torch.arange",
        "tensor.dim",
        "tensor.is_contiguous",
        "cpu_module",
    ),
    *("self.is_open", "self.pages_for", "_takes"),
}
"""Calls that an assert may make, as they are written: they change nothing that anything else reads."""
REDUCTIONS = {"all", "any"}
"""Methods of a comparison."""
EFFECTS = (ast.NamedExpr, ast.Await, ast.Yield, ast.YieldFrom)


def faults(text: str) -> Iterator[str]:
    """What asserts of a module do beside looking."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Assert):
            yield from filter(None, map(_effect, ast.walk(node.test)))


def _effect(node: ast.AST) -> str | None:
    if isinstance(node, EFFECTS):
        return ast.unparse(node)
    if not isinstance(node, ast.Call):
        return None
    called = node.func
    is_reduction = isinstance(called, ast.Attribute) and called.attr in REDUCTIONS
    is_known = ast.unparse(called) in PURE or (is_reduction and not isinstance(called.value, ast.Name))
    return None if is_known else ast.unparse(node)


def test_no_assert_does_anything():
    """All of the package. A call that is new in an assert, and pure, is added to PURE."""
    paths = list(PACKAGE.rglob("*.py"))
    assert len(paths) > 100
    found = {str(path.relative_to(PACKAGE)): list(faults(path.read_text())) for path in paths}
    assert {path: of for path, of in found.items() if of} == {}


@pytest.mark.parametrize(
    "text",
    [
        "assert self.types.setdefault(key, value) == value",
        "assert (found := look()) is not None",
        "assert queue.pop()",
        "assert seen.add(1) is None, 'why'",
        "async def f():\n    assert await ready",
    ],
)
def test_a_planted_effect_is_found(text):
    """So that the test above can fail."""
    assert list(faults(text))
