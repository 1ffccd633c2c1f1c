"""Directories as runs leave them, made up and as long as wanted."""

from __future__ import annotations

import json
import math
import os
import random
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from realrl.api.configure import build_config, dump_config
from realrl.base.processes import start_of
from realrl.recipes import RECIPES
from realrl.runtime.watch.status import STATUS, Status

HOSTILE = "</script><script>window.hacked = 1</script><!-- <img src=x onerror='window.hacked = 1'> \u2028"
"""Text as a model may write it."""
VERDICTS = ("correct", "wrong", "no_answer")


def write_lines(path: Path, lines: list[dict]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def make_run(
    directory: Path,
    *,
    recipe: str = "grpo",
    num_steps: int = 6,
    samples: int = 4,
    overrides: Sequence[str] = (),
    is_over: bool = True,
    num_ranks: int = 2,
) -> Path:
    """A run of `num_steps` steps whose reward rises; every file but the checkpoints."""
    directory.mkdir(parents=True)
    given = [f"num_steps={num_steps}", f"experiment={directory.parent.name}", *overrides]
    config = build_config(RECIPES[recipe].default_config, overrides=given)
    (directory / "config.yaml").write_text(dump_config(config, recipe=recipe), encoding="utf-8")
    draw = random.Random(1)
    write_lines(directory / "metrics.jsonl", [_metrics(step, num_steps, draw) for step in range(num_steps)])
    rollouts = [_rollout(step, i, draw) for step in range(num_steps) for i in range(samples)]
    write_lines(directory / "rollouts.jsonl", rollouts)
    _write_trace(directory / "trace.json", num_steps, num_ranks, draw)
    _write_log(directory / "logs" / "master.log")
    _write_status(directory / STATUS, num_steps, is_over)
    if is_over:
        summary = {"num_steps": num_steps, "wall_s": 90.0, "warnings": ["all rewards were equal in 3 steps"]}
        (directory / "summary.json").write_text(json.dumps(summary))
    return directory


def _metrics(step: int, num_steps: int, draw: random.Random) -> dict[str, Any]:
    share = step / max(1, num_steps - 1)
    noise = draw.gauss(0, 0.05)
    names = [f"actor_part_{i}" for i in range(12)]
    return {
        "step": step,
        "kind": "train",
        "reward": min(1.0, max(0.0, share + noise)),
        "accuracy": min(1.0, max(0.0, share + noise)),
        "response_tokens": 40 + 60 * share + 10 * noise,
        "actor_loss": None if step == 1 else math.exp(-3 * share) + abs(noise),
        "actor_entropy": 2 - share,
        **{name: draw.random() for name in names},
        "weights": {"reward": 8.0},
        "num_sequences": 8,
        "num_tokens": 800,
        "tokens_per_s": 800.0,
        "duration_s": 1.0,
        "phases_s": {"actor_gen": 0.4, "reward": 0.1, "actor_train": 0.5},
    }


def _rollout(step: int, index: int, draw: random.Random) -> dict[str, Any]:
    tokens = ["It", " is", " ", str(index), "<eos>"]
    reward = float(draw.random() < 0.5)
    record = {"step": step, "evaluating": False, "row": index // 2, "group": index // 2, "sample": index % 2}
    return record | {
        "num_tokens": len(tokens),
        "tokens": tokens,
        "prompt": f"What is {index}? {HOSTILE}",
        "response": f"It is {index} {HOSTILE}",
        "solutions": [str(index)],
        "reward": reward,
        "verdict": VERDICTS[index % 3],
        "ended": True,
        "advantage": reward - 0.5,
        "logprobs": [-0.1, -2.5, -0.0, -1.0, -4.0],
    }


def _write_trace(path: Path, num_steps: int, num_ranks: int, draw: random.Random) -> None:
    events, now_us = [], 1.7e15
    for step in range(num_steps):
        for name, duration_us in (
            ("actor_gen", 4e5),
            ("reward", 1e5),
            ("move actor_train", 1e4),
            ("actor_train", 5e5),
        ):
            for rank in range(num_ranks):
                place = {"pid": 0, "tid": rank, "ts": now_us, "dur": duration_us * draw.uniform(0.6, 1.0)}
                arguments = {"step": step, "evaluating": False, "seq": 0}
                events.append({"name": name, "cat": "RunCall", "ph": "X", **place, "args": arguments})
            now_us += duration_us
    lines = ["[", *(json.dumps(event) + "," for event in events)]
    path.write_text("\n".join(lines) + "\n")


def _write_log(path: Path) -> None:
    path.parent.mkdir()
    path.write_text(
        "2026-01-01 10:00:00,000 INFO [master] realrl.runtime.run: a step: 4 rows x 2 samples\n"
        "2026-01-01 10:00:01,000 WARNING [master] realrl.runtime.watch.run_watch: rank 1: nothing for 12 s\n"
        "2026-01-01 10:00:02,000 WARNING [master] realrl.runtime.watch.run_watch: rank 1: nothing for 13 s\n"
        "2026-01-01 10:00:03,000 WARNING [master] py.warnings: a package is about to change\n"
        "2026-01-01 10:00:04,000 INFO [master] realrl.runtime.master.master: recovery goes on from here\n"
    )


def _write_status(path: Path, num_steps: int, is_over: bool) -> None:
    now_s = time.time()
    status = Status(
        host=socket.gethostname(),
        pid=os.getpid(),
        process_start=start_of(os.getpid()),
        began_s=now_s - 120,
        written_s=now_s,
        phase="ended" if is_over else "step",
        phase_since_s=now_s - 30,
        num_steps=num_steps,
        step=num_steps,
        is_over=is_over,
    )
    path.write_bytes(msgspec.json.encode(status))
