"""Every wait for other ranks or for a device is marked, so that who holds up a run is found by the marks."""

import ast
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

import realrl
from realrl.base import waiting

ROOT = Path(realrl.__file__).parent
ROOMS = ("api", "models", "parallel", "realloc", "engines", "recipes", "runtime/worker")
"""Where a worker's main thread may wait for others."""
NO_WAITS = {"get_rank", "get_world_size", "get_process_group_ranks", "destroy_process_group", "P2POp"}
"""Functions of torch.distributed that return at once, or end a worker."""
OWN_PROCESSES = {"engines/vllm/engine_process.py", "engines/vllm/weights.py"}
"""Files that wait for a child of the worker, or that run in that child."""
NO_BLOCKS = {"_arrival", "arrival"}
"""`Arrival.wait` has a stream wait, not the host."""


def test_marks_are_in_the_stack_and_return_what_the_wait_returns():
    def wait(number, *, more):
        return [frame.name for frame in traceback.extract_stack()], number + more

    for mark in (waiting.wait_for_ranks, waiting.wait_for_device, waiting.wait_for_instruction):
        names, total = mark(wait, 1, more=2)
        assert names[-2:] == [mark.__name__, "wait"] and total == 3


@pytest.mark.parametrize("room", ROOMS)
def test_every_wait_is_marked(room):
    """A wait is handed to a mark, never called."""
    unmarked = []
    for path in sorted((ROOT / room).rglob("*.py")):
        name = str(path.relative_to(ROOT))
        if name not in OWN_PROCESSES:
            tree = ast.parse(path.read_text())
            unmarked += [f"{name}:{line}" for line in _waits_called(tree)]
    assert not unmarked, f"call these through realrl.base.waiting: {unmarked}"


def test_an_unmarked_wait_is_found():
    called = "dist.recv(x, 1)\nwork.wait()\ntorch.cuda.synchronize()\ndist.get_rank()\narrival.wait()"
    assert list(_waits_called(ast.parse(called))) == [1, 2, 3]
    marked = "wait_for_ranks(dist.recv, x, 1)\nwait_for_ranks(work.wait)\nwait_for_device(event.synchronize)"
    assert not list(_waits_called(ast.parse(marked)))


def _waits_called(tree: ast.AST) -> Iterator[int]:
    """Yield the line of each wait that is called here and not by a mark."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = getattr(node.func.value, "id", getattr(node.func.value, "attr", ""))
            if _is_wait(owner, node.func.attr):
                yield node.lineno


def _is_wait(owner: str, function: str) -> bool:
    if owner == "dist":
        return function not in NO_WAITS
    if function == "wait":
        return owner not in NO_BLOCKS
    return function == "synchronize"
