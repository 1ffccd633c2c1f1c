"""Runs that are evaluated on several sets: equal numbers on every layout, and after a resume."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command_line import command, run_recipe
from tests.e2e.stateful import stateful_overrides, write_inputs
from tests.e2e.test_recovery import wait_for_recovery

pytestmark = pytest.mark.slow

SHARED, APART = "*:d1", "gen.d2+p2"
EVALS = {
    "eval_every": 2,
    "keep_best": "sampled/pass@2",
    "evals.greedy.path": "held-out.jsonl",
    "evals.greedy.limit": 4,
    "evals.sampled.path": "held-out.jsonl",
    "evals.sampled.n": 4,
    "evals.sampled.temperature": 0.9,
    "evals.sampled.max_new_tokens": 5,
    "evals.sampled.every": 1,
    "evals.sampled.suffix": "=",
}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("evals")
    write_inputs(folder)
    return folder


def overrides(folder: Path, trial: str, allocation: str, **more: object) -> dict[str, object]:
    keys = {"num_steps": 4, "allocation": allocation, **EVALS, **more}
    for name in ("greedy", "sampled"):
        keys[f"evals.{name}.path"] = folder / str(keys[f"evals.{name}.path"])
    return stateful_overrides(folder, trial, **keys)


def run(folder: Path, trial: str, allocation: str, **more: object) -> Path:
    run_recipe("ppo-math", overrides(folder, trial, allocation, **more))
    return folder / "runs" / "ppo-math" / trial


@pytest.fixture(scope="module")
def shared(files) -> Path:
    return run(files, "shared", SHARED)


@pytest.fixture(scope="module")
def apart(files) -> Path:
    return run(files, "apart", APART)


def lines(directory: Path, name: str) -> Iterator[dict]:
    for line in (directory / name).read_text().splitlines():
        yield json.loads(line)


def eval_rows(directory: Path) -> dict[tuple[str, int], dict]:
    """The metrics of each evaluation, by set and step; there is one row of each."""
    found = {}
    for row in lines(directory, "metrics.jsonl"):
        if row["kind"] == "eval":
            place = row.get("set", "held_out"), row["step"]
            assert place not in found, f"{place} is there twice"
            others = {"kind", "set", "tokens_per_s", "duration_s", "phases_s"}
            weights = {f"weight of {name}": weight for name, weight in row.pop("weights").items()}
            found[place] = weights | {name: value for name, value in row.items() if name not in others}
    return found


def answers(directory: Path) -> dict[tuple, dict]:
    found = {}
    for record in lines(directory, "rollouts.jsonl"):
        if record["evaluating"]:
            place = record.get("set", "held_out"), record["step"], record["row"], record["sample"]
            found[place] = record
    return found


def test_each_set_has_rows_and_answers_of_its_own(shared):
    """As often as it says, as many answers, and no more tokens than it may have."""
    rows = eval_rows(shared)
    assert {step for name, step in rows if name == "sampled"} == {0, 1, 2, 3, 4}
    for name in ("greedy", "held_out"):
        assert {step for each, step in rows if each == name} == {0, 2, 4}
    sampled = [record for place, record in answers(shared).items() if place[:2] == ("sampled", 2)]
    places = sorted((record["row"], record["sample"]) for record in sampled)
    assert places == [(row, sample) for row in range(6) for sample in range(4)]
    assert max(record["num_tokens"] for record in sampled) == 5
    assert len({record["response"] for record in sampled if record["row"] == 0}) > 1
    greedy = {place[2:]: record for place, record in answers(shared).items() if place[:2] == ("greedy", 2)}
    held_out = {place[2:]: r for place, r in answers(shared).items() if place[:2] == ("held_out", 2)}
    assert sorted(greedy) == [(row, 0) for row in range(4)]
    assert all(held_out[place]["response"] == record["response"] for place, record in greedy.items())


def test_metrics_are_those_of_the_answers(shared):
    """Counted by hand from the records."""
    for (name, step), row in eval_rows(shared).items():
        if name != "sampled":
            assert "avg@4" not in row and "greedy_accuracy" in row
            continue
        groups: dict[int, list[bool]] = {}
        for place, record in answers(shared).items():
            if place[:2] == (name, step):
                groups.setdefault(place[2], []).append(record["verdict"] == "correct")
        shares = [sum(group) / 4 for group in groups.values()]
        any_right = [float(any(group)) for group in groups.values()]
        assert row["avg@4"] == pytest.approx(sum(shares) / 6)
        assert row["pass@4"] == pytest.approx(sum(any_right) / 6)
        assert row["avg@4_low"] <= row["avg@4"] <= row["avg@4_high"]
        assert row["avg@4"] <= row["pass@2"] <= row["pass@4"] and "greedy_accuracy" not in row
    values = {row["pass@2"] for (name, _), row in eval_rows(shared).items() if name == "sampled"}
    assert len(values) > 1, "all evaluations found the same, so nothing is compared"


def test_a_layout_where_evaluations_overlap_with_training_gives_the_same(shared, apart):
    """The same answers, token by token, and the same numbers."""
    ours, theirs = answers(apart), answers(shared)
    assert {place: record["response"] for place, record in ours.items()} == {
        place: record["response"] for place, record in theirs.items()
    }
    expected = eval_rows(shared)
    found = eval_rows(apart)
    assert found.keys() == expected.keys()
    for place, row in expected.items():
        assert found[place] == pytest.approx(row, rel=1e-4, abs=1e-6), place


def test_the_best_is_by_the_named_metric(shared, apart):
    """And the summary shows each set's first and last numbers."""
    rows = eval_rows(shared)
    best = json.loads((shared / "summary.json").read_text())["best"]
    values = {step: rows["sampled", step]["pass@2"] for step in range(5)}
    assert best["set"] == "sampled" and best["pass@2"] == max(values.values())
    assert best["step"] == min(step for step, value in values.items() if value == best["pass@2"])
    summary = json.loads((apart / "summary.json").read_text())
    for name in ("sampled", "greedy"):
        shown = summary["evals"][name]["after"]
        row = eval_rows(apart)[name, 4]
        assert "reward" in shown and shown == {name: row[name] for name in shown}


def test_an_evaluation_runs_while_the_step_trains(apart):
    """On the ranks that generated the step's responses, and only after these."""
    trace = json.loads((apart / "trace.json").read_text())
    training = [e for e in trace if e["name"] == "actor_train" and e["args"]["step"] == 2]
    generating = [e for e in trace if e["name"] == "actor_gen" and e["args"]["step"] == 2]
    evaluations = [e for e in generating if e["args"]["evaluating"]]
    own = [e for e in generating if not e["args"]["evaluating"]]
    assert training and evaluations and own
    assert max(e["args"]["seq"] for e in own) < min(e["args"]["seq"] for e in evaluations)


@pytest.mark.parametrize("allocation", [SHARED, APART])
def test_a_resumed_run_has_each_evaluation_once(files, shared, allocation):
    """Those that were lost are repeated, and no others; all numbers are those of an undisturbed run."""
    trial = f"killed-{allocation[:3].strip('*:')}"
    words = command("ppo-math", overrides(files, trial, allocation))
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    directory = files / "runs" / "ppo-math" / trial
    wait_for_recovery(directory, process, 2)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    kept = sum(1 for place in eval_rows(directory) if place[1] <= 2)
    run(files, trial, allocation)
    assert kept
    found = eval_rows(directory)
    expected = eval_rows(shared)
    assert found.keys() == expected.keys()
    for place, row in expected.items():
        assert found[place] == pytest.approx(row, rel=1e-4, abs=1e-6), place
