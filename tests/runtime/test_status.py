"""What workers do and wait for, out of their queues; expectations are written down by hand."""

from realrl.api.messages import Underway
from realrl.program.deadlines import Deadlines
from realrl.program.scheduler import Waiting
from realrl.runtime.watch.activity import scene_of, set_up_scene
from realrl.runtime.watch.status import Scene, ranks_in_words
from tests.program.calls import run_call


def _call(seq, ranks, call, preemptible=False):
    return run_call(call, ranks, seq, step=3, preemptible=preemptible)


def _scene(deadlines, underway=None, waiting=()):
    return scene_of(deadlines, underway or {}, waiting, range(4), epoch_s=1000.0)


def _words(scene: Scene):
    return [scene.words(rank) for rank in range(len(scene.workers))]


def test_each_worker_says_what_it_does_and_what_it_waits_for():
    """Rank 1 is busy with something earlier than what it shares with rank 0; rank 3 has nothing."""
    deadlines = Deadlines(10.0)
    deadlines.sent(_call(0, (1,), "reward"), 1.0)
    deadlines.sent(_call(1, (0, 1), "train"), 2.0)
    deadlines.sent(_call(2, (2,), "gen"), 3.0)
    scene = _scene(deadlines, {(2, 2): Underway(seq=2, done=3, total=8)})
    assert _words(scene) == [
        ("call train of step 3", "rank 1 at call reward of step 3"),
        ("call reward of step 3", ""),
        ("call gen of step 3", ""),
        ("nothing", "call reward of step 3 (rank 1); call gen of step 3 (rank 2)"),
    ]
    assert [place.since_s for place in scene.workers] == [1002.0, 1001.0, 1003.0, 1000.0]
    assert [(place.done, place.total) for place in scene.workers] == [(0, 0), (0, 0), (3, 8), (0, 0)]


def test_time_and_company_change_as_ranks_report():
    """Once rank 1 has come, both share the call; once rank 0 has reported, it waits for rank 1."""
    deadlines = Deadlines(10.0)
    deadlines.sent(_call(0, (1,), "reward"), 1.0)
    deadlines.sent(_call(1, (0, 1), "train"), 2.0)
    deadlines.reported(1, 0, 5.0)
    assert _words(_scene(deadlines))[:2] == [
        ("call train of step 3", "rank 1, in it too"),
        ("call train of step 3", "rank 0, in it too"),
    ]
    deadlines.reported(0, 1, 7.0)
    scene = _scene(deadlines)
    assert _words(scene)[:2] == [
        ("nothing", "call train of step 3 (rank 1)"),
        ("call train of step 3", ""),
    ]
    assert [place.since_s for place in scene.workers[:2]] == [1007.0, 1005.0]


def test_a_rank_that_is_preempted_is_at_what_it_does_meanwhile():
    """And goes back to generating."""
    deadlines = Deadlines(10.0)
    deadlines.sent(_call(0, (0,), "gen", preemptible=True), 1.0)
    deadlines.sent(_call(1, (0,), "reward"), 2.0)
    assert _words(_scene(deadlines))[0] == ("call reward of step 3", "")
    deadlines.reported(0, 1, 4.0)
    scene = _scene(deadlines)
    assert (scene.words(0), scene.workers[0].since_s) == (("call gen of step 3", ""), 1004.0)


def test_who_is_idle_waits_for_what_the_graph_says():
    """Not for all that goes on: rank 2's next waits for `gen` alone."""
    deadlines = Deadlines(10.0)
    deadlines.sent(_call(0, (0,), "gen"), 1.0)
    deadlines.sent(_call(1, (1,), "other"), 1.0)
    waiting = [Waiting((2,), {}, frozenset({0})), Waiting((2, 3), {}, frozenset({0, 1}))]
    words = _words(_scene(deadlines, waiting=waiting))
    assert words[2] == ("nothing", "call gen of step 3 (rank 0)")
    assert words[3] == ("nothing", "call gen of step 3 (rank 0); call other of step 3 (rank 1)")


def test_set_up_waits_for_who_is_missing():
    """And they do not wait for each other."""
    scene = set_up_scene("dial in", {1, 2}, range(4), 5.0)
    assert _words(scene) == [
        ("nothing", "dial in (ranks 1-2)"),
        ("dial in", ""),
        ("dial in", ""),
        ("nothing", "dial in (ranks 1-2)"),
    ]


def test_ranks_are_written_in_runs():
    assert ranks_in_words([2]) == "rank 2"
    assert ranks_in_words([7, 0, 1, 2, 9, 10]) == "ranks 0-2, 7, 9-10"
