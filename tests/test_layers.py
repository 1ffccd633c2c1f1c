"""No folder of realrl imports one below it in the list of layers, and no import runs in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "realrl"

LAYERS = (
    "base",
    "api",
    "ops",
    "layouts",
    "algorithms",
    "program",
    "parallel",
    "models",
    "realloc",
    "engines",
    "verifier",
    "rewards",
    "datasets",
    "recipes",
    "planner",
    "runtime",
    "launch",
    "apps",
    "__main__",
)
"""Each may import those before it."""


def modules_of(package: Path) -> dict[str, Path]:
    """Dotted name to file, of every module."""
    modules = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


def imported_names(module: str, path: Path) -> Iterator[str]:
    """Dotted names that a file imports, also inside functions; `from a import b` gives `a.b`."""
    folder = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = folder.split(".")[: len(folder.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def imports_of(package: Path) -> dict[str, set[str]]:
    """Each module, and the package's modules that it imports."""
    modules = modules_of(package)
    graph = {}
    for module, path in modules.items():
        found = set()
        for name in imported_names(module, path):
            # What is not a module itself is a name inside one.
            target = name if name in modules else name.rpartition(".")[0]
            if target in modules and target != module:
                found.add(target)
        graph[module] = found
    return graph


def layer_of(module: str) -> int:
    """A module's place in the list; the package itself stands before all."""
    folder = module.split(".")[1:2]
    return LAYERS.index(folder[0]) if folder else -1


def faults(package: Path) -> list[str]:
    """Each upward import and each circle, in words."""
    graph = imports_of(package)
    unknown = {m for m in graph if m.count(".") and m.split(".")[1] not in LAYERS}
    found = [f"{module} is in no layer" for module in sorted(unknown)]
    for module, targets in graph.items():
        for target in sorted(targets - unknown):
            if module not in unknown and layer_of(target) > layer_of(module):
                found.append(f"{module} imports {target}, which stands below it")
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found.append("circle: " + " -> ".join(error.args[1]))
    return found


def test_imports_run_one_way():
    """The project itself."""
    assert len(modules_of(PACKAGE)) > 10
    assert faults(PACKAGE) == []


def package_of(directory: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = directory / "realrl" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return directory / "realrl"


ORDERLY = {
    "__init__.py": "",
    "api/__init__.py": "",
    "api/graph.py": "import torch",
    "ops/__init__.py": "",
    "ops/gae.py": "from realrl.api import graph\nfrom realrl.api.graph import Call",
}


def test_an_orderly_package_has_no_faults(tmp_path):
    assert faults(package_of(tmp_path, ORDERLY)) == []


@pytest.mark.parametrize(
    ("file", "text", "fault"),
    [
        ("api/graph.py", "from realrl.ops.gae import gae", "realrl.api.graph imports realrl.ops.gae"),
        ("api/graph.py", "from realrl.ops import gae", "realrl.api.graph imports realrl.ops.gae"),
        ("api/graph.py", "import realrl.ops.gae as g", "realrl.api.graph imports realrl.ops.gae"),
        ("api/graph.py", "from ..ops import gae", "realrl.api.graph imports realrl.ops.gae"),
        ("api/graph.py", "def f():\n    import realrl.ops", "realrl.api.graph imports realrl.ops"),
        ("__init__.py", "from realrl.api import graph", "realrl imports realrl.api.graph"),
        ("misc/tool.py", "", "realrl.misc.tool is in no layer"),
    ],
)
def test_a_planted_upward_import_is_found(tmp_path, file, text, fault):
    """Whichever way it is written."""
    assert any(found.startswith(fault) for found in faults(package_of(tmp_path, {**ORDERLY, file: text})))


def test_a_planted_circle_is_found(tmp_path):
    """Two modules of one folder."""
    circle = {"api/a.py": "from realrl.api import b", "api/b.py": "from .a import x"}
    assert any(found.startswith("circle: ") for found in faults(package_of(tmp_path, {**ORDERLY, **circle})))
