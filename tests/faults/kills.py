"""A run that is killed again and again, at moments of no kind, its master or a worker.

python -m tests.faults.kills [--times N] [--steps N] [--seed N]
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.command_line import command
from tests.e2e.stateful import stateful_overrides, write_inputs
from tests.e2e.test_faults import workers
from tests.faults.matrix import ALLOCATION, SOLUTIONS, differences

LONGEST_S = 30.0
"""Between two kills."""


def killed_run(folder: Path, times: int, num_steps: int, seed: int) -> tuple[Path, list[str]]:
    """Start it until it ends, and kill it `times` times on the way, or until it ends; returns its directory,
    and who was killed after how long.
    """
    chance, killed = random.Random(seed), []
    keys = {"num_steps": num_steps, "allocation": ALLOCATION, "recover_every": 5, "restarts": times}
    keys["logger"] = "[tensorboard]"
    arguments = command("ppo-math", stateful_overrides(folder, "killed", **keys))
    with (folder / "said").open("wb") as log:
        process = None
        while process is None or process.poll() != 0:
            if process is None or process.poll() is not None:
                process = subprocess.Popen(arguments, stdout=log, stderr=log, start_new_session=True)
            wait_s = chance.uniform(0, LONGEST_S)
            if len(killed) == times or _ends_within(process, wait_s):
                process.wait()
                continue
            victim = chance.choice(["the master", "a worker"])
            pids = [process.pid] if victim == "the master" else workers(process.pid)
            if pids:
                os.kill(chance.choice(pids), signal.SIGKILL)
                killed.append(f"{victim} after {wait_s:.1f} s")
            if victim == "the master":
                process.wait()
    return folder / "runs" / "ppo-math" / "killed", killed


def _ends_within(process: subprocess.Popen, wait_s: float) -> bool:
    end_s = time.monotonic() + wait_s
    while process.poll() is None and time.monotonic() < end_s:
        time.sleep(0.05)
    return process.poll() is not None


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(argv)
    folder = Path(tempfile.mkdtemp(prefix="realrl-kills-"))
    write_inputs(folder, SOLUTIONS)
    run, killed = killed_run(folder, options.times, options.steps, options.seed)
    print(f"killed {len(killed)} times: {', '.join(killed)}")
    if found := differences(folder, run, options.steps):
        print(f"{'; '.join(found)}; see {folder}")
        return 1
    print(f"metrics, rollouts and weights after {options.steps} steps are those of an undisturbed run")
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
