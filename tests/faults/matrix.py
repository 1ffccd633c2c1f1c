"""Every fault at every phase of a step, again and again, and what became of the run.

python -m tests.faults.matrix [--kinds KIND ...] [--repetitions N] [--seed N] [--output FILE.md]
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import torch

from tests.e2e.stateful import stateful_overrides, write_inputs
from tests.e2e.test_plans import metrics, rollouts, weights
from tests.faults.faults import KINDS, PHASES, VARIABLE, Fault, make_faults, write_faults

ALLOCATION = "actor_gen:t2,*:d2"
CALL_TIMEOUT_S = {
    "worker stopped": 15.0,
    "control connection dropped": 15.0,
    "data connections dropped": 30.0,
}
"""Where only a deadline tells; else long."""
SOLUTIONS = (*"02468", r"\sqrt{49}")
"""The last has the verifier's processes think."""
_SETTLED_S = 2.0
_DISK = "size=24m"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a run at one fault."""

    fault: Fault
    end: str
    """`went on`, `restarted`, `started again` by hand, or what should never be."""
    detected_s: float | None
    """From the fault to the message; None where there was nothing to say."""
    steps_lost: int
    message: str


def campaign(folder: Path, name: str, faults: Sequence[Fault]) -> tuple[list[Outcome], list[str]]:
    """One run that meets all `faults`, each at a step of its own; returns what became of it at each, and what
    at its end was not as it should be.
    """
    place, kinds = folder / name, {fault.kind for fault in faults}
    write_faults(place, faults)
    num_steps = max(fault.step for fault in faults) + 2
    timeout_s = min(CALL_TIMEOUT_S.get(kind, 120.0) for kind in kinds)
    keys = {"num_steps": num_steps, "allocation": ALLOCATION, "runs_dir": place / "disk"}
    # A logger is one more process that must not be left behind.
    keys |= {"call_timeout_s": timeout_s, "restarts": 3 * len(faults), "logger": "[tensorboard]"}
    with _small_disk(place / "disk") if "disk full" in kinds else _folder(place / "disk"):
        process = _Process(place, stateful_overrides(folder, name, **keys))
        run = place / "disk" / "ppo-math" / name
        ends = _see_through(process, run, len(faults), corrupts="checkpoint corrupted" in kinds)
        run = Path(shutil.copytree(run, place / "run"))
    outcomes = [_outcome(fault, place, run, ends) for fault in faults]
    return outcomes, [*process.left_behind(), *differences(folder, run, num_steps)]


class _Process:
    """A run's command, started as often as it takes."""

    def __init__(self, place: Path, overrides: dict[str, object]) -> None:
        given = [f"{key}={value}" for key, value in overrides.items()]
        self._command = [sys.executable, "-m", "tests.faults.master", "ppo-math", *given]
        self._temporary = place / "tmp"
        self._temporary.mkdir()
        self._environment = {**os.environ, VARIABLE: str(place), "TMPDIR": str(self._temporary)}
        self._log = place / "said"
        self._shared = set(os.listdir("/dev/shm"))
        self._own: set[int] = set()

    def run(self) -> int:
        """To its end; returns the exit code."""
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                self._command, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        try:
            while process.poll() is None:
                self._own |= _descendants(process.pid)
                time.sleep(0.1)
        finally:
            process.kill()  # and its workers with it
        return process.returncode

    def left_behind(self) -> list[str]:
        """Processes and files that outlive the run."""
        time.sleep(_SETTLED_S)
        processes = [f"process {pid}" for pid in self._own if _is_running(pid)]
        shared = [f"/dev/shm/{name}" for name in set(os.listdir("/dev/shm")) - self._shared]
        return processes + shared + [str(path) for path in self._temporary.iterdir()]


def _see_through(process: _Process, run: Path, patience: int, *, corrupts: bool) -> list[tuple[float, int]]:
    """Start the run until it ends well; returns when it ended otherwise, and how."""
    ends: list[tuple[float, int]] = []
    drawn = random.Random(patience)
    while len(ends) <= 3 * patience and (code := process.run()) != 0:
        ends.append((time.time(), code))
        (run.parents[1] / "filler").unlink(missing_ok=True)
        if corrupts:
            _corrupt_newest(run, drawn)
    return ends


def _corrupt_newest(run: Path, drawn: random.Random) -> None:
    """Flip a bit of what the run is to go on from, or cut its end off; the one before it is left whole."""
    found = sorted(run.glob("recovery/step-*"), key=lambda path: int(path.name.partition("-")[2]))
    if len(found) < 2:
        return
    path = drawn.choice([path for path in sorted(found[-1].rglob("*")) if path.is_file()])
    content = bytearray(path.read_bytes())
    at = drawn.randrange(len(content))
    if drawn.random() < 0.5:
        content[at] ^= 1 << drawn.randrange(8)
        path.write_bytes(content)
    else:
        path.write_bytes(content[:at])


def _outcome(fault: Fault, place: Path, run: Path, ends: Sequence[tuple[float, int]]) -> Outcome:
    fired = place / "fired" / fault.name
    if not fired.exists():
        return Outcome(fault=fault, end="never came", detected_s=None, steps_lost=0, message="")
    fired_s = float(fired.read_text())
    later = [float(path.read_text()) for path in fired.parent.iterdir()]
    next_s = min((s for s in later if s > fired_s), default=time.time())
    said = [line for line in _log_lines(run) if fired_s <= line[0] < next_s]
    failure = next((line for line in reversed(said) if line[1] == "ERROR"), None)
    ended_s = next((s for s, _ in ends if fired_s <= s < next_s), None)
    resumed = (re.search(r"resumes after step (\d+)", text) for _, _, text in said)
    step = next((int(found[1]) for found in resumed if found), None)
    end = "started again" if ended_s else "restarted" if failure else "went on"
    detected_s = failure[0] if failure else ended_s
    return Outcome(
        fault=fault,
        end=end,
        detected_s=None if detected_s is None else detected_s - fired_s,
        steps_lost=0 if step is None else max(0, fault.step - step),
        message=failure[2] if failure else "",
    )


def _log_lines(run: Path) -> Iterator[tuple[float, str, str]]:
    """When, how grave, and what the master's log says."""
    for line in (run / "logs" / "master.log").read_text().splitlines():
        if found := re.match(r"(\S+ \S+),(\d+) ([A-Z]+) \[master\] \S+: (.*)", line):
            at_s = datetime.strptime(found[1], "%Y-%m-%d %H:%M:%S").timestamp() + int(found[2]) / 1000
            yield at_s, found[3], found[4]


def differences(folder: Path, run: Path, num_steps: int) -> list[str]:
    """From a run of as many steps that nothing disturbed."""
    expected = _undisturbed(folder, num_steps)
    found = []
    if metrics(run) != metrics(expected):
        found.append("metrics differ")
    if rollouts(run) != rollouts(expected):
        found.append("rollouts differ")
    for model in ("actor", "critic"):
        ours, theirs = weights(run, model, num_steps), weights(expected, model, num_steps)
        if not all(torch.equal(ours[name], theirs[name]) for name in theirs):
            found.append(f"{model}'s weights differ")
    return found


def _undisturbed(folder: Path, num_steps: int) -> Path:
    trial = f"undisturbed-{num_steps}"
    run = folder / "runs" / "ppo-math" / trial
    if not (run / "summary.json").exists():
        given = stateful_overrides(folder, trial, num_steps=num_steps, allocation=ALLOCATION)
        overrides = [f"{key}={value}" for key, value in given.items()]
        command = [sys.executable, "-m", "realrl.apps.quickstart", "ppo-math", *overrides]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return run


@contextmanager
def _small_disk(path: Path) -> Iterator[None]:
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", _DISK, "none", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)


@contextmanager
def _folder(path: Path) -> Iterator[None]:
    path.mkdir()
    yield


def _descendants(pid: int) -> set[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return set()
    return {int(child) for child in children}.union(*(_descendants(int(child)) for child in children))


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def table(outcomes: Iterable[Outcome]) -> str:
    """A line for each fault and phase."""
    rows = defaultdict(list)
    for outcome in outcomes:
        rows[outcome.fault.kind, outcome.fault.phase].append(outcome)
    lines = ["| fault | phase | times | outcome | detected, s: median, worst | most steps lost |"]
    lines.append("|---|---|---|---|---|---|")
    for (kind, phase), found in rows.items():
        ends = ", ".join(f"{end} {count}" for end, count in Counter(o.end for o in found).items())
        seconds = [o.detected_s for o in found if o.detected_s is not None]
        when = f"{statistics.median(seconds):.1f}, {max(seconds):.1f}" if seconds else "-"
        lost = max(o.steps_lost for o in found)
        lines.append(f"| {kind} | {phase} | {len(found)} | {ends} | {when} | {lost} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--phases", nargs="+", choices=PHASES, default=list(PHASES))
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args(argv)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="realrl-faults-"))
    write_inputs(folder, SOLUTIONS)
    outcomes, wrong = [], []
    for kind in options.kinds:
        faults = make_faults(kind, options.phases, options.repetitions, options.seed)
        found, faulty = campaign(folder, kind.replace(" ", "-"), faults)
        outcomes += found
        wrong += [f"{kind}: {what}" for what in faulty]
        messages = Counter(re.sub(r"\d+", "N", o.message) for o in found if o.message)
        print(f"{kind}: {Counter(o.end for o in found)}; not as it should be: {faulty or 'nothing'}")
        for message, count in messages.most_common():
            print(f"    {count} x {message}", flush=True)
    text = table(outcomes) + "\n\n" + ("\n".join(wrong) or "Nothing else came of them.") + "\n"
    if options.output:
        options.output.write_text(text)
    print(text)
    if wrong:
        print(f"see {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
