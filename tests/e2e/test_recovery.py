"""Runs that are killed and started again, through the command line."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from tests.command_line import command, run_recipe
from tests.e2e.stateful import stateful_overrides, write_inputs
from tests.e2e.test_faults import workers
from tests.e2e.test_plans import ROUNDING, TOLERANCE, check_rollouts, metrics, rollouts, weights

pytestmark = pytest.mark.slow

NUM_STEPS, EVAL_EVERY = 6, 2
ALLOCATION, OTHER = "actor_gen:t2,*:d2", "actor_gen:d2,*:p2"


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("recovery")
    write_inputs(folder)
    return folder


def overrides(folder: Path, trial: str, allocation: str, **more: object) -> dict[str, object]:
    keys = {"num_steps": NUM_STEPS, "eval_every": EVAL_EVERY, "allocation": allocation, **more}
    return stateful_overrides(folder, trial, **keys)


def start(folder: Path, trial: str, allocation: str = ALLOCATION, **more: object) -> subprocess.Popen:
    """A run in processes of its own, to be killed."""
    return subprocess.Popen(
        command("ppo-math", overrides(folder, trial, allocation, **more)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def directory_of(folder: Path, trial: str) -> Path:
    return folder / "runs" / "ppo-math" / trial


def finish(folder: Path, trial: str, allocation: str = ALLOCATION, **more: object) -> str:
    """Start a run, or resume it; returns what it said."""
    return run_recipe("ppo-math", overrides(folder, trial, allocation, **more))


def recoveries(run: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in run.glob("recovery/step-*"))


def wait_for_recovery(run: Path, process: subprocess.Popen, step: int) -> None:
    """Until a run could go on after that step, or a later one."""
    deadline_s = time.monotonic() + 180
    while recoveries(run)[-1:] < [step]:
        assert process.poll() is None and time.monotonic() < deadline_s, process.communicate()
        time.sleep(0.005)


@pytest.fixture(scope="module")
def undisturbed(files) -> Path:
    finish(files, "undisturbed")
    return directory_of(files, "undisturbed")


@pytest.fixture(scope="module")
def killed(files) -> Path:
    """Its master's process group, by SIGKILL, once what recovery goes on from is there twice."""
    process, run = start(files, "killed"), directory_of(files, "killed")
    wait_for_recovery(run, process, 3)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return run


def copied(run: Path, trial: str) -> Path:
    return Path(shutil.copytree(run, run.parent / trial))


def test_a_run_that_ended_is_finished(files, undisturbed):
    """It leaves the point of its end, for more steps. Started again, it does nothing, and says so."""
    assert recoveries(undisturbed) == [NUM_STEPS]
    before = sorted(undisturbed.rglob("*"))
    assert f"is finished, with {NUM_STEPS} steps; nothing to do" in finish(files, "undisturbed")
    assert sorted(undisturbed.rglob("*")) == before


def test_a_recovered_run_has_the_bits_of_an_undisturbed_one(files, undisturbed, killed):
    """On the same plan; from the one before where a byte of the newest was flipped, which is said."""
    run = copied(killed, "again")
    *_, older, newest = recoveries(run)
    file = next((run / "recovery" / f"step-{newest}" / "critic").glob("rank-1.*"))
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)
    said = finish(files, "again")
    kept = f"step-{newest} is broken and kept as broken-step-{newest}: critic/rank-1.safetensors has another"
    assert kept in said and (run / "recovery" / f"broken-step-{newest}").is_dir()
    assert f"resumes after step {older}" in said
    assert metrics(run) == metrics(undisturbed)
    assert rollouts(run) == rollouts(undisturbed)
    for model in ("actor", "critic"):
        ours, theirs = weights(run, model, NUM_STEPS), weights(undisturbed, model, NUM_STEPS)
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert evaluations(run) == evaluations(undisturbed)


def test_a_run_that_loses_a_worker_goes_on_by_itself(files, undisturbed):
    """As often as it may, to the same bits; what was written down stands there once."""
    process, run = start(files, "lost"), directory_of(files, "lost")
    for step, rank in ((1, 0), (4, 1)):
        wait_for_recovery(run, process, step)
        os.kill(workers(process.pid)[rank], signal.SIGKILL)
    said, _ = process.communicate(timeout=180)
    assert process.returncode == 0, said
    assert re.search(r"rank 0 died \(killed by SIGKILL\).*\n.*restart 1 of 3", said), said
    assert "restart 2 of 3" in said
    assert metrics(run) == metrics(undisturbed) and rollouts(run) == rollouts(undisturbed)
    for model in ("actor", "critic"):
        ours, theirs = weights(run, model, NUM_STEPS), weights(undisturbed, model, NUM_STEPS)
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def evaluations(run: Path) -> dict:
    """As the summary has them, the best one too."""
    summary = json.loads((run / "summary.json").read_text())
    return {**summary["eval"], "step": summary["best"]["step"]}


def test_a_run_recovered_on_another_plan_has_equal_numbers(files, undisturbed, killed):
    """From the newest, on other meshes; to 1e-4, and the same rollouts."""
    run = copied(killed, "elsewhere")
    assert f"resumes after step {recoveries(run)[-1]}" in finish(files, "elsewhere", OTHER)
    check_rollouts(run, undisturbed)
    for ours, theirs in zip(metrics(run), metrics(undisturbed), strict=True):
        for name in ("actor_logprob_diff", "actor_logprob_diff_max"):
            assert ours.pop(name, 0.0) < ROUNDING and theirs.pop(name, 0.0) < ROUNDING
        assert ours == pytest.approx(theirs, rel=TOLERANCE, abs=1e-6)
    for model in ("actor", "critic"):
        ours, theirs = weights(run, model, NUM_STEPS), weights(undisturbed, model, NUM_STEPS)
        for name, weight in theirs.items():
            assert (ours[name] - weight).norm() <= TOLERANCE * weight.norm(), name


def test_a_run_that_is_continued_and_told_to_stop_has_the_bits_of_one_that_was_not(files):
    """A finished run takes more steps; SIGTERM has it write a point, though `recover_every` asks for none,
    and say so in one line, with exit code 143; then it is resumed.
    """
    keys = {"allocation": "*:d1", "actor.optimizer.schedule": "constant", "recover_every": 1000}
    finish(files, "at-once", num_steps=NUM_STEPS, **keys)
    finish(files, "in-parts", num_steps=2, **keys)
    process, run = start(files, "in-parts", **keys), directory_of(files, "in-parts")
    deadline_s = time.monotonic() + 180
    while '"step": 2, "kind": "train"' not in (run / "metrics.jsonl").read_text().splitlines()[-1]:
        assert process.poll() is None and time.monotonic() < deadline_s, process.communicate()
        time.sleep(0.005)
    pids = workers(process.pid)
    os.kill(process.pid, signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 143, said
    *_, last = said.splitlines()
    assert last.startswith("realrl: error: stopped by SIGTERM; the same command resumes after step ")
    assert recoveries(run)[-1] >= 3 and not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert f"resumes after step {recoveries(run)[-1]}" in finish(files, "in-parts", **keys)
    at_once = directory_of(files, "at-once")
    assert metrics(run) == metrics(at_once) and rollouts(run) == rollouts(at_once)
    ours, theirs = weights(run, "actor", NUM_STEPS), weights(at_once, "actor", NUM_STEPS)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
