"""Loggers: each against its real package, offline; and that none of them can hold up a run."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import sqlite3
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from realrl.api.config import RunConfig
from realrl.api.configure import build_config, dump_config
from realrl.apps.checks import check_loggers
from realrl.runtime.loggers import background
from realrl.runtime.loggers.interface import TOOLS, RunFacts, plain_name
from realrl.runtime.loggers.logger_process import ChildLogger
from tests.api.configs import SmallConfig

CONFIG = dataclasses.replace(SmallConfig(), experiment="sums é", trial="first try", logger=tuple(TOOLS))
FAILURE = "rank 1 died"
VARIABLES = ("WANDB_", "MLFLOW_", "TRACKIO_", "SWANLAB_")


def row(step: int, kind: str = "train") -> dict:
    numbers = {"loss": 1.0 / (step + 1), "ratio": math.nan, "num_tokens": 12}
    return {"step": step, "kind": kind, **numbers, "phases_s": {"gen": 0.5}, "weights": {"loss": 1.0}}


def start(names, directory, past=(), first_step=0, said=None):
    say = (said if said is not None else []).append
    return background.start_loggers(
        names, CONFIG, "sft", directory, past=past, first_step=first_step, say=say
    )


@pytest.fixture(scope="module")
def logged(tmp_path_factory) -> tuple[Path, list[str]]:
    """A run that fails in step 3 of 4 and resumes after step 2, in every tool that is installed."""
    directory, said = tmp_path_factory.mktemp("run"), []
    names = [name for name, tool in TOOLS.items() if find_spec(tool.package)]
    with pytest.MonkeyPatch.context() as patch:
        for variable in [v for v in os.environ if v.startswith(VARIABLES)]:
            patch.delenv(variable)
        # No login of whoever runs the tests is used.
        patch.setenv("NETRC", str(directory / "none"))
        patch.setenv("SWANLAB_ROOT", str(directory / "none"))
        patch.setattr(background, "_END_S", 120.0)
        with pytest.raises(RuntimeError), start(names, directory, said=said) as loggers:
            for step in range(3):
                loggers.log(row(step))
            loggers.log(row(2, "eval"))
            raise RuntimeError(FAILURE)
        past = [row(0), row(1), row(2, "eval")]
        with start(names, directory, past, 2, said) as loggers:
            loggers.log(row(2))
            loggers.log(row(3))
            loggers.summarise({"num_steps": 4, "train": {"loss": {"last": 0.25}}})
    assert not [line for line in said if "lost" in line or "continues" in line], said
    return directory, said


def test_tensorboard_shows_each_step_once(logged):
    """And the evaluation before those that come again."""
    events = EventAccumulator(str(logged[0] / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [
        (step, pytest.approx(1 / (step + 1))) for step in range(4)
    ]
    assert [e.step for e in events.Scalars("eval/loss")] == [2]
    assert math.isnan(events.Scalars("train/ratio")[0].value)
    assert {"failure/text_summary", "summary/text_summary", "phases_s/gen"} <= {
        tag for tags in events.Tags().values() if isinstance(tags, list) for tag in tags
    }
    assert "_hparams_/session_start_info" in events.summary_metadata


def test_wandb_continues_one_run(logged):
    """Two parts of one id, offline: the first failed, the second did not."""
    pytest.importorskip("wandb")
    reading = pytest.importorskip("swanlab.converter.wb.wbdatastore")
    files = sorted((logged[0] / "wandb").glob("offline-run-*/*.wandb"))
    parts = [list(_wandb_records(reading.WBDataStoreReader, file)) for file in files]
    runs = [record.run for part in parts for record in part if record.HasField("run")]
    assert {run.run_id for run in runs} == {(logged[0] / "loggers" / "wandb").read_text()}
    assert {(run.project, run.display_name) for run in runs} == {("sums--", "first try")}
    assert {u.key: u.value_json for u in runs[0].config.update}["num_steps"] == str(CONFIG.num_steps)
    assert [[r.exit.exit_code for r in part if r.HasField("exit")] for part in parts] == [[1], [0]]
    rows = [_items(r.history.item) for part in parts for r in part if r.HasField("history")]
    assert [(r["step"], r.get("train/loss")) for r in rows if "train/loss" in r] == [
        (step, 1 / (step + 1)) for step in (0, 1, 2, 2, 3)
    ]
    summaries = {k: v for part in parts for r in part for k, v in _items(r.summary.update).items()}
    assert summaries["summary/train.loss.last"] == 0.25 and summaries["failure"] == FAILURE


def _wandb_records(reader, file):
    from wandb.proto.wandb_internal_pb2 import Record

    with reader() as lines:
        lines.open(file)
        while (data := lines.scan()) is not None:
            yield Record.FromString(data)


def _items(items) -> dict:
    return {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items}


def test_mlflow_continues_one_run(logged):
    """It has failed in between, and has all steps in the end."""
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{logged[0]}/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name("sums é")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("first try", "FINISHED")
    assert run.data.tags["failure"] == FAILURE and run.data.params["num_steps"] == str(CONFIG.num_steps)
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert sorted({(m.step, m.value) for m in history}) == [(step, 1 / (step + 1)) for step in range(4)]
    assert run.data.metrics["summary/train.loss.last"] == 0.25


def test_trackio_continues_one_run(logged):
    pytest.importorskip("trackio")
    (file,) = (logged[0] / "trackio").glob("*.db")
    with sqlite3.connect(file) as database:
        rows = database.execute("select run_id, run_name, step, metrics from metrics order by id").fetchall()
        configs = [json.loads(c) for (c,) in database.execute("select config from configs")]
        alerts = database.execute("select text from alerts").fetchall()
    assert len({run for run, *_ in rows}) == 1 and {name for _, name, *_ in rows} == {"first try"}
    losses = {step: json.loads(m)["train/loss"] for *_, step, m in rows if "train/loss" in json.loads(m)}
    assert losses == {step: 1 / (step + 1) for step in range(4)}
    assert configs[0]["num_steps"] == CONFIG.num_steps and alerts == [(FAILURE,)]


def test_swanlab_continues_one_run(logged):
    """Two parts of one id, offline: the first crashed, the second did not."""
    pytest.importorskip("swanlab")
    from swanlab.proto.swanlab.record.v1.record_pb2 import Record
    from swanlab.sdk.internal.core_python.store import DataStoreReader

    run_id, parts = (logged[0] / "loggers" / "swanlab").read_text(), []
    for file in sorted((logged[0] / "swanlab").glob(f"run-*-{run_id}/*.swanlab")):
        reader = DataStoreReader()
        reader.open(file)
        parts.append([Record.FromString(data) for data in reader])
    assert len(parts) == 2
    losses = [
        (r.scalar.step, r.scalar.value.number)
        for part in parts
        for r in part
        if r.HasField("scalar") and r.scalar.key == "train/loss"
    ]
    assert losses == [(step, 1 / (step + 1)) for step in (0, 1, 2, 2, 3)]
    ends = [r.finish for part in parts for r in part if r.HasField("finish")]
    assert ends[0].error == FAILURE and ends[0].state != ends[1].state


def test_whoever_logs_is_told_where(logged):
    """A line for each tool that is not TensorBoard, whose folder is where it always was."""
    named = {line.split()[1].rstrip(":") for line in logged[1]}
    assert named == {name for name, tool in TOOLS.items() if tool.has_process and find_spec(tool.package)}
    assert {file.name for file in (logged[0] / "loggers").iterdir()} >= named


class Fake:
    """A logger that waits or fails as told."""

    where = ""

    def __init__(self) -> None:
        self.steps, self.go_on, self.fails = [], threading.Event(), set()

    def log(self, step, scalars):
        self.go_on.wait(30)
        if step in self.fails:
            raise OSError("disk is full")
        self.steps.append(step)

    def finish(self, summary, failure):
        self.ended = (summary, failure)


@pytest.fixture
def fake(monkeypatch) -> Fake:
    """In place of TensorBoard."""
    made = Fake()
    monkeypatch.setattr(background, "open_logger", lambda name, facts: made)
    return made


def test_a_logger_that_fails_loses_what_it_failed_at(fake, tmp_path):
    """It is said once, and counted at the end."""
    fake.go_on.set()
    fake.fails, said = {1, 3}, []
    with start(["tensorboard"], tmp_path, said=said) as loggers:
        for step in range(5):
            loggers.log(row(step))
        loggers.summarise({"num_steps": 5})
    assert fake.steps == [0, 2, 4] and fake.ended == ({"num_steps": 5}, None)
    assert said == [
        "logger tensorboard: disk is full; the run continues",
        "logger tensorboard: 2 of 5 rows are lost to it; metrics.jsonl has them all",
    ]


def test_a_logger_that_hangs_delays_nothing(fake, tmp_path, monkeypatch):
    """Rows beyond the queue are lost at once, the others at the deadline."""
    monkeypatch.setattr(background, "_MOST_WAITING", 10)
    monkeypatch.setattr(background, "_END_S", 0.2)
    said, began_s = [], time.monotonic()
    with start(["tensorboard"], tmp_path, said=said) as loggers:
        for step in range(100):
            loggers.log(row(step))
    assert time.monotonic() - began_s < 5
    assert said[0] == "logger tensorboard: 10 rows wait for it; the run continues"
    num_lost = int(said[-1].split()[2])
    # The one that it is at may be lost or not.
    assert num_lost + len(fake.steps) in (99, 100)
    fake.go_on.set()


def test_a_logger_that_cannot_start_loses_all(tmp_path, monkeypatch):
    def fail(name, facts):
        raise PermissionError("no key")

    monkeypatch.setattr(background, "open_logger", fail)
    said = []
    with start(["tensorboard"], tmp_path, said=said) as loggers:
        loggers.log(row(0))
    assert said == [
        "logger tensorboard: no key; the run continues",
        "logger tensorboard: 1 of 1 rows are lost to it; metrics.jsonl has them all",
    ]


def test_a_process_that_is_stopped_is_killed_at_the_deadline(tmp_path, monkeypatch):
    """Nothing of it is left."""
    monkeypatch.setattr(background, "_END_S", 0.5)
    children, said = [], []

    class Stopped(ChildLogger):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            os.kill(self._process.pid, signal.SIGSTOP)
            children.append(self._process)

    monkeypatch.setattr(background, "ChildLogger", Stopped)
    with start(["trackio"], tmp_path, said=said) as loggers:
        loggers.log(row(0))
    (process,) = children
    assert process.wait(10) == -signal.SIGKILL
    assert said[0] == "logger trackio: it was not done 0.5 s after the run and is ended"
    assert "1 of 1 rows are lost" in said[1]


def test_a_run_whose_master_dies_is_marked_as_failed(tmp_path):
    """The logger's process sees the end of its input, says so, and ends."""
    pytest.importorskip("trackio")
    child = ChildLogger("trackio", tmp_path / "log")
    facts = {"experiment": "e", "trial": "t", "directory": str(tmp_path), "config": {}, "run_id": "0" * 20}
    child.open(RunFacts(**facts, continues=False, first_step=0))
    child.log(0, {"loss": 1.0})
    child._process.stdin.close()
    assert child._process.wait(60) == 0, (tmp_path / "log").read_text()
    with sqlite3.connect(tmp_path / "trackio" / "e.db") as database:
        assert database.execute("select text from alerts").fetchall() == [("the run's master died",)]


def test_a_logger_that_is_added_gets_the_past(fake, tmp_path):
    """One that was there before gets only what it has not."""
    fake.go_on.set()
    past = [row(0), row(1)]
    with start(["tensorboard"], tmp_path, past, 2) as loggers:
        loggers.log(row(2))
    assert fake.steps == [0, 1, 2]
    with start(["tensorboard"], tmp_path, [*past, row(2, "eval")], 2) as loggers:
        loggers.log(row(2))
    assert fake.steps == [0, 1, 2, 2, 2]


def test_a_missing_package_is_refused_with_the_command_that_installs_it(monkeypatch, tmp_path):
    """A folder of the tool's name, as tools leave them, is no package."""
    (tmp_path / "wandb").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(
        "realrl.runtime.loggers.interface.TOOLS", {"wandb": TOOLS["wandb"]._replace(package="nope")}
    )
    with pytest.raises(
        ValueError, match=r"logger: wandb is not installed; run `pip install 'realrl\[wandb\]'`"
    ):
        check_loggers(dataclasses.replace(CONFIG, logger=("wandb",)))


@pytest.mark.parametrize("given", ["logger=wandb", "logger=[wandb]", "logger: wandb", "logger:\n- wandb"])
def test_one_logger_needs_no_list(given):
    """On the command line and in a file; what is written is read back."""
    is_override = "=" in given
    config = build_config(SmallConfig(), None if is_override else given, [given] if is_override else [])
    assert config.logger == ("wandb",) and build_config(SmallConfig(), dump_config(config)) == config


def test_unknown_and_repeated_loggers_are_refused():
    with pytest.raises(ValueError, match="logger: expected a list of 'tensorboard' or .*, got .comet."):
        build_config(SmallConfig(), overrides=["logger=comet"])
    with pytest.raises(ValueError, match="logger: expected each name at most once, got wandb, wandb"):
        build_config(SmallConfig(), overrides=["logger=[wandb, wandb]"])


def test_every_name_of_the_config_is_a_tool():
    assert RunConfig(experiment="e", logger=tuple(TOOLS)).logger == tuple(TOOLS)
    assert plain_name("a b/é") == "a-b--"
