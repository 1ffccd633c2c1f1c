"""Who is blamed when workers fail, die or are late. Channel and launcher are scripts here; time is real."""

import random
import time
from pathlib import Path

import msgspec
import pytest

from realrl.api.messages import Done, Failed, Hello, Ready, Underway
from realrl.base import watching as attention
from realrl.program.deadlines import Deadlines
from realrl.program.scheduler import Waiting
from realrl.runtime.failure import RunFailed, RunRefused
from realrl.runtime.master import crew as crew_module
from realrl.runtime.master.crew import Crew
from realrl.runtime.watch import run_watch as watch_module
from realrl.runtime.watch import stacks
from realrl.runtime.watch.run_watch import Watch
from realrl.runtime.watch.stacks import WANTED
from realrl.runtime.watch.status import STATUS, Status
from tests.program.calls import run_call

SLEEPS = """Thread 0x00007f10 (most recent call first):
  File "/lib/queue.py", line 10 in get

Current thread 0x00007f11 (most recent call first):
  File "/home/me/rewards.py", line 3 in score
  File "/lib/realrl/apps/worker.py", line 33 in main
"""


@pytest.fixture(autouse=True)
def _impatient(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for module, name in ((crew_module, "_POLL_S"), (crew_module, "_BLAME_S"), (stacks, "_WITHIN_S")):
        monkeypatch.setattr(module, name, 0.05)


class ScriptedChannel:
    def __init__(self, *messages):
        self.messages, self.sent = list(messages), []

    def send(self, ranks, message):
        self.sent.append((ranks, message))

    def receive(self, timeout_s):
        return self.messages.pop(0) if self.messages else None


class ScriptedLauncher:
    """Reports `ended` from the `after`-th question on; ranks show `stacks` when they are asked."""

    def __init__(self, ended=(), after=0, lost="", stacks=None):
        self.ended, self.after, self.lost, self.stacks = list(ended), after, lost, stacks or {}

    def poll(self):
        self.after -= 1
        return self.ended if self.after < 0 else []

    def explain(self):
        return self.lost

    def log_path(self, rank):
        return Path(f"worker-{rank}.log")

    def dump_stacks(self):
        for rank, text in self.stacks.items():
            self.log_path(rank).write_text(text)

    def states(self, ranks):
        return dict.fromkeys(ranks, "stopped (T)")


def _call(seq, ranks, call="actor_train", step=3, preemptible=False):
    return run_call(call, ranks, seq, step=step, preemptible=preemptible)


def _crew(launcher, *messages, timeout_s=5.0):
    crew = _idle_crew(launcher, *messages, timeout_s=timeout_s)
    crew.send(_call(0, (0, 1)))
    return crew


def _idle_crew(launcher, *messages, timeout_s=5.0):
    return Crew(ScriptedChannel(*messages), launcher, Watch(Path(), launcher, 2), timeout_s)


def test_a_death_names_rank_call_and_step():
    """The signal, too."""
    with pytest.raises(RunFailed, match=r"rank 1 died \(killed by SIGKILL\) in call actor_train of step 3"):
        _crew(ScriptedLauncher([(1, -9)])).receive()


def test_the_dead_are_blamed_for_what_their_peers_report(monkeypatch):
    """Rank 0's collective breaks first, but it is rank 1 that died."""
    broken = (0, Failed(seq=0, error="RuntimeError: Connection closed by peer", traceback=""))
    monkeypatch.setattr(crew_module, "_BLAME_S", 5.0)
    with pytest.raises(RunFailed, match="rank 1 died"):
        _crew(ScriptedLauncher([(1, -9)], after=1), broken).receive()


def test_a_failure_names_rank_call_step_and_error(caplog):
    """The traceback goes to the log."""
    failed = (1, Failed(seq=0, error="ValueError: boom", traceback="line 1\nline 2"))
    with pytest.raises(RunFailed, match="rank 1 failed in call actor_train of step 3: ValueError: boom; see"):
        _crew(ScriptedLauncher(), failed).receive()
    assert "line 2" in caplog.text


def test_a_rank_that_refuses_its_inputs_is_not_restarted():
    """Its own words are the message."""
    refused = (1, Failed(seq=None, error="data.path: rank 1 on n2 reads", traceback="", refused=True))
    with pytest.raises(RunRefused, match="^data.path: rank 1 on n2 reads; see "):
        _idle_crew(ScriptedLauncher(), refused).set_up(None)


def test_what_the_launcher_knows_comes_first():
    """A lost node explains a death, a failure and a stall."""
    broken = (0, Failed(seq=0, error="RuntimeError: Connection closed by peer", traceback=""))
    for message, ended in [((), [(1, -9)]), ((broken,), []), ((), [])]:
        launcher = ScriptedLauncher(ended, lost="node n2 was lost, and with it rank 1")
        with pytest.raises(RunFailed, match=r"^node n2 was lost, and with it rank 1; ranks? [01]"):
            _crew(launcher, *message, timeout_s=0.2).receive()


def test_a_stall_names_those_that_did_not_report():
    """Rank 0 has reported; rank 1 is late, and one line says where it is and which file has the rest: each
    rank's stacks, what was waited for, and the edges that wait for it.
    """
    launcher = ScriptedLauncher(stacks={0: SLEEPS, 1: SLEEPS})
    crew = _crew(launcher, (0, Done(seq=0, started_s=0, ended_s=1)), timeout_s=0.2)
    assert crew.receive()[0] == 0
    waits = [Waiting((0,), {0: "actor_train -> reallocate actor_gen (weights)"}, frozenset({0}))]
    with pytest.raises(RunFailed) as failure:
        crew.receive(waiting=lambda: waits)
    line = (
        "rank 1 made no progress with call actor_train of step 3 for 0.2 s (call_timeout_s): in score "
        "(/home/me/rewards.py:3); all stacks are in hang.txt"
    )
    assert str(failure.value) == line
    report = Path("hang.txt").read_text()
    assert report.startswith(failure.value.what + "\n") and "hang.txt" not in failure.value.what
    assert "actor_train -> reallocate actor_gen (weights)" in report
    assert report.count("/home/me/rewards.py") == 3 and "own_stacks" in report
    assert ", of rank 1, with the last progress at " in report
    assert "== rank 0: nothing, for" in report and "== rank 1: call actor_train of step 3, for" in report


def test_a_rank_that_shows_no_stack_is_to_blame():
    """Not the one that waits for it."""
    with pytest.raises(
        RunFailed, match=r"^rank 1 made no progress with .*: no stack within .* process stopped \(T\);"
    ):
        _crew(ScriptedLauncher(stacks={0: SLEEPS}), timeout_s=0.2).receive()


def test_a_stall_is_seen_while_others_go_on(monkeypatch):
    """Messages without end do not hide it."""
    monkeypatch.setattr(crew_module, "_READING_S", 0.5)
    crew = _crew(ScriptedLauncher(), timeout_s=0.2)
    end_s = time.monotonic() + 10

    def receive(timeout_s):
        assert time.monotonic() < end_s
        return 0, Underway(seq=0, done=1, total=8)

    monkeypatch.setattr(crew._channel, "receive", receive)
    with pytest.raises(RunFailed, match="ranks 0-1 made no progress with call actor_train"):
        crew.receive()


def test_reports_that_piled_up_are_read_before_any_is_late():
    """The master was busy elsewhere: what is in its post is not late."""
    said = [(0, Underway(seq=0, done=1, total=8))] * 100
    ended = [(rank, Done(seq=0, started_s=0, ended_s=1)) for rank in (0, 1)]
    crew = _crew(ScriptedLauncher(), *said, *ended, timeout_s=0.2)
    time.sleep(0.4)
    assert [crew.receive()[0] for _ in range(2)] == [0, 1]


def test_a_call_that_progresses_is_not_late_and_one_that_repeats_itself_is(monkeypatch):
    """For six times its deadline each word is of a later token; then the same word is said on and on."""
    monkeypatch.setattr(crew_module, "_READING_S", 0.05)
    crew = _crew(ScriptedLauncher(), timeout_s=0.2)
    began_s, words = time.monotonic(), iter(range(1, 1 << 30))

    def receive(timeout_s):
        time.sleep(0.02)
        assert time.monotonic() - began_s < 10, "it is never late"
        moves = time.monotonic() - began_s < 1.2
        return 0, Underway(seq=0, done=0, total=8, steps=next(words) if moves else 1)

    monkeypatch.setattr(crew._channel, "receive", receive)
    with pytest.raises(RunFailed, match=r"made no progress with call actor_train of step 3 for 0.2 s"):
        crew.receive()
    assert 1.2 < time.monotonic() - began_s < 5


@pytest.mark.parametrize("phase", ["set up", "step"])
def test_a_master_that_was_stopped_looks_again_before_it_blames(monkeypatch, phase):
    """Frozen for ten times the deadline, and its workers with it, which report once all go on."""
    monkeypatch.setattr(attention, "LONGEST_LOOK_S", 0.1)
    ready = [(rank, Ready()) for rank in (0, 1)]
    done = [(rank, Done(seq=0, started_s=0, ended_s=1)) for rank in (0, 1)]
    crew = _idle_crew(ScriptedLauncher(stacks={0: SLEEPS, 1: SLEEPS}), timeout_s=0.3)
    reads = iter(["freeze", None, *(ready if phase == "set up" else done)])

    def receive(timeout_s):
        if (read := next(reads)) == "freeze":
            time.sleep(3)
            return None
        return read

    monkeypatch.setattr(crew._channel, "receive", receive)
    if phase == "set up":
        crew.set_up(None)
    else:
        crew.send(_call(0, (0, 1)))
        assert [crew.receive()[0] for _ in range(2)] == [0, 1]


def test_what_ranks_say_of_a_call_is_added_up_until_it_ends():
    """The last word of each; the master hears of it at once."""
    said = [Underway(seq=0, done=done, total=8) for done in (1, 2, 5)]
    ended = [(rank, Done(seq=0, started_s=0, ended_s=1)) for rank in (0, 1)]
    crew = _crew(ScriptedLauncher(), (0, said[0]), (1, said[1]), (0, said[2]), *ended)
    shown = []
    crew.receive(lambda: shown.extend(map(str, crew.running)))
    assert shown == [f"call actor_train of step 3 ({n})" for n in ("1/8", "3/16", "7/16")]
    crew.receive()
    assert crew.running == []


def test_a_report_that_nobody_asked_for_is_not_heeded(caplog):
    """Of an instruction that never was, of one that another rank was sent, or one that is done already."""
    at_a_time = {"started_s": 0, "ended_s": 1}
    forged = [(0, Done(seq=9, **at_a_time)), (1, Done(seq=-1, **at_a_time)), (2, Done(seq=0, **at_a_time))]
    forged.append((0, Underway(seq=9, done=10**9, total=1)))
    real = (0, Done(seq=0, **at_a_time))
    crew = _crew(ScriptedLauncher(), *forged, real, real, (1, Done(seq=0, **at_a_time)))
    assert crew.receive()[0] == 0
    assert crew.receive()[0] == 1
    assert crew.running == []
    assert "rank 0 speaks of 9, which it was not asked for" in caplog.text


def test_an_idle_worker_that_dies_ends_the_run():
    """It has nothing to do, so the message says what went on elsewhere."""
    crew = _idle_crew(ScriptedLauncher([(1, 0)]))
    crew.send(_call(0, (0,), "actor_gen"))
    with pytest.raises(RunFailed, match=r"rank 1 died \(exit code 0\) while it waited for call actor_gen"):
        crew.receive()


def test_set_up_waits_for_every_worker():
    """And says who never came."""
    messages = (0, Hello()), (1, Hello()), (1, Ready())
    crew = _idle_crew(ScriptedLauncher(stacks={0: SLEEPS, 1: SLEEPS}), *messages, timeout_s=0.2)
    crew.wait_for_workers()
    with pytest.raises(RunFailed, match=r"rank 0 did not set up within 0.2 s .* in score .* in hang.txt"):
        crew.set_up(None)


def test_time_runs_from_when_all_ranks_are_free():
    """Ranks 0 and 1 share the second call: while rank 1 is busy with the first, it is not late."""
    deadlines = Deadlines(10.0)
    deadlines.sent(_call(0, (1,), "long"), 0.0)
    deadlines.sent(_call(1, (0, 1), "shared"), 0.0)
    assert deadlines.overdue(9.0) is None
    assert [i.call for i in deadlines.running()] == ["long"]
    deadlines.reported(1, 0, 9.5)
    assert deadlines.overdue(19.0) is None
    assert deadlines.overdue(20.0).instruction.call == "shared"
    deadlines.reported(0, 1, 19.0)
    assert deadlines.overdue(29.0) is None
    assert deadlines.overdue(29.1).awaited == {1}


def test_time_runs_at_once_on_ranks_that_step_aside():
    """While they generate, what else they are to do is not late for that, and is reported first; meanwhile
    the generation's own time stands still.
    """
    deadlines = Deadlines(10.0)
    deadlines.sent(_call(0, (0,), "gen", preemptible=True), 0.0)
    deadlines.sent(_call(1, (0, 1), "reward"), 5.0)
    deadlines.sent(_call(2, (1,), "train"), 6.0)
    assert deadlines.overdue(15.5).instruction.call == "reward" == deadlines.current(0).call
    assert deadlines.find(1, 2).call == "train" and deadlines.find(0, 2) is None
    assert [i.call for i in deadlines.running()] == ["gen", "reward"]
    for rank in (0, 1):
        deadlines.reported(rank, 1, 8.0)
    assert [i.call for i in deadlines.running()] == ["gen", "train"]
    assert deadlines.current(0).call == "gen"
    assert deadlines.overdue(12.9) is None
    assert deadlines.overdue(13.1).instruction.call == "gen"
    deadlines.reported(0, 0, 13.5)
    assert deadlines.overdue(18.5).instruction.call == "train"
    with pytest.raises(AssertionError, match="rank 1 reports 7 out of order"):
        deadlines.reported(1, 7, 19.0)


@pytest.mark.parametrize("seed", range(40))
def test_times_are_those_of_a_walk_over_all_queues(seed):
    """Random instructions, progress and reports; the oracle goes through every queue anew after each."""
    chance = random.Random(seed)
    deadlines, walk = Deadlines(6.0), _Walk(6.0)
    for now_s in range(120):
        walk.pass_to(now_s)
        able = [(rank, o) for rank in range(4) for o in walk.at_hand(rank)]
        if able and chance.random() < 0.7:
            rank, call = chance.choice(able)
            if chance.random() < 0.5:
                deadlines.progressed(call.seq, now_s)
            else:
                assert deadlines.reported(rank, call.seq, now_s) is call
                walk.queues[rank].remove(call)
            walk.spent_s.update({call.seq: 0} if call.seq in walk.spent_s else {})
        else:
            ranks = tuple(sorted(chance.sample(range(4), chance.randint(1, 4))))
            call = _call(now_s, ranks, preemptible=chance.random() < 0.4)
            deadlines.sent(call, now_s)
            for rank in ranks:
                walk.queues[rank].append(call)
        walk.pass_to(now_s)
        assert [i.seq for i in deadlines.running()] == sorted(walk.spent_s)
        late = deadlines.overdue(now_s + 0.5)
        assert (late and late.instruction.seq) == walk.overdue(now_s + 0.5)


class _Walk:
    """What `Deadlines` says, by its definition."""

    def __init__(self, timeout_s):
        self.timeout_s, self.now_s = timeout_s, 0
        self.queues = {rank: [] for rank in range(4)}
        self.spent_s = {}
        """By seq, of what has started and not ended: without progress."""

    def at_hand(self, rank):
        queue = self.queues[rank]
        return queue[: next((i for i, call in enumerate(queue) if not call.preemptible), len(queue)) + 1]

    def pass_to(self, now_s):
        """Time goes to what runs; what may start now does."""
        for seq in self._going():
            self.spent_s[seq] += now_s - self.now_s
        self.now_s = now_s
        waiting = {call.seq: call for queue in self.queues.values() for call in queue}
        self.spent_s = {seq: spent_s for seq, spent_s in self.spent_s.items() if seq in waiting}
        for seq, call in waiting.items():
            holders = [rank for rank, queue in self.queues.items() if call in queue]
            if all(call in self.at_hand(rank) for rank in holders):
                self.spent_s.setdefault(seq, 0)

    def overdue(self, now_s):
        going = self._going()
        late = [seq for seq in going if self.spent_s[seq] + now_s - self.now_s > self.timeout_s]
        return min(late, default=None)

    def _going(self):
        aside = {call.seq for queue in self.queues.values() for call in queue[:-1] if call.preemptible}
        return [seq for seq in self.spent_s if seq not in aside]


def test_the_status_follows_the_run(monkeypatch):
    """From set-up to its end, which it says also when it is a bad one; a step's time is its own."""

    def status():
        return msgspec.json.decode(Path(STATUS).read_bytes(), type=Status)

    monkeypatch.setattr(watch_module, "_LOOK_EVERY_S", 0.0)
    launcher = ScriptedLauncher(stacks={0: SLEEPS, 1: SLEEPS})
    set_up = [(rank, message) for message in (Hello(), Ready()) for rank in (0, 1)]
    done = [(rank, Done(seq=0, started_s=0, ended_s=1)) for rank in (0, 1)]
    with pytest.raises(RunFailed, match="rank 1"), Watch(Path(), launcher, 2) as watch:
        assert status().phase == "starts"
        crew = Crew(ScriptedChannel(*set_up, *done), launcher, watch, 0.2)
        crew.wait_for_workers()
        crew.set_up(None)
        assert status().phase == "workers set up" and status().scene.work[0].ranks == (1,)
        crew.send(_call(0, (0, 1)))
        begun, before = [(crew.receive(), status())[1] for _ in done]
        assert before.step == 3 and before.phase_since_s == begun.phase_since_s
        assert before.scene.words(0)[1] == "call actor_train of step 3 (rank 1)"
        crew.send(_call(1, (1,), step=4))
        crew.receive()
    after = status()
    assert after.is_over and after.phase.startswith(
        "failed: rank 1 made no progress with call actor_train of step 4"
    )
    assert after.step == 4 and after.written_s > before.written_s


def test_stacks_are_shown_once_workers_are_up(monkeypatch):
    """Before that, the signal that asks for them would end who still loads."""
    monkeypatch.setattr(watch_module, "_LOOK_EVERY_S", 0.0)
    launcher = ScriptedLauncher(stacks={0: SLEEPS, 1: SLEEPS})
    messages = [(rank, message) for message in (Hello(), Ready()) for rank in (0, 1)]
    with Watch(Path(), launcher, 2) as watch:
        Path(WANTED).touch()
        crew = Crew(ScriptedChannel(*messages), launcher, watch, 0.2)
        crew.wait_for_workers()
        assert Path(WANTED).exists() and not launcher.log_path(0).exists()
        crew.set_up(None)
        assert not Path(WANTED).exists() and launcher.log_path(0).exists()
