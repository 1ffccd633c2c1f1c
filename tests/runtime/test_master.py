"""The master, with workers that answer at once."""

from __future__ import annotations

import json
from collections import deque
from pathlib import Path
from types import SimpleNamespace

import pytest

from realrl.api.data import DataConfig
from realrl.api.evals import HELD_OUT
from realrl.api.mesh import DeviceMesh, ExecutionPlan, ParallelLayout, Placement
from realrl.api.messages import Done
from realrl.datasets.digests import RowsDigest
from realrl.program.instructions import RunCall, Save
from realrl.program.jobs import compile_run
from realrl.recipes.sft import SFT, SFTConfig
from realrl.runtime.inputs import InputDigests
from realrl.runtime.master.checkpoints import Best
from realrl.runtime.master.master import Master
from realrl.runtime.master.schedule import Training
from realrl.runtime.master.shutdown import Shutdown

NO_INPUTS = InputDigests(RowsDigest(0, ""), None, {})


class Crew:
    """Reports evaluations with the losses that it is given; a checkpoint's content is its step."""

    def __init__(self, losses: dict[int, float]) -> None:
        self.losses, self.sent, self.running = losses, deque(), []
        self.order: list[str] = []

    def send(self, instruction) -> None:
        self.sent.append(instruction)

    def receive(self, show_running, waiting):
        instruction = self.sent.popleft()
        metrics = {}
        if isinstance(instruction, Save):
            assert "best" in instruction.directory or instruction.step == max(self.losses)
            Path(instruction.directory, "step").write_text(str(instruction.step))
        if isinstance(instruction, RunCall) and instruction.evaluating:
            metrics = {"loss": (self.losses[instruction.step], 1.0)}
        if isinstance(instruction, RunCall | Save):
            self.order.append(f"{getattr(instruction, 'call', '') or 'save'} {instruction.step}")
        return 0, instruction, Done(seq=instruction.seq, started_s=0.0, ended_s=1.0, metrics=metrics)


class Rows:
    levels = ()
    sets = ()

    def __len__(self) -> int:
        return 4

    def length(self, row: int) -> int:
        return 3


TOLD = ("record_instruction", "record_job", "begin_events", "record_event", "flush_events")
TOLD += ("add", "say", "show_job", "show_running")


def training(folder: Path) -> Training:
    """Four steps, an evaluation before each and at the end."""
    config = SFTConfig(
        num_steps=4, eval_every=1, batch_size=2, data=DataConfig(path="sums"), runs_dir=str(folder)
    )
    place = Placement(DeviceMesh((0,)), ParallelLayout())
    programs = compile_run(SFT, config, ExecutionPlan({"train": place, "validate": place}))
    return Training(config, programs, 1, Rows(), Rows(), folder)


@pytest.mark.parametrize(
    ("losses", "saved"),
    [([3.0, 4.0, 2.0, 2.5, 2.0], [2]), ([3.0, 2.0, 1.0, 0.5, 0.25], [1, 2, 3, 4]), ([1.0] * 5, [])],
)
def test_the_best_weights_are_saved_before_they_are_trained_on(tmp_path, losses, saved):
    """Those of each evaluation that is better than all before; no others."""
    schedule, best, crew = (
        training(tmp_path),
        Best(SFT.criteria(SFTConfig(), HELD_OUT)[0]),
        Crew(dict(enumerate(losses))),
    )
    ignored = SimpleNamespace(**dict.fromkeys(TOLD, lambda *_: None))
    Master(crew, schedule, best, ignored, ignored, ignored, NO_INPUTS, Shutdown(0.0)).run()
    expected = ["validate 0", "train 0"]
    for step in range(1, 5):
        expected += [f"validate {step}", *([f"save {step}"] if step in saved else [])]
        expected.append(f"train {step}" if step < 4 else "save 4")
    assert crew.order == expected
    best = tmp_path / "checkpoints" / "best"
    assert best.exists() == bool(saved)
    if saved:
        assert (best / "step").read_text() == str(saved[-1])
        assert json.loads((best / "best.json").read_text()) == {"step": saved[-1], "loss": losses[saved[-1]]}


class Course:
    """Finds something in steps 1 and 3."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def observe(self, step, records) -> list[str]:
        self.seen.append(step)
        return [f"step {step} is odd"] if step % 2 else []


def test_what_is_found_in_the_course_of_a_run_is_said_behind_its_step(tmp_path):
    """Every training step is looked at, and no evaluation."""
    course, said = Course(), []
    told = dict.fromkeys(TOLD, lambda *_: None) | {"say": said.append}
    told["show_job"] = lambda ended: said.append("" if ended.evaluating else f"step {ended.step}")
    ignored = SimpleNamespace(**told)
    crew, best = Crew(dict.fromkeys(range(5), 1.0)), Best(SFT.criteria(SFTConfig(), HELD_OUT)[0])
    inputs = NO_INPUTS, Shutdown(0.0), lambda seen: [], course
    Master(crew, training(tmp_path), best, ignored, ignored, ignored, *inputs).run()
    assert course.seen == [0, 1, 2, 3]
    lines = [line for line in said if line.startswith(("step", "warning"))]
    assert lines == [
        *("step 0", "step 1", "warning: step 1 is odd"),
        *("step 2", "step 3", "warning: step 3 is odd"),
    ]
