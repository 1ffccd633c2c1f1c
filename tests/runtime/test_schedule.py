"""What a run does, in order."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realrl.api.evals import HELD_OUT, EvalConfig
from realrl.program.jobs import Programs, in_order, samples_of
from realrl.program.program import Program
from realrl.runtime.master.schedule import Pass, Training, epoch_rows, spare_rows


class Rows:
    levels = ()
    sets = ()

    def __init__(self, num):
        self.num = num

    def __len__(self):
        return self.num

    def length(self, row):
        return row + 1


def _schedule(num_held_out=3, **settings):
    usual = {"num_steps": 3, "batch_size": 2, "seed": 1, "eval_every": 0, "save_every": 0, "max_staleness": 0}
    usual |= {"eval_at_start": True}
    usual |= {"keep_best": False, "recover_every": 0}
    config = SimpleNamespace(**usual | settings)
    held_out = Rows(num_held_out) if num_held_out else None
    train, recovery = Program(("train",), ahead=("gen",)), Program(("flush",), ahead=("snapshot",))
    programs = Programs(train, Program(("eval",)), Program(("save",)), recovery, {})
    return Training(config, programs, 2, Rows(5), held_out, Path("run"))


def _kinds(**settings):
    jobs = list(_schedule(**settings).jobs())
    assert [job.number for job in jobs] == list(range(len(jobs)))
    return [f"{'best' if job.only_if_best else job.program.instructions[-1]} {job.step}" for job in jobs]


def test_both_ends_are_evaluated_and_the_end_is_saved():
    """By default nothing stands between the steps."""
    assert _kinds() == ["eval 0", "train 0", "train 1", "train 2", "eval 3", "save 3"]


def _with_sets(**settings):
    """A schedule with two more sets: `a` every step and four answers to each problem, `b` as left out."""
    evals = {"a": EvalConfig(path="a", n=4, temperature=1.0, every=1), "b": EvalConfig(path="b")}
    schedule = _schedule(evals=evals, **settings)
    best_set = settings.get("best_set", HELD_OUT)
    return replace(schedule, more_sets={"a": Rows(2), "b": Rows(1)}, best_set=best_set)


def _evaluations(schedule):
    return [f"{job.eval_set} {job.step}" for job in schedule.jobs() if job.evaluating]


def test_each_set_is_evaluated_as_often_as_it_says():
    """All of them at both ends; with its own number of answers, which have ids of their own."""
    schedule = _with_sets(num_steps=4, eval_every=2)
    assert _evaluations(schedule) == [
        *("held_out 0", "a 0", "b 0", "a 1", "held_out 2", "a 2", "b 2", "a 3", "held_out 4", "a 4", "b 4"),
    ]
    assert _evaluations(_with_sets(num_steps=2, eval_at_start=False)) == ["a 1", "held_out 2", "a 2", "b 2"]
    (job,) = [job for job in schedule.jobs() if (job.eval_set, job.step) == ("a", 1)]
    assert job.group_size == 4 and [sample.row for sample in job.samples] == [0] * 4 + [1] * 4
    assert [sample.id for sample in job.samples] == list(range(8))


def test_the_best_weights_come_after_the_set_that_decides():
    """Whose evaluation is the first, so that training waits for no other one."""
    schedule = _with_sets(num_steps=2, eval_every=2, keep_best=True, best_set="a")
    jobs = [job.eval_set or ("best" if job.only_if_best else "") for job in schedule.jobs()]
    assert jobs == ["a", "held_out", "b", "", "a", "best", "", "a", "held_out", "b", "best", ""]


def test_a_resumed_run_repeats_only_evaluations_that_are_not_recorded():
    whole = _with_sets(num_steps=4, eval_every=2)
    left = replace(whole, steps_done=2, evaluated=frozenset(("a", HELD_OUT)))
    assert _evaluations(left) == ["b 2", "a 3", "held_out 4", "a 4", "b 4"]


def test_an_evaluation_that_is_overtaken_runs_along_with_the_next_step():
    """With what waits for it, and not before a recovery point; nothing overtakes the last ones."""
    settings = {"eval_every": 1, "save_every": 2, "recover_every": 2, "keep_best": True}
    schedule = _schedule(**settings)
    programs = replace(schedule.programs, evaluate=Program(("eval",), is_overtaken=True))
    stages = _stages(replace(schedule, programs=programs))
    order = [
        f"{'best' if stage.job.only_if_best else instruction} {stage.job.step}"
        for stage in stages
        for instruction in stage.instructions
    ]
    assert order == [
        *("gen 0", "eval 0", "train 0", "gen 1", "eval 1", "best 1", "train 1"),
        *("snapshot 2", "gen 2", "eval 2", "best 2", "save 2", "train 2", "flush 2"),
        *("snapshot 3", "eval 3", "best 3", "save 3", "flush 3"),
    ]


def test_a_job_takes_the_rows_of_its_step():
    """By the dataset's levels, where it has some."""
    schedule = _schedule(num_steps=5)
    schedule.rows.levels = [4, 3, 2, 1, 0]
    rows = [s.row for job in schedule.jobs() if job.program.ahead for s in job.samples][::2]
    assert rows == [4, 3, 2, 1, 0] * 2


def test_evaluations_and_checkpoints_come_each_so_many_steps():
    """And once at the end, not twice."""
    assert _kinds(eval_every=2, save_every=1) == [
        *("eval 0", "train 0", "save 1", "train 1", "eval 2", "save 2", "train 2", "eval 3", "save 3"),
    ]


def test_without_held_out_rows_nothing_is_evaluated():
    """The rest stays."""
    assert _kinds(num_held_out=0) == ["train 0", "train 1", "train 2", "save 3"]


def test_what_may_be_the_best_is_saved_before_it_is_trained_on():
    """After each evaluation but that of what the run began with; not where only the end is evaluated."""
    assert _kinds(eval_every=2, keep_best=True) == [
        *("eval 0", "train 0", "train 1", "eval 2", "best 2", "train 2", "eval 3", "best 3", "save 3"),
    ]
    assert not any("best" in kind for kind in _kinds(keep_best=True))
    assert not any("best" in kind for kind in _kinds(eval_every=2, keep_best=True, num_held_out=0))


def _stages(schedule):
    return in_order(schedule.jobs(), schedule.open_ahead)


def _order(**settings):
    stages = list(_stages(_schedule(**settings)))
    last = {stage.job.number: i for i, stage in enumerate(stages)}
    assert [stage.is_last for stage in stages] == [last[s.job.number] == i for i, s in enumerate(stages)]
    return [f"{instruction} {stage.job.step}" for stage in stages for instruction in stage.instructions]


def test_without_staleness_one_job_comes_after_the_other():
    assert _order() == [
        *("eval 0", "gen 0", "train 0", "gen 1", "train 1", "gen 2", "train 2", "eval 3", "save 3"),
    ]


@pytest.mark.parametrize(
    ("max_staleness", "expected"),
    [
        (1, "gen 0, gen 1, train 0, gen 2, train 1, eval 2, save 2, gen 3, train 2, train 3"),
        (2, "gen 0, gen 1, gen 2, train 0, gen 3, train 1, eval 2, save 2, train 2, train 3"),
        (9, "gen 0, gen 1, gen 2, gen 3, train 0, train 1, eval 2, save 2, train 2, train 3"),
    ],
)
def test_generation_goes_ahead_of_training_by_as_many_steps_as_it_may_be_stale(max_staleness, expected):
    """What evaluates and saves sees what was trained before it, and no more."""
    order = _order(max_staleness=max_staleness, num_steps=4, eval_every=2, save_every=2)
    assert order == ["eval 0", *expected.split(", "), "eval 4", "save 4"]


def test_recovery_points_are_written_while_the_next_step_runs():
    """After all else that its step has; one more at the end, whatever the period."""
    assert _order(eval_every=1, save_every=1, recover_every=1) == [
        *("eval 0", "gen 0", "train 0", "eval 1", "save 1", "snapshot 1", "gen 1", "train 1", "flush 1"),
        *("eval 2", "save 2", "snapshot 2", "gen 2", "train 2", "flush 2"),
        *("eval 3", "save 3", "snapshot 3", "flush 3"),
    ]


def test_nothing_is_under_way_at_a_recovery_point():
    """Then generation is ahead again."""
    assert ", ".join(_order(num_held_out=0, num_steps=5, max_staleness=1, recover_every=2)) == (
        "gen 0, gen 1, train 0, train 1, snapshot 2, gen 2, gen 3, train 2, flush 2, train 3, snapshot 4,"
        " gen 4, train 4, flush 4, save 5, snapshot 5, flush 5"
    )


@pytest.mark.parametrize("max_staleness", [0, 2])
@pytest.mark.parametrize("steps_done", [2, 4])
def test_a_recovered_run_does_what_is_left_of_an_undisturbed_one(max_staleness, steps_done, tmp_path):
    """In the same order, on the same rows, and it knows how old the weights are."""
    settings = {"num_steps": 6, "eval_every": 1, "save_every": 1, "max_staleness": max_staleness}
    whole = replace(_schedule(recover_every=2, **settings), run_directory=tmp_path)
    left = replace(whole, steps_done=steps_done, evaluated=frozenset((HELD_OUT,)))
    (tmp_path / "checkpoints" / f"step-{steps_done}").mkdir(parents=True)
    stages = [(stage.job.step, stage.instructions, stage.job.samples) for stage in _stages(whole)]
    flush = stages.index((steps_done, ("flush",), ()))
    after = stages[stages.index((steps_done, ("snapshot",), ())) + 1 :]
    after.remove(stages[flush])
    assert [(stage.job.step, stage.instructions, stage.job.samples) for stage in _stages(left)] == after
    assert left.steps == range(steps_done, 6)


@pytest.mark.parametrize("step", [2, 3])
def test_what_was_not_done_before_a_recovery_point_is_done_when_it_is_resumed(tmp_path, step):
    """A run that SIGTERM stopped may have its point before its evaluation; also at the run's end."""
    settings = {"eval_every": 2, "save_every": 2, "recover_every": 1, "keep_best": True}
    left = replace(_schedule(**settings), steps_done=step, run_directory=tmp_path)
    checkpoints, rest = (
        tmp_path / "checkpoints",
        [] if step == 3 else ["train 2", "eval 3", "best 3", "save 3"],
    )

    def kinds() -> list[str]:
        found = [f"{'best' if j.only_if_best else j.program.instructions[-1]} {j.step}" for j in left.jobs()]
        return [kind for kind in found if "snapshot" not in kind and "flush" not in kind]

    assert kinds() == [f"eval {step}", f"best {step}", f"save {step}", *rest]
    left = replace(left, evaluated=frozenset((HELD_OUT,)))
    assert kinds() == [f"best {step}", f"save {step}", *rest]
    (checkpoints / f"step-{step}").mkdir(parents=True)
    (checkpoints / "best").mkdir()
    (checkpoints / "best" / "best.json").write_text(f'{{"step": {step}}}')
    assert kinds() == rest


@given(st.integers(1, 20), st.integers(1, 9), st.integers(1, 3), st.data())
def test_a_pass_takes_each_row_once(num_rows, batch_size, samples_per_row, data):
    """In order, but those that are done; a sample's id tells its row and its place there."""
    num_done = data.draw(st.integers(0, num_rows))
    config = SimpleNamespace(batch_size=batch_size)
    programs = Programs(Program(("gen",)), *[Program(())] * 3, {})
    jobs = list(Pass(config, programs, samples_per_row, Rows(num_rows), Path("run"), 0, num_done).jobs())
    assert [job.number for job in jobs] == list(range(len(jobs)))
    samples = [sample for job in jobs for sample in job.samples]
    assert [s.id for s in samples] == list(range(num_done * samples_per_row, num_rows * samples_per_row))
    assert all(s.row == s.id // samples_per_row for s in samples)
    assert all(len(job.samples) == batch_size * samples_per_row for job in jobs[:-1])
    assert all(0 < len(job.samples) <= batch_size * samples_per_row for job in jobs)


def test_steps_of_a_pass_go_on_where_it_was_left():
    """Whatever the size of its batches was; nothing is left of one that is done."""
    config, programs = SimpleNamespace(batch_size=4), Programs(None, None, None, None, {})
    done = ((0, 0), (1, 4), (3, 6), (3, 10))  # batches and rows
    steps = [Pass(config, programs, 2, Rows(10), Path("run"), *past).steps for past in done]
    assert steps == [range(0, 3), range(1, 3), range(3, 4), range(3, 3)]


@given(st.integers(1, 20), st.integers(1, 30), st.integers(0, 99))
def test_each_epoch_sees_each_row_once(num_rows, batch_size, seed):
    """Whatever the batch; and every epoch is the same for the same seed."""
    num_steps = 3 * num_rows
    stream = [row for step in range(num_steps) for row in epoch_rows(num_rows, batch_size, step, seed)]
    assert len(stream) == num_steps * batch_size
    for first in range(0, len(stream), num_rows):
        assert Counter(stream[first : first + num_rows]) == Counter(range(num_rows))
    assert epoch_rows(num_rows, batch_size, 1, seed) == stream[batch_size : 2 * batch_size]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=20), st.integers(1, 30), st.integers(0, 99))
def test_an_epoch_goes_from_the_lowest_level_to_the_highest(levels, batch_size, seed):
    """Each row once, those of a level in the order that chance gave them; and a step's rows do not depend on
    those before it, so that a run resumes exactly.
    """
    num_rows = len(levels)
    steps = [epoch_rows(num_rows, batch_size, step, seed, levels) for step in reversed(range(2 * num_rows))]
    stream = [row for step in reversed(steps) for row in step]
    for first in range(0, len(stream) - num_rows + 1, num_rows):
        epoch = stream[first : first + num_rows]
        assert [levels[row] for row in epoch] == sorted(levels)
        shuffled = epoch_rows(num_rows, num_rows, first // num_rows, seed)
        assert all(
            [r for r in epoch if levels[r] == x] == [r for r in shuffled if levels[r] == x] for x in levels
        )


def test_samples_of_a_row_are_neighbours():
    """Sample i is of row i // samples_per_row."""
    assert [(s.id, s.row) for s in samples_of([7, 3], 2)] == [(0, 7), (1, 7), (2, 3), (3, 3)]


@given(st.integers(1, 30), st.integers(1, 5), st.integers(0, 40), st.integers(0, 5), st.booleans())
def test_spare_rows_are_others_of_the_same_levels(num_rows, batch_size, number, step, has_levels):
    """As many as are wanted or there are, each once, none of the step's own; the same when asked again."""
    levels = [float(row % 3) for row in range(num_rows)] if has_levels else []
    rows = epoch_rows(num_rows, batch_size, step, 1, levels)
    spare = spare_rows(num_rows, rows, number, step, 1, levels)
    fitting = {r for r in range(num_rows) if not levels or levels[r] in {levels[x] for x in rows}} - set(rows)
    assert len(set(spare)) == len(spare) == min(number, len(fitting)) and set(spare) <= fitting
    assert spare == spare_rows(num_rows, rows, number, step, 1, levels)
