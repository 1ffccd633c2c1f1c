"""What a run does, in order."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from realrl.runtime.jobs import Programs, Schedule, epoch_rows, samples_of
from realrl.runtime.master import fresh_directory
from realrl.runtime.program import Program


class Rows:
    def __init__(self, num):
        self.num = num

    def __len__(self):
        return self.num

    def length(self, row):
        return row + 1


def _kinds(num_held_out=3, **settings):
    config = SimpleNamespace(
        **{"num_steps": 3, "batch_size": 2, "seed": 1, "eval_every": 0, "save_every": 0} | settings
    )
    held_out = Rows(num_held_out) if num_held_out else None
    train, evaluate, save = (Program((name,)) for name in ("train", "eval", "save"))
    schedule = Schedule(config, Programs(train, evaluate, save, {}), 2, Rows(5), held_out, Path("run"))
    jobs = list(schedule.jobs())
    assert [job.number for job in jobs] == list(range(len(jobs)))
    return [f"{job.program.nodes[0]} {job.step}" for job in jobs]


def test_both_ends_are_evaluated_and_the_end_is_saved():
    """By default nothing stands between the steps."""
    assert _kinds() == ["eval 0", "train 0", "train 1", "train 2", "eval 3", "save 3"]


def test_evaluations_and_checkpoints_come_each_so_many_steps():
    """And once at the end, not twice."""
    assert _kinds(eval_every=2, save_every=1) == [
        *("eval 0", "train 0", "save 1", "train 1", "eval 2", "save 2", "train 2", "eval 3", "save 3"),
    ]


def test_without_held_out_rows_nothing_is_evaluated():
    """The rest stays."""
    assert _kinds(num_held_out=0) == ["train 0", "train 1", "train 2", "save 3"]


@given(st.integers(1, 20), st.integers(1, 30), st.integers(0, 99))
def test_each_epoch_sees_each_row_once(num_rows, batch_size, seed):
    """Whatever the batch; and every epoch is the same for the same seed."""
    num_steps = 3 * num_rows
    stream = [row for step in range(num_steps) for row in epoch_rows(num_rows, batch_size, step, seed)]
    assert len(stream) == num_steps * batch_size
    for first in range(0, len(stream), num_rows):
        assert Counter(stream[first : first + num_rows]) == Counter(range(num_rows))
    assert epoch_rows(num_rows, batch_size, 1, seed) == stream[batch_size : 2 * batch_size]


def test_samples_of_a_row_are_neighbours():
    """Sample i is of row i // samples_per_row."""
    assert [(s.id, s.row) for s in samples_of([7, 3], 2)] == [(0, 7), (1, 7), (2, 3), (3, 3)]


def test_an_earlier_run_is_kept(tmp_path):
    """Its directory gets a number, and the new one is empty."""
    for run in range(3):
        directory = fresh_directory(tmp_path / "trial")
        assert [p.name for p in directory.iterdir()] == ["logs"]
        (directory / "which").write_text(str(run))
    assert [(tmp_path / f"trial.{i}" / "which").read_text() for i in (1, 2)] == ["0", "1"]
