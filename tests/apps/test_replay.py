"""`realrl replay`: what it says of a log, and of what is none."""

import io

import pytest

from realrl.api.mesh import ExecutionPlan, ParallelLayout
from realrl.apps.main import main
from realrl.program.event_log import LogWriter
from realrl.program.events import Stage
from realrl.program.scheduler import Scheduler
from realrl.runtime.master.event_files import EventFiles, event_files
from tests.program.graphs import make_jobs, place, ppo_graph


def _job():
    graph = ppo_graph()
    plan = ExecutionPlan({name: place(0, ParallelLayout(dp=2)) for name in graph.calls})
    return make_jobs(graph, plan, 1)[0]


def test_it_says_where_a_run_stood(tmp_path, capsys):
    """A generation that no rank has reported runs, and what waits for it says why."""
    scheduler = Scheduler()
    files = EventFiles(tmp_path, scheduler.state, 1 << 20)
    stage = Stage(_job(), _job().program.rest, is_last=True)
    files.record(stage, scheduler.handle(stage))
    files.close()
    assert main(["replay", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "1 event, 1 instruction as in the log" in said
    assert "runs: call actor_gen of step 0, on ranks 0, 1" in said
    assert "waits: actor_gen -> move reward (input_ids)" in said


def test_files_are_of_bounded_size_and_number(tmp_path):
    """A full file is followed by another that can be replayed alone; the oldest go."""
    scheduler = Scheduler()
    files = EventFiles(tmp_path, scheduler.state, 1)
    for _ in range(6):
        stage = Stage(_job(), (), is_last=False)
        files.record(stage, scheduler.handle(stage))
    files.close()
    names = [path.name for path in event_files(tmp_path)]
    assert names == ["events.jsonl", "events.1.jsonl", "events.2.jsonl", "events.3.jsonl"]
    assert main(["replay", str(tmp_path)]) == 0


def test_another_scheduler_is_a_failure(tmp_path, capsys):
    """A log that says something else than this scheduler does is exit code 1, and names the line."""
    scheduler = Scheduler()
    stage = Stage(_job(), _job().program.rest, is_last=True)
    writer = LogWriter("0", scheduler.state())
    file = io.BytesIO()
    file.write(writer.head() + writer.lines(stage, (), 0.0))
    (tmp_path / "log.jsonl").write_bytes(file.getvalue())
    assert main(["replay", str(tmp_path / "log.jsonl")]) == 1
    assert "line 4: expected nothing, the replay sent 0 call actor_gen" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["nothing", "here.txt"])
def test_what_is_no_log_is_bad_input(tmp_path, name, capsys):
    (tmp_path / "here.txt").write_text("{}\n")
    assert main(["replay", str(tmp_path / name)]) == 2
    assert "realrl: error: RUN: " in capsys.readouterr().err
