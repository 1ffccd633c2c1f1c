"""Reward functions of a user's own: their forms, one at a time, at once, and many at the same time."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path

import pytest

from realrl.rewards.calling import MOST_OPEN, rewards_by
from realrl.rewards.functions import load_function
from tests.rewards.samples import group_of, sample_of

CODE = """
import asyncio, functools, threading, time

open_now, most_open, threads, loops, cancelled = 0, 0, set(), set(), 0

def texts(prompt, response, solutions):
    assert prompt == "3+4=" and solutions == ["7"]
    return len(response)

def one(sample):
    assert sample.turns[0].text == sample.response
    return len(sample.tokens) + 10 * sample.ended + sample.metadata.get("bonus", 0)

def all_at_once(samples):
    return [len(samples) + len(sample.group) for sample in samples]

async def slow(sample):
    global open_now, most_open
    open_now += 1
    most_open = max(most_open, open_now)
    threads.add(threading.get_ident())
    loops.add(id(asyncio.get_running_loop()))
    await asyncio.sleep(0.05)
    open_now -= 1
    return len(sample.response)

async def slow_texts(prompt, response, solutions):
    await asyncio.sleep(0)
    return None if response == "8" else len(response)

async def slow_list(samples):
    await asyncio.sleep(0)
    return [len(sample.response) for sample in samples]

async def fails_on_8(sample):
    global cancelled
    if sample.response == "8":
        raise KeyError("no 8")
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        cancelled += 1
        raise

async def leaves(sample):
    raise SystemExit(0)

def short(samples):
    return [1.0]

def texts_in_a_list(samples):
    return ["much" for sample in samples]

def endless(samples):
    return [float("inf")] * len(samples)

class Caller:
    async def __call__(self, sample):
        return 3.0

caller = Caller()
bound = functools.partial(slow_texts, "3+4=")

def unlike(sample, response, solutions):
    return float(sample == "3+4=")

def optional(samples, weight=2.0, *more):
    return [weight] * len(samples)
"""


@pytest.fixture(scope="module")
def code(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("functions") / "mine.py"
    path.write_text(CODE)
    return path


def module_of(code: Path) -> dict:
    """Return the names of the module that the functions are run in."""
    return load_function(f"{code}:one").function.__globals__


@pytest.mark.parametrize(
    ("name", "takes", "is_async"),
    [
        ("texts", "texts", False),
        ("one", "sample", False),
        ("all_at_once", "samples", False),
        ("slow", "sample", True),
        ("slow_texts", "texts", True),
        ("slow_list", "samples", True),
        ("caller", "sample", True),
        ("unlike", "texts", False),
        ("optional", "samples", False),
    ],
)
def test_the_first_parameter_tells_the_forms_apart(code, name, takes, is_async):
    """A function of three texts stays one, whatever its parameters are named."""
    found = load_function(f"{code}:{name}")
    assert (found.takes, found.is_async, found.needs_groups) == (takes, is_async, takes != "texts")


@pytest.mark.parametrize(
    "body", ["def f(x): return 1", "def f(sample, other): return 1", "def f(): return 1"]
)
def test_another_form_is_refused_with_the_three(tmp_path, body):
    (tmp_path / "mine.py").write_text(body)
    message = r"expected a function that can be called as f\(prompt, response, solutions\), f\(sample\) or"
    with pytest.raises(ValueError, match=message):
        load_function(f"{tmp_path}/mine.py:f")


def _note(said: list[tuple[int, int]], done: int, total: int) -> None:
    said.append((done, total))


def test_each_form_has_its_rewards_in_order(code):
    """And each response is progress; a list is one piece of work."""
    samples = group_of(sample_of("7"), sample_of("so 7", ended=False), sample_of("8", metadata={"bonus": 5}))
    expected = {
        "texts": [1, 4, 1],
        "one": [11, 4, 16],
        "all_at_once": [6, 6, 6],
        "slow": [1, 4, 1],
        "slow_texts": [1, 4, None],
        "slow_list": [1, 4, 1],
        "caller": [3, 3, 3],
        "unlike": [1, 1, 1],
        "optional": [2, 2, 2],
    }
    for name, rewards in expected.items():
        said: list[tuple[int, int]] = []
        progress = partial(_note, said)
        assert rewards_by(f"{code}:{name}", samples, progress) == rewards
        is_list = load_function(f"{code}:{name}").takes == "samples"
        assert said == ([(3, 3)] if is_list else [(1, 3), (2, 3), (3, 3)])
        assert rewards_by(f"{code}:{name}", []) == []


def test_async_calls_run_at_the_same_time_up_to_a_bound(code):
    """In one loop for all steps, so that a client that is kept in it can be used again."""
    samples = [sample_of(f"{number}") for number in range(2 * MOST_OPEN + 3)]
    for _ in range(2):
        assert rewards_by(f"{code}:slow", samples) == [len(sample.response) for sample in samples]
    names = module_of(code)
    assert names["most_open"] == MOST_OPEN and names["open_now"] == 0
    assert names["threads"] == {threading.get_ident()} and len(names["loops"]) == 1


def test_the_first_error_ends_all_open_calls(code):
    samples = [sample_of("7"), sample_of("9"), sample_of("8")]
    with pytest.raises(RuntimeError, match="fails_on_8 raised KeyError: 'no 8'; the response was '8'"):
        rewards_by(f"{code}:fails_on_8", samples)
    assert module_of(code)["cancelled"] == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("leaves", "leaves raised SystemExit: 0; the response was '7'"),
        (
            "short",
            "short gave 1 rewards, expected one for each of 2 samples; the first of 2 responses was '7'",
        ),
        ("texts_in_a_list", "texts_in_a_list raised ValueError: could not convert string to float"),
        ("endless", "endless gave inf, expected a number from .*; the response was '7'"),
    ],
)
def test_a_function_that_fails_is_named(code, name, message):
    with pytest.raises(RuntimeError, match=message):
        rewards_by(f"{code}:{name}", [sample_of("7"), sample_of("8")])
