"""Nothing that is read can run code: no pickle, no eval, no YAML but the safe one."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = {"pickle", "cPickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}
CALLS = {
    *("eval", "exec", "compile", "__import__"),
    *("torch.load", "torch.jit.load", "torch.hub.load", "torch.package.PackageImporter", "torch.save"),
    *("np.load", "numpy.load", "pandas.read_pickle", "pd.read_pickle", "os.system", "os.popen"),
    *("yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "yaml.unsafe_load_all", "yaml.full_load_all"),
    *("connection.recv", "connection.send", "dist.all_gather_object", "dist.broadcast_object_list"),
    *("dist.gather_object", "dist.scatter_object_list", "dist.send_object_list", "dist.recv_object_list"),
}
"""By how they are written; a collective of objects pickles them."""
LOADERS = (".from_pretrained", "LLM")
"""How calls end that take a model's directory, and could run code that is in it."""
SAFE_LOADER = "_Loader"
"""Of api/documents.py, whose base is SafeLoader."""
OF_PEERS = ROOT / "realrl" / "apps" / "benchmarks" / "peers"
"""What is measured there against realrl is other people's code, and saves and loads as that does."""


def faults(text: str) -> Iterator[str]:
    """What in a module could run code that it reads."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            yield node.module
        elif isinstance(node, ast.Call):
            yield from _of_call(node)


def _of_call(call: ast.Call) -> Iterator[str]:
    name = ast.unparse(call.func)
    keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    if name.lstrip("_").removeprefix("self._") in CALLS:
        yield name
    if name == "yaml.load" and (len(call.args) < 2 or ast.unparse(call.args[1]) != SAFE_LOADER):
        yield "yaml.load without the safe loader"
    for keyword, safe in (("trust_remote_code", "False"), ("allow_pickle", "False"), ("shell", "False")):
        if keywords.get(keyword, safe) != safe:
            yield f"{keyword}={keywords[keyword]}"
    if name.endswith(LOADERS) and "trust_remote_code" not in keywords:
        yield f"{name} without trust_remote_code"
    if keywords.get("weights_only") == "False":
        yield "weights_only=False"


def test_no_module_runs_what_it_reads():
    """All of the package but its benchmarks' peers."""
    paths = [path for path in (ROOT / "realrl").rglob("*.py") if OF_PEERS not in path.parents]
    assert len(paths) > 100
    found = {str(path.relative_to(ROOT)): list(faults(path.read_text())) for path in paths}
    assert {path: of for path, of in found.items() if of} == {}


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from cloudpickle import loads",
        "torch.load(path, weights_only=True)",
        "eval(answer)",
        "yaml.load(text)",
        "yaml.load(text, yaml.Loader)",
        "np.load(path)",
        "AutoModel.from_pretrained(path, trust_remote_code=True)",
        "AutoTokenizer.from_pretrained(path)",
        "LLM(path)",
        "subprocess.run(command, shell=True)",
        "dist.broadcast_object_list(objects)",
        "def f():\n    exec(text)",
    ],
)
def test_a_planted_fault_is_found(text):
    """So that the test above can fail."""
    assert list(faults(text))


def test_ordinary_code_has_no_faults():
    assert not list(faults("yaml.load(text, _Loader)\nmodel.eval()\nre.compile('x')\nrun(c, shell=False)"))
