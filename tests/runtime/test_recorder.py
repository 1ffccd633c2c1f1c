"""What is written down of a run."""

import io
import json
import time
from pathlib import Path

from rich.console import Console

from realrl.api.evals import HELD_OUT
from realrl.api.messages import Done
from realrl.program.events import Job
from realrl.program.instructions import Forget, Move
from realrl.program.program import Program
from realrl.runtime.loggers.background import scalars_of
from realrl.runtime.master.crew import Running
from realrl.runtime.master.display import Progress
from realrl.runtime.master.job_report import JobReport, Outcome
from realrl.runtime.master.recorder import Recorder
from realrl.runtime.master.summary import Summary, print_summary
from tests.program.calls import run_call


def _call(seq, call, step=0):
    return run_call(call, (0, 1), seq, step=step)


def _move(seq, step):
    call = _call(seq, "train")
    of_call = {"function": call.function, "placement": call.placement, "keys": (), "producers": ()}
    return Move(seq=seq, job=0, step=step, **of_call)


def _report(step=0, eval_set="", accuracy=1.0):
    report = JobReport(Job(0, Program(()), step, eval_set))
    report.num_tokens = 120
    metrics = {"accuracy": (accuracy, 2.0), "never": (0.0, 0.0)}
    report.add(0, _call(0, "gen"), Done(seq=0, started_s=10.0, ended_s=12.0, metrics=metrics))
    report.add(
        0, _call(0, "gen"), Done(seq=0, started_s=11.0, ended_s=13.0, metrics={"accuracy": (0.0, 2.0)})
    )
    report.add(
        0,
        _call(1, "train"),
        Done(
            seq=1,
            started_s=13.5,
            ended_s=16.0,
            metrics={"loss": (float("nan"), 1.0)},
            records=[{"text": "é"}],
        ),
    )
    for seq in (2, 3):
        report.add(
            0,
            _move(seq, step),
            Done(seq=seq, started_s=10.0 * seq - 10, ended_s=10.0 * seq - 9.5),
        )
    return report


class Loggers:
    """Notes what the recorder passes on."""

    def __init__(self) -> None:
        self.rows, self.summary = [], None

    def log(self, row):
        self.rows.append(row)

    def summarise(self, summary):
        self.summary = summary


def test_what_is_written_down_is_logged(tmp_path):
    """A row as `metrics.jsonl` has it, and the summary."""
    loggers = Loggers()
    with Recorder(tmp_path, 1, "train", loggers) as recorder:
        report = _report(3)
        recorder.record_job(report.outcome(), report.records)
        recorder.record_summary({"num_steps": 4})
    assert [row["step"] for row in loggers.rows] == [3] and loggers.summary == {"num_steps": 4}


def test_the_timeline_of_a_resumed_run_shows_both_attempts(tmp_path):
    """As they were, in one list."""
    for _ in range(2):
        with Recorder(tmp_path, 1, "train") as recorder:
            recorder.record_instruction(0, _call(0, "gen"), Done(seq=0, started_s=10.0, ended_s=12.0))
    trace = json.loads((tmp_path / "trace.json").read_text())
    assert [event["ph"] for event in trace] == ["M", "X", "X", "M"]


def test_a_metric_is_the_mean_over_ranks():
    """Weighted; one without weight is left out."""
    metrics = _report().outcome().metrics
    assert metrics["accuracy"] == 0.25
    assert set(metrics) == {"accuracy", "loss"}


def test_time_that_overlaps_with_earlier_jobs_is_theirs():
    """So that the steps' durations add up to the run's."""
    report = _report()
    assert report.duration_s == 20.5 - 10.0
    report.after_s = 15.0
    assert report.duration_s == 20.5 - 15.0


def test_records_are_in_the_order_of_ranks():
    """Whoever reports first."""
    report = JobReport(Job(0, Program(()), 2))
    for rank in (2, 0, 1):
        report.add(rank, _call(4, "reward"), Done(seq=4, started_s=0, ended_s=1, records=[{"rank": rank}]))
    assert report.records == [{"rank": rank} for rank in range(3)]


def test_records_that_name_rows_and_samples_are_in_their_order():
    """Whichever ranks had them."""
    report = JobReport(Job(0, Program(()), 2))
    parts = [[(3, 0), (1, 1)], [(1, 0), (3, 1)]]
    for rank, part in enumerate(parts):
        records = [{"row": row, "sample": sample} for row, sample in part]
        report.add(rank, _call(4, "grade"), Done(seq=4, started_s=0, ended_s=1, records=records))
    assert [(r["row"], r["sample"]) for r in report.records] == [(1, 0), (1, 1), (3, 0), (3, 1)]


def test_a_later_call_adds_to_the_record_of_a_sample():
    """Told by its group, row and sample; of one row, two groups are two."""
    report = JobReport(Job(0, Program(()), 2))
    first = [{"group": group, "row": 5, "sample": 0, "reward": float(group)} for group in (1, 0)]
    second = [{"group": 1, "row": 5, "sample": 0, "advantage": 0.5}]
    for rank, seq, call, records in ((0, 4, "reward", first), (1, 6, "actor_train", second)):
        report.add(rank, _call(seq, call), Done(seq=seq, started_s=0, ended_s=1, records=records))
    assert report.records == [first[1], first[0] | second[0]]


def test_metrics_of_one_name_are_told_apart():
    """By their calls."""
    report = _report()
    report.add(0, _call(4, "critic"), Done(seq=4, started_s=0, ended_s=1, metrics={"loss": (1.0, 2.0)}))
    assert {"accuracy", "train/loss", "critic/loss"} == set(report.outcome().metrics)


def test_a_phase_is_the_time_that_its_instructions_took():
    """From the first rank's start to the last one's end; two moves add up."""
    report = _report()
    assert report.phases_s == {"gen": 3.0, "train": 2.5, "move": 1.0}
    assert report.duration_s == 10.5


def test_every_file_is_strict_json(tmp_path):
    """NaN becomes null, and the trace is a list of events, one row a worker."""
    done = Done(seq=0, started_s=10.0, ended_s=12.0)
    with Recorder(tmp_path, num_workers=2, kind="train") as recorder:
        report = _report()
        recorder.record_job(report.outcome(), report.records)
        recorder.record_instruction(1, _call(0, "gen", step=4), done)
        recorder.record_instruction(0, Forget(seq=1, calls=("gen",), ranks=(0,), job=0, step=4), done)
        recorder.record_summary({"eval": {"before": {"greedy_accuracy": float("inf")}}})
    (row,) = _lines(tmp_path / "metrics.jsonl")
    assert (row["kind"], row["loss"], row["num_tokens"]) == ("train", None, 120)
    assert _lines(tmp_path / "rollouts.jsonl") == [{"step": 0, "evaluating": False, "text": "é"}]
    events = [e for e in _strict((tmp_path / "trace.json").read_text()) if e["ph"] == "X"]
    assert [(e["tid"], e["name"], e["dur"], e["args"]["step"]) for e in events] == [
        (1, "gen", 2e6, 4),
        (0, "forget", 2e6, 4),
    ]
    assert _strict((tmp_path / "summary.json").read_text())["eval"]["before"] == {"greedy_accuracy": None}


def _lines(path: Path):
    return [_strict(line) for line in path.read_text().splitlines()]


def _strict(text):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_the_summary_has_both_ends():
    """First and last evaluation, first and last step, speed over all steps."""
    summary = Summary(time.monotonic() - 60)
    summary.add(_report(eval_set=HELD_OUT, accuracy=0.0).outcome())
    summary.add(_report(step=0, accuracy=1.0).outcome())
    summary.add(_report(step=1, accuracy=2.0).outcome())
    summary.add(_report(step=2, eval_set=HELD_OUT, accuracy=4.0).outcome())
    result = summary.result(experiment="e", trial="t", checkpoint="c")
    assert result["eval"]["before"]["accuracy"] == 0.0 and result["eval"]["after"]["accuracy"] == 1.0
    assert result["train"]["accuracy"] == {"first": 0.25, "last": 0.5}
    assert result["tokens_per_s"] == 240 / 21
    assert result["phases_s"]["gen"] == 3.0 and 60 <= result["wall_s"] < 70
    text = io.StringIO()
    print_summary(result, Console(file=text, width=100))
    assert "held-out accuracy" in text.getvalue() and "0 -> 1" in text.getvalue()


def test_a_named_set_is_in_its_row_its_records_and_the_summary(tmp_path):
    """The held-out rows have no key `set`; a set has its name, from records of earlier starts, too."""
    outcomes = []
    with Recorder(tmp_path, num_workers=2, kind="train") as recorder:
        for step, eval_set in ((0, HELD_OUT), (0, "aime"), (2, "aime")):
            report = _report(step=step, eval_set=eval_set)
            outcome = report.outcome({"avg@4": 0.25 * step, "avg@4_low": 0.1})
            recorder.record_job(outcome, report.records)
            outcomes.append(outcome)
    rows = _lines(tmp_path / "metrics.jsonl")
    assert [row.get("set") for row in rows] == [None, "aime", "aime"]
    assert [row["kind"] for row in rows] == ["eval"] * 3 and "evals" not in rows[0]
    assert [row.get("set") for row in _lines(tmp_path / "rollouts.jsonl")] == [None, "aime", "aime"]
    assert scalars_of(rows[1])["eval/aime/avg@4"] == 0 and "eval/avg@4" in scalars_of(rows[0])

    summary = Summary(time.monotonic())
    for row, outcome in zip(rows, outcomes):
        assert Outcome.of(row).eval_set == outcome.eval_set
        summary.add(Outcome.of(row))
    summary.add(_report(step=0).outcome())
    result = summary.result(experiment="e", trial="t", checkpoint="c")
    assert result["evals"]["aime"]["after"]["avg@4"] == 0.5 and result["eval"]["after"]["avg@4"] == 0
    text = io.StringIO()
    print_summary(result, Console(file=text, width=100))
    assert "aime avg@4" in text.getvalue() and "avg@4_low" not in text.getvalue()


def test_the_summary_of_a_pass_is_over_all_of_it(tmp_path):
    """Each metric by its weights, not batch by batch; from what was written down as from what comes now."""
    summary = Summary(time.monotonic(), trains=False)
    for step, done in enumerate(((1.0, 1.0), (0.0, 3.0))):
        report = JobReport(Job(step, Program(()), step))
        graded = Done(
            seq=0, started_s=0, ended_s=1, metrics={"accuracy": done}, peaks={"longest": 5.0 - step}
        )
        report.add(0, _call(0, "grade", step), graded)
        outcome = report.outcome()
        if step:
            with Recorder(tmp_path, 1, "pass") as recorder:
                recorder.record_job(outcome, report.records)
            (line,) = _lines(tmp_path / "metrics.jsonl")
            outcome = Outcome.of(line)
        summary.add(outcome)
    result = summary.result(experiment="e", trial="t", generations="g.jsonl")
    assert result["mean"] == {"accuracy": 0.25, "longest": 5.0} and "train" not in result
    text = io.StringIO()
    print_summary(result, Console(file=text, width=100))
    assert "0.25" in text.getvalue() and "g.jsonl" in text.getvalue()


def test_progress_is_plain_lines_where_there_is_no_terminal():
    """No control characters in a log."""
    text = io.StringIO()
    with Progress(range(2), console=Console(file=text)) as progress:
        progress.show_running([Running(_call(0, "gen"), done=0, total=0)])
        progress.show_job(_report().outcome())
    assert "step 1/2  accuracy 0.25" in text.getvalue()
    assert "\x1b" not in text.getvalue()


def test_a_terminal_shows_the_phase():
    """Which call of which step, and how long it will take."""
    text = io.StringIO()
    with Progress(range(2), console=Console(file=text, force_terminal=True, width=120)) as progress:
        progress.show_job(_report().outcome())
        progress.show_running([Running(_call(0, "gen", step=1), done=3, total=8)])
    assert "call gen of step 1 (3/8)" in text.getvalue() and "left" in text.getvalue()
