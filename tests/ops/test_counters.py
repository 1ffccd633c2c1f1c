"""Counters between two real processes."""

from __future__ import annotations

import mmap
import multiprocessing
import signal
import threading
import time

import pytest
import torch

from realrl.ops import kernels
from realrl.ops.counters import publish, wait_at_least

PATIENCE_S = 60.0


@pytest.fixture(params=["kernel", "fallback"])
def implementation(request, monkeypatch):
    """Both, in this process; those it starts choose by the name."""
    if request.param == "fallback":
        monkeypatch.setattr(kernels, "cpu_kernels", lambda: None)
    return request.param


def test_cpu_kernel_is_built():
    """Without it the tests below would test the fallback twice."""
    assert kernels.cpu_kernels() is not None


def shared_words(path, num_words=3):
    """int32 words of a file, which every process that maps it shares."""
    with open(path, "a+b") as file:
        file.truncate(4096)
        return torch.frombuffer(mmap.mmap(file.fileno(), 4096), dtype=torch.int32)[:num_words]


def echo(path, implementation, num_rounds):
    """Answer each number in the first word, once the third holds it, by the same in the second."""
    if implementation == "fallback":
        kernels.cpu_kernels = lambda: None
    asked, answered, payload = shared_words(path).split(1)
    for i in range(1, num_rounds + 1):
        assert wait_at_least(asked, i, PATIENCE_S)
        assert payload.item() == i * i
        payload.fill_(-i)
        publish(answered, i)


def test_two_processes_take_turns(tmp_path, implementation):
    """Each sees what the other wrote before it published, turn after turn."""
    path, num_rounds = tmp_path / "shared", 300
    asked, answered, payload = shared_words(path).split(1)
    process = multiprocessing.get_context("spawn").Process(
        target=echo, args=(path, implementation, num_rounds)
    )
    process.start()
    for i in range(1, num_rounds + 1):
        payload.fill_(i * i)
        publish(asked, i)
        assert wait_at_least(answered, i, PATIENCE_S)
        assert payload.item() == -i
    process.join()
    assert process.exitcode == 0


def test_waiting_ends_in_time(implementation):
    """False after the timeout, not before and not long after; at once where nothing is to be waited for."""
    counter = torch.tensor([4], dtype=torch.int32)
    start = time.monotonic()
    assert not wait_at_least(counter, 5, 0.25)
    assert 0.25 <= time.monotonic() - start < 5
    start = time.monotonic()
    assert wait_at_least(counter, 4, PATIENCE_S) and wait_at_least(counter, -1, PATIENCE_S)
    assert not wait_at_least(counter, 5, 0.0)
    assert time.monotonic() - start < 5


def test_all_who_wait_are_woken(implementation):
    """Threads of one process wait at once, for it or for less: the GIL is free meanwhile."""
    counter, results = torch.zeros(1, dtype=torch.int32), []
    threads = [
        threading.Thread(target=lambda i=i: results.append(wait_at_least(counter, i, PATIENCE_S)))
        for i in (1, 2, 3, 3)
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    assert not results
    publish(counter, 3)
    for thread in threads:
        thread.join()
    assert results == [True] * 4


def test_a_signal_ends_the_wait(implementation):
    """Ctrl-C's handler runs soon, and what it raises comes out."""

    def interrupt(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            wait_at_least(torch.zeros(1, dtype=torch.int32), 1, PATIENCE_S)
        assert time.monotonic() - start < 5
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(
    "counter", [torch.zeros(1), torch.zeros(2, dtype=torch.int32), torch.zeros((), dtype=torch.int32)]
)
def test_what_is_no_counter_is_refused(counter):
    """The kernel reads raw memory, so nothing of a wrong type or shape may reach it."""
    with pytest.raises(ValueError, match="torch.int32 \\[1\\]"):
        publish(counter, 1)
    with pytest.raises(ValueError, match="torch.int32 \\[1\\]"):
        wait_at_least(counter, 1, 0.0)
