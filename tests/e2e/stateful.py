"""A tiny run that has every kind of state: a critic that normalises, a reference that follows the actor, a
learning rate that changes, evaluations of which the best is kept.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tests.tiny import tiny_llama


def write_inputs(folder: Path, solutions: Sequence[str] = "02468") -> None:
    """A tiny model, and problems that a random model answers right now and then: any even number will do."""
    tiny_llama(folder / "model")
    for name, count in (("train", 24), ("held-out", 6)):
        lines = [
            {"query_id": f"{name}-{i}", "prompt": f"{i}+{i * i}=" + "?" * (i % 5), "solutions": [*solutions]}
            for i in range(count)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def stateful_overrides(folder: Path, trial: str, **more: object) -> dict[str, object]:
    """Of `ppo-math`, for the inputs in `folder`."""
    models = {f"{name}.model.path": folder / "model" for name in ("actor", "critic")}
    models |= {f"{name}.model.dtype": "float32" for name in ("actor", "critic")}
    models |= {f"{name}.optimizer.eps": 1e-4 for name in ("actor", "critic")}
    return models | {
        "actor.optimizer.lr": 1e-3,
        "actor.optimizer.schedule": "cosine",
        "critic.optimizer.lr": 1e-2,
        "critic.normalise": "exponential",
        "data.path": folder / "train.jsonl",
        "data.eval_path": folder / "held-out.jsonl",
        "data.template": "plain",
        "batch_size": 4,
        "ppo.group_size": 2,
        "ppo.kl_coef": 0.05,
        "ppo.ref_eta": 0.3,
        "generation.max_new_tokens": 8,
        "recover_every": 1,
        "logger": "[]",
        "runs_dir": folder / "runs",
        "trial": trial,
        **more,
    }
