"""Which functions of PyTorch the package names, and with which keyword arguments.

python -m tests.rehearsal.used > NAMES     # for scripts/torch_signatures.py
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "realrl"


def functions() -> dict[str, set[str]]:
    """Dotted names that begin with `torch`, whatever they are imported as, and keywords of their calls."""
    found: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(), str(path))
        imported = dict(_imported(tree))
        for node in ast.walk(tree):
            name = _dotted(node, imported)
            if name and not name.startswith("torch.ops."):
                found.setdefault(name, set())
            if isinstance(node, ast.Call) and (called := _dotted(node.func, imported)):
                keywords = {keyword.arg for keyword in node.keywords if keyword.arg}
                found.setdefault(called, set()).update(keywords)
    return {name: keywords for name, keywords in found.items() if not name.startswith("torch.ops.")}


def _imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Names of a file, and what of PyTorch they stand for."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "torch":
                    whole = alias.name if alias.asname else "torch"
                    yield alias.asname or "torch", whole
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "torch":
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _dotted(node: ast.AST, imported: dict[str, str]) -> str | None:
    """The whole name that an expression like `dist.all_reduce` has."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or node.id not in imported:
        return None
    return ".".join([imported[node.id], *reversed(parts)])


if __name__ == "__main__":
    print("\n".join(sorted(functions())))
