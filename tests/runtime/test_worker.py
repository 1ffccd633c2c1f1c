"""What a worker does between two tokens."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from types import SimpleNamespace

from realrl.api.mesh import DeviceMesh, ParallelLayout, Placement
from realrl.api.messages import Done, Preempt, Stop
from realrl.program.instructions import Forget, RunCall
from realrl.runtime.worker import worker as worker_module
from realrl.runtime.worker.worker import Worker
from tests.program.calls import run_call


@dataclass
class Channel:
    """Messages that have arrived, and what was sent."""

    messages: deque = field(default_factory=deque)
    sent: list = field(default_factory=list)

    def receive(self):
        return self.messages.popleft()

    def arrived(self):
        return self.messages

    def send(self, message):
        self.sent.append(message)


def worker(*messages) -> Worker:
    parts = dict.fromkeys(("recipe", "config", "plan", "groups", "replicas", "data"))
    return Worker(
        rank=0, channel=Channel(deque(messages)), store=SimpleNamespace(forget=lambda job: None), **parts
    )


def call(seq: int) -> RunCall:
    return run_call("gen", (0,), seq, preemptible=True)


def forget(seq: int) -> Forget:
    return Forget(seq=seq, calls=("gen",), ranks=(0,), job=0)


def test_a_break_is_due_at_the_sign_for_this_call_and_ends_with_it():
    """What was sent before is carried out and reported; what came after waits."""
    some = worker(forget(8), forget(9), Preempt(seq=7, ranks=(0,)), forget(10))
    preemption = some._preemption(call(7))
    assert preemption.pending()
    preemption.run()
    assert [done.seq for done in some.channel.sent] == [8, 9]
    assert all(isinstance(done, Done) for done in some.channel.sent)
    assert not preemption.pending() and [m.seq for m in some.channel.messages] == [10]


def test_what_waits_without_a_sign_is_not_due():
    """Nor is a sign for another call."""
    some = worker(forget(8), Preempt(seq=6, ranks=(0,)))
    assert not some._preemption(call(7)).pending()


def test_a_sign_for_a_call_that_has_ended_is_passed_over():
    some = worker(Preempt(seq=7, ranks=(0,)), forget(8), Stop())
    some.serve()
    assert [done.seq for done in some.channel.sent] == [8]


def test_progress_is_said_now_and_then_with_the_steps_so_far(monkeypatch):
    """Each word of a call counts, though not each is sent, and no sample has ended."""
    now_s = [0.0]
    monkeypatch.setattr(worker_module.time, "monotonic", lambda: now_s[0])
    some = worker()
    placement = Placement(DeviceMesh((0,)), ParallelLayout())
    object.__setattr__(some, "plan", {"gen": placement})
    say = some._progress(call(7))
    for _ in range(40):
        now_s[0] += 0.125
        say(0, 8)
    assert [(said.seq, said.done, said.total) for said in some.channel.sent] == [(7, 0, 8)] * 10
    assert [said.steps for said in some.channel.sent] == list(range(4, 41, 4))
