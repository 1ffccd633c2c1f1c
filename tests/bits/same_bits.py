"""Digests of whole runs, to see that a change of the code changes no bit of what it computes.

    python -m tests.bits.same_bits record FILE     # on the code before
    python -m tests.bits.same_bits compare FILE    # on the code after, on the same machine

Every run trains a tiny model on a CPU through the command line. A digest covers what a run computed
(each metric that is no time, each rollout, each weight of its last checkpoint), never when or where.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from tests.command_line import run_recipe
from tests.e2e.stateful import write_inputs
from tests.tiny import tiny_llama

NUM_STEPS = 3
ROLLOUT_ORDER = ("step", "evaluating", "group", "row", "sample")


@dataclass(frozen=True)
class Case:
    """One run: a recipe, an allocation and what it sets besides."""

    name: str
    recipe: str
    allocation: str
    overrides: Mapping[str, object]


REASONING = {
    "actor.model.dtype": "float32",
    "actor.optimizer.lr": 1e-3,
    "data.template": "plain",
    "num_steps": NUM_STEPS,
    "batch_size": 4,
    "ppo.group_size": 4,
    "ppo.num_minibatches": 2,
    "generation.max_new_tokens": 10,
    "max_tokens_per_microbatch": 50,
    "eval_every": 2,
}
CRITIC = {
    "critic.model.dtype": "float32",
    "critic.optimizer.lr": 1e-2,
    "critic.normalise": "exponential",
    "critic.num_minibatches": 3,
    "ppo.lam": 0.9,
    "ppo.kl_coef": 0.05,
}
SUPERVISED = {
    "model.dtype": "float32",
    "data.path": "sums",
    "optimizer.lr": 3e-3,
    "num_steps": NUM_STEPS,
    "max_tokens_per_microbatch": 200,
}
COLOCATED = ("*:d1", "actor_gen:d2,*:p2")
OVERLAPPING = ("actor_gen:d1+*:d1", "gen.p2+t2")


def cases_of(
    name: str, recipe: str, allocations: Iterable[str], overrides: Mapping[str, object]
) -> list[Case]:
    """Return one case for each allocation."""
    return [Case(f"{name} {allocation}", recipe, allocation, overrides) for allocation in allocations]


CASES = (
    *cases_of("ppo", "ppo", ("actor_gen:t2,*:p2", "actor_gen:d2,*:t2"), {**REASONING, **CRITIC}),
    *cases_of("grpo", "grpo", COLOCATED, REASONING),
    *cases_of("dapo", "dapo", COLOCATED, {**REASONING, "ppo.max_draws": 3}),
    *cases_of(
        "decoupled",
        "ppo-math",
        COLOCATED,
        {**REASONING, "ppo.old": "trainer", "ppo.correction.weight": "token", "ppo.correction.cap": 5},
    ),
    *cases_of("stale", "ppo-math", OVERLAPPING, {**REASONING, "max_staleness": 2}),
    *cases_of(
        "uninterrupted",
        "rloo",
        OVERLAPPING,
        {**REASONING, "max_staleness": 1, "generation.interruptible": "false"},
    ),
    *cases_of("sft", "sft", ("*:d1", "*:d2"), SUPERVISED),
    *cases_of("dpo", "dpo", ("*:t2", "ref_inf:d2,*:p2"), SUPERVISED),
)


def digest_of_run(run: Path) -> dict[str, str]:
    """Return a digest for each of a run's metrics, rollouts and weights."""
    digests = {"metrics": _digest(map(_timeless, _rows(run / "metrics.jsonl")))}
    rollouts = run / "rollouts.jsonl"
    if rollouts.exists():
        rows = sorted(_rows(rollouts), key=lambda row: [row[key] for key in ROLLOUT_ORDER])
        digests["rollouts"] = _digest(rows)
    checkpoint = run / "checkpoints" / f"step-{NUM_STEPS}"
    weights = sorted(checkpoint.rglob("*.safetensors"))
    assert weights, f"{checkpoint} has no weights"
    for path in weights:
        digests[str(path.relative_to(checkpoint))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return digests


def _rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _timeless(row: dict) -> dict:
    """Keep what a step computed: numbers that are no seconds, and what kind of step it was."""
    kept = {"kind": row["kind"]}
    for key, value in row.items():
        if isinstance(value, int | float) and not key.endswith("_s"):
            kept[key] = value
    return kept


def _digest(rows: Iterable[dict]) -> str:
    lines = (json.dumps(row, sort_keys=True) for row in rows)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def run_case(case: Case, inputs: Path, runs: Path) -> dict[str, str]:
    """Run a case through the command line and return its digests."""
    overrides = dict(case.overrides)
    for model in ("actor", "critic"):
        if f"{model}.model.dtype" in overrides:
            overrides[f"{model}.model.path"] = inputs / "model"
    if "model.dtype" in overrides:
        overrides["model.path"] = inputs / "model"
    if "data.path" not in overrides:
        overrides |= {"data.path": inputs / "train.jsonl", "data.eval_path": inputs / "held-out.jsonl"}
    trial = "".join(character if character.isalnum() else "_" for character in case.name)
    overrides |= {"allocation": case.allocation, "runs_dir": runs, "trial": trial, "device": "cpu"}
    run_recipe(case.recipe, overrides)
    return digest_of_run(runs / case.recipe / trial)


def machine() -> str:
    """Return what decides how a sum of floats is rounded here: the processor and PyTorch."""
    flags = next(
        (line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")),
        platform.machine(),
    )
    told = "\n".join([torch.__version__, torch.backends.cpu.get_cpu_capability(), *sorted(flags.split())])
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def digests_of(cases: Iterable[Case]) -> dict[str, dict[str, str]]:
    """Run cases one by one; returns their digests by name."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder)
        write_inputs(inputs)
        tiny_llama(inputs / "model")
        for case in cases:
            found[case.name] = run_case(case, inputs, inputs / "runs")
            print(f"{case.name}: {found[case.name]}", file=sys.stderr, flush=True)
    return found


def differences(before: Mapping[str, dict[str, str]], after: Mapping[str, dict[str, str]]) -> list[str]:
    """Return each digest of a run in `after` that differs, in words; one that is missing differs too."""
    different = []
    for name, digests in after.items():
        for part in sorted({*before[name], *digests}):
            if before[name].get(part) != digests.get(part):
                different.append(f"{name}: {part} differs")
    return different


def main() -> None:
    """Record digests, or compare with recorded ones; exits with 1 where any differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("record", "compare"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--only", default="", help="cases whose name begins so")
    options = parser.parse_args()
    found = digests_of(case for case in CASES if case.name.startswith(options.only))
    if options.action == "record":
        options.file.write_text(json.dumps({"machine": machine(), "runs": found}, indent=1) + "\n")
        return
    recorded = json.loads(options.file.read_text())
    assert recorded["machine"] == machine(), "recorded on another machine, whose sums are rounded otherwise"
    different = differences(recorded["runs"], found)
    print("\n".join(different) or f"{len(found)} runs: every bit is the same")
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
