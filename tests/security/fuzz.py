"""Strangers and a babbling worker at a live run, whose numbers must stay what they are.

    python -m tests.security.fuzz --inputs 100000 --seed 1

Two runs of a tiny model: one undisturbed; one with strangers at its ports and workers that say nonsense. The
outcome counts inputs and lines of the log, and says which numbers differ.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from realrl.api.allocation import parse_allocation
from realrl.api.config import GenerationConfig, ModelConfig, TrainedModelConfig
from realrl.api.data import DataConfig
from realrl.launch.local import LocalLauncher
from realrl.recipes.ppo_math import PPO_MATH, PPOMathConfig, PPOMathSettings
from realrl.runtime.control.channel import KEYS_VARIABLE
from realrl.runtime.run import run
from tests.tiny import tiny_llama

NUM_STEPS, NUM_WORKERS = 4, 2
_REPORTS = 60
"""That many reports at least come of those steps."""
_STRANGERS_SHARE = 0.5
_TIMES = ("tokens_per_s", "duration_s", "phases_s")
_REWARD = """
import time
from pathlib import Path
asked = 0
def reward(prompt, response, solutions):
    global asked
    asked += 1
    Path(HERE, "at-work").touch()
    while asked > 2 and not Path(HERE, "done").exists():
        time.sleep(0.02)
    return len(response) % 3
"""
"""Holds the run up until the strangers have gone."""


@dataclass
class Outcome:
    """What came of it."""

    inputs: dict[str, int]
    lines: int
    """Of the master's log that speak of what was dropped."""
    dropped: int
    differences: list[str]
    leaks: list[Path]
    """Files of the run that hold its secret key."""
    attack_s: float
    """How long the strangers were at it."""


class BesetLauncher(LocalLauncher):
    """Starts babbling workers, and strangers beside them."""

    def __init__(self, folder: Path, strangers: int, babble: int, seed: int) -> None:
        super().__init__(module="tests.security.babbler")
        self._folder, self._strangers, self._seed = folder, strangers, seed
        self.counts = folder / "counts"
        self.counts.mkdir()
        self._own = {"BABBLE": str(babble), "BABBLE_SEED": str(seed), "BABBLE_COUNTS": str(self.counts)}
        self.attack_s, self.code = 0.0, None

    def start(self, num_workers: int, environment: Mapping[str, str], log_directory: Path) -> None:
        super().start(num_workers, {**environment, **self._own}, log_directory)
        command = [sys.executable, "-m", "tests.security.attack"]
        arguments = [str(self._folder), str(self._strangers), str(self._seed)]
        self._attack = subprocess.Popen([*command, *arguments], env={**os.environ, **environment})
        self.secret = environment[KEYS_VARIABLE].split()[2].encode()
        self._since_s = time.monotonic()

    def poll(self) -> list[tuple[int, int]]:
        if self.code is None and (code := self._attack.poll()) is not None:
            self.code = code
            self.attack_s = time.monotonic() - self._since_s
            (self._folder / "done").touch()
        return super().poll()

    def stop(self, grace_s: float) -> None:
        self._attack.kill()
        self._attack.wait()
        super().stop(grace_s)


def fuzz(folder: Path, num_inputs: int, seed: int) -> Outcome:
    """Both runs, one after the other."""
    config = _config(folder)
    (folder / "done").touch()
    _run(config, LocalLauncher())
    (folder / "done").unlink()
    (folder / "at-work").unlink()
    strangers = int(num_inputs * _STRANGERS_SHARE)
    babble = -(-(num_inputs - strangers) // _REPORTS)
    beset = replace(config, trial="beset")
    launcher = BesetLauncher(folder, strangers, babble, seed)
    _run(beset, launcher)
    assert launcher.code == 0, "the strangers failed, or were heard"
    lines, dropped = _dropped(_directory(beset) / "logs" / "master.log")
    said = sum(int(file.read_text()) for file in launcher.counts.iterdir())
    inputs = json.loads((folder / "attack.json").read_text()) | {"nonsense of workers": said}
    files = (path for path in _directory(beset).rglob("*") if path.is_file())
    leaks = [path for path in files if launcher.secret in path.read_bytes()]
    return Outcome(inputs, lines, dropped, _differences(config, beset), leaks, launcher.attack_s)


def _config(folder: Path) -> PPOMathConfig:
    rows = [{"query_id": str(i), "prompt": f"{i}+1=", "solutions": [str(i + 1)]} for i in range(6)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "held.py").write_text(f"HERE = {str(folder)!r}\n{_REWARD}")
    model = ModelConfig(path=str(tiny_llama(folder / "model")), dtype="float32")
    return PPOMathConfig(
        actor=TrainedModelConfig(model=model),
        data=DataConfig(path=str(folder / "rows.jsonl"), eval_path="", template="plain"),
        ppo=PPOMathSettings(group_size=2),
        generation=GenerationConfig(max_new_tokens=4),
        reward=f"{folder / 'held.py'}:reward",
        batch_size=4,
        num_steps=NUM_STEPS,
        save_every=NUM_STEPS,
        runs_dir=str(folder / "runs"),
        trial="undisturbed",
        allocation="actor_gen:d2,*:t2",
        device="cpu",
    )


def _run(config: PPOMathConfig, launcher: LocalLauncher) -> None:
    calls = list(PPO_MATH.graph(config).calls)
    run(PPO_MATH, config, parse_allocation(config.allocation, calls, ["actor_gen"], {}), launcher)


def _directory(config: PPOMathConfig) -> Path:
    return Path(config.runs_dir) / config.experiment / config.trial


def _dropped(log: Path) -> tuple[int, int]:
    """Lines about what was dropped, and the most that one of them counts."""
    counts = [int(count) for count in re.findall(r"dropped (\d+) message", log.read_text())]
    return len(counts), max(counts, default=0)


def _differences(config: PPOMathConfig, beset: PPOMathConfig) -> list[str]:
    """Of metrics, rollouts and weights."""
    found = []
    for name in ("metrics.jsonl", "rollouts.jsonl"):
        pairs = zip(_lines(config, name), _lines(beset, name), strict=True)
        found += [f"{name}: {one} and {other}" for one, other in pairs if one != other]
    ours, theirs = _weights(config), _weights(beset)
    return found + [name for name, tensor in ours.items() if not tensor.equal(theirs[name])]


def _lines(config: PPOMathConfig, name: str) -> list[dict[str, Any]]:
    lines = map(json.loads, (_directory(config) / name).read_text().splitlines())
    return [{key: value for key, value in line.items() if key not in _TIMES} for line in lines]


def _weights(config: PPOMathConfig) -> dict[str, Tensor]:
    files = sorted((_directory(config) / "checkpoints").rglob("*.safetensors"))
    assert files
    return {f"{file.name} {name}": tensor for file in files for name, tensor in load_file(file).items()}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcome = fuzz(Path(folder), given.inputs, given.seed)
    for kind, count in outcome.inputs.items():
        sys.stdout.write(f"{count:8,} {kind}\n")
    sys.stdout.write(
        f"{sum(outcome.inputs.values()):8,} in all; the strangers took {outcome.attack_s:.1f} s\n"
    )
    sys.stdout.write(
        f"{outcome.lines} lines in the master's log; differences: {outcome.differences or 'none'}\n"
    )
    sys.stdout.write(f"files with the secret key: {outcome.leaks or 'none'}\n")
    return bool(outcome.differences or outcome.leaks)


if __name__ == "__main__":
    sys.exit(main())
