from __future__ import annotations

import subprocess
import sys
import time

import psutil
import pytest

from realrl.rewards import symbolic
from realrl.rewards.math import grade
from realrl.rewards.pool import SymbolicPool
from realrl.rewards.verdict import Verdict

ENDLESS = "9^{9^{9^{9}}}"


@pytest.fixture(scope="module")
def pool():
    with SymbolicPool(num_children=1) as pool:
        yield pool


def children() -> list[psutil.Process]:
    return [p for p in psutil.Process().children(recursive=True) if "realrl.rewards.symbolic" in p.cmdline()]


@pytest.mark.parametrize(
    ("answer", "solution"),
    [
        (r"2\sqrt{3}", r"\sqrt{12}"),
        ("(x+1)^2", "x^2+2x+1"),
        (r"\{2,1\}", "1,2"),
        (r"\pm 2", "-2, 2"),
        (r"(3,\pi/2)", r"\left( 3, \frac{\pi}{2} \right)"),
        ("i^2 + 2i + 7", "6 + 2i"),
        (r"\begin{pmatrix}1&\frac{8}{2}\end{pmatrix}", r"\begin{pmatrix}1&4\end{pmatrix}"),
        (r"x\in[-2,14/2]", "[-2,7]"),
        (r"\sqrt{0.25}", "1/2"),
        (r"\sin^2 x+\cos^2 x", "1"),
        ("y=2x+3", "3+2x"),
        (r"\binom{5}{2}", "10"),
    ],
)
def test_equal_expressions(pool, answer, solution):
    assert grade(f"\\boxed{{{answer}}}", [solution], pool.equal) is Verdict.CORRECT


@pytest.mark.parametrize(
    ("answer", "solution"),
    [
        (r"\sqrt{3}", r"\sqrt{2}"),
        ("x+1", "x+2"),
        ("p-q", "P-Q"),
        (r"\{1,2,3\}", "1,2"),
        (r"\{1,1\}", "1,2"),
        ("(1,2)", "(2,1)"),
        ("[1,2)", "[1,2]"),
        (r"\begin{pmatrix}1&4\end{pmatrix}", r"\begin{pmatrix}1\\4\end{pmatrix}"),
        (r"\sqrt{0.11}", "0.333"),
        ("x<5", r"x\le 5"),
        ("see (above", r"\pi"),
        ("__import__('os').getpid()", r"\pi"),
        (r"\infty", "1"),
        (r"\infty", r"-\infty"),
    ],
)
def test_unequal_expressions(pool, answer, solution):
    assert pool.equal(answer, solution) is Verdict.WRONG


def test_a_child_is_kept_between_questions(pool):
    pool.equal("x", "2x/2")
    (first,) = children()
    pool.equal("x", "3x/3")
    assert children() == [first]


def test_an_endless_comparison_is_killed_at_its_deadline_and_the_next_one_is_answered():
    """The power of integers is one C call that holds the interpreter's lock: only a kill ends it."""
    before = children()
    with SymbolicPool(num_children=1, deadline_s=1.0) as pool:
        assert pool.equal("x+x", "2x") is Verdict.CORRECT
        (victim,) = [p for p in children() if p not in before]
        start = time.monotonic()
        assert pool.equal(ENDLESS, r"\pi") is Verdict.TIMEOUT
        assert 0.9 < time.monotonic() - start < 3
        assert not victim.is_running()
        assert pool.equal("x+x", "2x") is Verdict.CORRECT


def test_a_comparison_out_of_memory_ends_the_child(monkeypatch):
    """A reply after it would come from a process in an unknown state."""
    monkeypatch.setattr(symbolic, "equal", exhaust)
    with pytest.raises(MemoryError):
        symbolic._reply({"left": "x", "right": "y"})


def exhaust(left: str, right: str) -> bool:
    raise MemoryError


def test_the_memory_limit_holds_and_a_child_that_cannot_start_says_so():
    with SymbolicPool(memory_bytes=32 << 20) as pool, pytest.raises(RuntimeError, match="did not start"):
        pool.equal("x", "y")


def test_a_broken_comparison_is_an_error_and_the_child_goes_on(monkeypatch):
    monkeypatch.setattr(symbolic, "equal", lambda left, right: 1 / 0)
    assert symbolic._reply({"left": "x", "right": "y"}) == {"error": "ZeroDivisionError: division by zero"}


def test_a_child_that_was_killed_is_replaced():
    before = children()
    with SymbolicPool(num_children=1, deadline_s=20.0) as pool:
        assert pool.equal("x+x", "2x") is Verdict.CORRECT
        (child,) = [p for p in children() if p not in before]
        child.kill()
        child.wait()
        assert pool.equal("x+x", "2x") is Verdict.CORRECT


def test_nothing_starts_before_it_is_needed_and_nothing_is_left():
    before = children()
    with SymbolicPool() as pool:
        assert grade("7", ["7"], pool.equal) is Verdict.CORRECT
        assert children() == before
        assert grade(r"\boxed{\sqrt{49}}", ["7"], pool.equal) is Verdict.CORRECT
        assert len(children()) == len(before) + 1
    assert children() == before


PARENT = f"""
import threading, time
from realrl.rewards.pool import SymbolicPool
pool = SymbolicPool(num_children=2, deadline_s=3.0)
pool.equal("x", "y")
threading.Thread(target=pool.equal, args=("{ENDLESS}", "x"), daemon=True).start()
pool.equal("x", "z")
print("ready", flush=True)
time.sleep(60)
"""


def test_children_end_with_a_killed_parent_even_in_an_endless_comparison():
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout.readline() == "ready\n"
    orphans = psutil.Process(parent.pid).children(recursive=True)
    assert len(orphans) == 2
    parent.kill()
    parent.wait()
    parent.stdout.close()
    _, alive = psutil.wait_procs(orphans, timeout=12)
    for orphan in alive:
        orphan.kill()
    assert not alive
