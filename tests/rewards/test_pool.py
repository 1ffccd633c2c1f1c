"""Processes that compare: kept, killed, replaced, bounded, and gone with their parent."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from realrl.rewards import child_process
from realrl.rewards.math import check, grade
from realrl.rewards.pool import ChildPool, JudgePool, _pool_of, judge_in_pool
from realrl.rewards.verdict import Verdict

ENDLESS, HONEST = {"answer": "busy"}, {"answer": "honest"}
"""Requests to `hostile_judge`: no answer takes so long to compare."""
MODULES = ("realrl.rewards.child", "tests.rewards.hostile_judge")


def busy_pool(**limits: float) -> ChildPool:
    return ChildPool("tests.rewards.hostile_judge", memory_bytes=1 << 30, **limits)


@pytest.fixture(scope="module")
def pool():
    with JudgePool(num_children=1) as pool:
        yield pool


def with_forks(of: int | None = None) -> list[psutil.Process]:
    return [process for process in psutil.Process(of).children(recursive=True) if is_judge(process)]


def is_judge(process: psutil.Process) -> bool:
    try:
        return any(module in process.cmdline() for module in MODULES)
    except psutil.Error:  # it has just ended
        return False


def children(of: int | None = None) -> list[psutil.Process]:
    """Without their forks, which come and go."""
    found = with_forks(of)
    pids = {process.pid for process in found}
    return [process for process in found if process.ppid() not in pids]


def test_a_child_is_kept_between_questions(pool):
    assert pool.judge("2x/2", "x") is Verdict.CORRECT
    before = children()
    assert pool.judge("3x/2", "x") is Verdict.WRONG
    assert before and children() == before


def test_an_endless_comparison_is_killed_at_its_deadline_and_the_next_one_is_answered():
    before = children()
    with busy_pool(num_children=1, deadline_s=1.0) as pool:
        assert pool.ask(HONEST) == {"score": 0.5}
        (victim,) = [p for p in children() if p not in before]
        start = time.monotonic()
        assert pool.ask(ENDLESS)["verdict"] == Verdict.TIMEOUT
        assert 0.9 < time.monotonic() - start < 3
        # The fork that compared is gone; the child that made it stays.
        assert victim.is_running() and not victim.children()
        assert pool.ask(HONEST) == {"score": 0.5}


def test_a_child_has_nothing_of_its_parents_and_may_reach_nobody(monkeypatch):
    """No variable, no open file but its pipes, no folder of a person's; and its system calls are filtered."""
    monkeypatch.setenv("REALRL_KEYS", "secret")
    with open(os.devnull) as inherited, JudgePool(num_children=1) as fresh:
        os.set_inheritable(inherited.fileno(), True)
        before = children()
        assert fresh.judge("2x/2", "x") is Verdict.CORRECT
        (own,) = [p for p in children() if p not in before]
        assert "REALRL_KEYS" not in own.environ()
        assert own.cwd() == "/"
        files = [os.readlink(f"/proc/{own.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{own.pid}/fd")]
        # Its errors go where its parent's do.
        known = (os.readlink(f"/proc/{own.pid}/fd/2"), os.devnull)
        assert all(file.startswith("pipe:") or file in known for file in files), files
        status = Path(f"/proc/{own.pid}/status").read_text().split()
        assert status[status.index("Seccomp:") + 1] == "2" and status[status.index("NoNewPrivs:") + 1] == "1"


def test_threads_share_the_children():
    """More threads than children: each gets its own verdict."""
    with JudgePool(num_children=2) as pool, ThreadPoolExecutor(8) as threads:
        answers = [f"{i}x + x" for i in range(40)]
        solutions = [f"{i + 1 + i % 2}x" for i in range(40)]
        verdicts = list(threads.map(pool.judge, answers, solutions))
    assert verdicts == [Verdict.CORRECT, Verdict.WRONG] * 20


def test_it_can_be_awaited(pool):
    """While it waits, the loop runs on."""

    async def several() -> tuple[list[Verdict], int]:
        pending = asyncio.gather(
            *(asyncio.to_thread(grade, rf"\boxed{{{i}y}}", ["2y"], pool.judge) for i in (1, 2, 3))
        )
        turns = 0
        while not pending.done():
            await asyncio.sleep(0.0005)
            turns += 1
        return await pending, turns

    verdicts, turns = asyncio.run(several())
    assert verdicts == [Verdict.WRONG, Verdict.CORRECT, Verdict.WRONG] and turns > 0


def test_a_forked_process_has_children_of_its_own():
    """Its parent's may all be lent out at the moment of the fork; to it they would never come back."""
    assert judge_in_pool("x+x", "2x") is Verdict.CORRECT
    shared = _pool_of(os.getpid())
    lent = [shared._idle.get() for _ in shared._children]
    with multiprocessing.get_context("fork").Pool(1) as forked:
        assert forked.apply_async(judge_and_count).get(timeout=60) == (Verdict.WRONG, 1)
    for one in lent:
        shared._idle.put(one)
    assert judge_in_pool("y+y", "2y") is Verdict.CORRECT


def judge_and_count() -> tuple[Verdict, int]:
    return judge_in_pool("x+x", "3x"), len(children())


def test_a_child_that_cannot_start_says_so():
    limits = {"num_children": 1, "deadline_s": 5.0, "memory_bytes": 1 << 30}
    with (
        ChildPool("tests.rewards.absent_judge", **limits) as pool,
        pytest.raises(RuntimeError, match="did not start: OSError: a table is missing"),
    ):
        pool.ask(HONEST)


def test_a_child_that_was_killed_is_replaced():
    before = children()
    with JudgePool(num_children=1, deadline_s=20.0) as pool:
        assert pool.judge("x+x", "2x") is Verdict.CORRECT
        (victim,) = [p for p in children() if p not in before]
        victim.kill()
        victim.wait()
        assert pool.judge("x+x", "2x") is Verdict.CORRECT


def test_a_question_over_which_a_child_is_killed_is_asked_again():
    """So that one that has no end times out, and is no error."""
    before = children()
    with busy_pool(num_children=1, deadline_s=2.0) as pool, ThreadPoolExecutor(1) as threads:
        assert pool.ask(HONEST) == {"score": 0.5}
        (victim,) = [p for p in children() if p not in before]
        reply = threads.submit(pool.ask, ENDLESS)
        time.sleep(0.5)
        victim.kill()
        assert reply.result()["verdict"] == Verdict.TIMEOUT


def test_a_child_that_was_stopped_is_replaced_at_its_deadline(monkeypatch):
    """While it waited; also by a request that is longer than its pipe, which it does not read."""
    monkeypatch.setattr(child_process, "_GRACE_S", 0.1)
    before = children()
    with JudgePool(num_children=1, deadline_s=1.0) as pool:
        for answer, expected in (("x+x", {Verdict.CORRECT}), ("x+" * 100_000 + "x", {*Verdict})):
            assert pool.judge("x+x", "2x") is Verdict.CORRECT
            (victim,) = [p for p in children() if p not in before]
            victim.suspend()
            began_s = time.monotonic()
            assert pool.judge(answer, "2x") in expected
            assert time.monotonic() - began_s < 15 and not victim.is_running()
        assert pool.judge("x+x", "2x") is Verdict.CORRECT


@pytest.mark.parametrize("befall", [psutil.Process.suspend, psutil.Process.kill], ids=["stopped", "killed"])
def test_children_that_are_stopped_or_killed_again_and_again_are_an_error_and_no_end(befall, monkeypatch):
    """Also while they start; once that is over, the next question is answered."""
    monkeypatch.setattr(child_process, "START_DEADLINE_S", 1.0)
    before, is_over = with_forks(), threading.Event()

    def go_on() -> None:
        while not is_over.is_set():
            with suppress(psutil.Error):
                for found in set(with_forks()) - set(before):
                    befall(found)
            time.sleep(0.01)

    with JudgePool(num_children=1, deadline_s=1.0) as pool:
        somebody = threading.Thread(target=go_on)
        somebody.start()
        try:
            assert pool.judge("x+x", "2x") is Verdict.ERROR
        finally:
            is_over.set()
            somebody.join()
        monkeypatch.undo()
        assert pool.judge("x+x", "2x") is Verdict.CORRECT


def test_a_child_starts_within_limits_that_are_set_already():
    """Where it may have fewer files and less time than it would take, it takes that."""
    script = "import resource\nfrom realrl.rewards.pool import JudgePool\n"
    script += "resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))\n"
    script += "resource.setrlimit(resource.RLIMIT_CPU, (50, 50))\n"
    script += "with JudgePool(deadline_s=60.0) as pool:\n    print(pool.judge('x+x', '2x').value)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100)
    assert done.stdout.strip() == Verdict.CORRECT.value, done.stderr


def test_nothing_starts_before_it_is_needed_and_nothing_is_left():
    before = children()
    with JudgePool() as pool:
        assert check("7", ["7"], pool.judge).verdict is Verdict.CORRECT
        assert check("7", ["8"], pool.judge).verdict is Verdict.WRONG
        assert children() == before
        assert check(r"\boxed{\sqrt{49}}", ["7"], pool.judge).verdict is Verdict.CORRECT
        assert len(children()) == len(before) + 1
    assert children() == before


PARENT = f"""
import threading, time
from realrl.rewards.pool import ChildPool
pool = ChildPool("tests.rewards.hostile_judge", num_children=2, deadline_s=60.0, memory_bytes=1 << 30)
pool.ask({HONEST})
threading.Thread(target=pool.ask, args=({ENDLESS},), daemon=True).start()
while pool._idle.qsize() == 2:
    time.sleep(0.01)
time.sleep(1.0)
pool.ask({HONEST})
print("ready", flush=True)
time.sleep(60)
"""


def test_children_end_with_a_killed_parent_even_in_an_endless_comparison():
    """And a stopped one, which does not see its input end."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout.readline() == "ready\n"
    # Two children, one of them with the fork in which it compares.
    orphans = with_forks(parent.pid)
    assert len(orphans) >= 3
    for orphan in orphans[::2]:
        orphan.suspend()
    parent.kill()
    parent.wait()
    parent.stdout.close()
    _, alive = psutil.wait_procs(orphans, timeout=12)
    for orphan in alive:
        orphan.kill()
    assert not alive
