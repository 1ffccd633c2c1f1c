"""The plan does not change the maths: three steps of PPO under many allocations, against one worker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.command_line import run_recipe
from tests.e2e.stateful import write_inputs

ALLOCATIONS = [
    "actor_gen:d2,*:t2",
    "actor_gen:t2,*:p2",
    "gen.d2+p2",
    "*:d2t2",
    "actor_gen:d4,*:p2t2",
]
WITHOUT_CRITIC = ["actor_gen:t2,*:p2"]
"""The calls are among those with one."""
NUM_STEPS = 3
TOLERANCE = 1e-4
ROUNDING = 1e-5
COMPUTED = ("advantage", "advantages", "logprobs")
"""Of a rollout, what is not drawn."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("plans")
    write_inputs(folder)
    return folder


def train(folder: Path, trial: str, allocation: str, *, critic: bool, **more: object) -> Path:
    """Run the command line; returns the run's directory."""
    overrides = {
        "actor.model.path": folder / "model",
        "actor.model.dtype": "float32",
        "actor.optimizer.lr": 1e-3,
        # Adam divides by the gradient's size: a large eps keeps rounding in near-zero gradients from showing.
        "actor.optimizer.eps": 1e-4,
        "data.path": folder / "train.jsonl",
        "data.eval_path": folder / "held-out.jsonl",
        "data.template": "plain",
        "num_steps": NUM_STEPS,
        "batch_size": 4,
        "ppo.group_size": 4,
        "ppo.num_minibatches": 2,
        "ppo.kl_coef": 0.05,
        "generation.max_new_tokens": 10,
        "max_tokens_per_microbatch": 50,
        "runs_dir": folder / "runs",
        "allocation": allocation,
        "trial": trial,
    }
    if critic:
        overrides |= {
            "critic.model.path": folder / "model",
            "critic.model.dtype": "float32",
            "critic.optimizer.lr": 1e-2,
            "critic.optimizer.eps": 1e-4,
            "critic.normalise": "exponential",
            "critic.num_minibatches": 3,
            "ppo.lam": 0.9,
        }
    run_recipe("ppo-math", overrides | more)
    return folder / "runs" / "ppo-math" / trial


@pytest.fixture(scope="module", params=[False, True], ids=["group-relative", "critic"])
def single(request, files) -> tuple[bool, Path]:
    return request.param, train(files, f"single-{request.param}", "*:d1", critic=request.param)


@pytest.mark.parametrize(
    ("single", "allocation"),
    [*((True, allocation) for allocation in ALLOCATIONS), *((False, one) for one in WITHOUT_CRITIC)],
    indirect=["single"],
)
def test_a_plan_gives_the_numbers_of_one_worker(files, single, allocation):
    """The same rollouts, token by token; advantages, losses, gradient norms and weights to 1e-4."""
    critic, expected = single
    trial = f"{allocation.translate(str.maketrans(':,*+.', '_____'))}-{critic}"
    found = train(files, trial, allocation, critic=critic)
    check_rollouts(found, expected)
    for ours, theirs in zip(metrics(found), metrics(expected), strict=True):
        # How far training is from generation is all rounding, of either plan.
        for name in ("actor_logprob_diff", "actor_logprob_diff_max"):
            assert ours.pop(name, 0.0) < ROUNDING and theirs.pop(name, 0.0) < ROUNDING
        # As is, where the reference is the policy, the sign of what responses of equal rewards are worth.
        if abs(theirs.get("kl_to_ref", 1.0)) < ROUNDING:
            ours.pop("actor_clip_fraction"), theirs.pop("actor_clip_fraction")
        assert ours == pytest.approx(theirs, rel=TOLERANCE, abs=1e-6)
    for model in ("actor", "critic") if critic else ("actor",):
        ours, theirs = weights(found, model), weights(expected, model)
        assert ours.keys() == theirs.keys()
        for name, weight in theirs.items():
            assert (ours[name] - weight).norm() <= TOLERANCE * weight.norm(), name


def test_prompts_are_drawn_again_alike(files):
    """Other prompts come in place of those that teach nothing, the same ones whatever the plan."""
    one, other = (
        train(files, f"draws-{i}", allocation, critic=False, **{"ppo.max_draws": 3})
        for i, allocation in enumerate(("*:d1", "actor_gen:d2,*:p2"))
    )
    check_rollouts(one, other)
    assert max(step.get("redrawn", 0.0) for step in metrics(one)) > 0
    before, after = weights(one, "actor"), weights(other, "actor")
    for name, weight in before.items():
        assert (after[name] - weight).norm() <= TOLERANCE * weight.norm(), name


def test_training_changes_the_weights(files, single):
    """Else the comparison above would hold for a run that does nothing."""
    critic, run = single
    before = load_file(files / "model" / "model.safetensors")
    after = weights(run, "actor")
    assert all((after[name] - before[name]).norm() > 10 * TOLERANCE * before[name].norm() for name in before)
    rewards = {metric["reward"] for metric in metrics(run)}
    assert len(rewards) > 2 and max(rewards) < 1


def check_rollouts(found: Path, expected: Path) -> None:
    """Texts and tokens are equal; what is computed of them, to rounding."""
    for ours, theirs in zip(rollouts(found), rollouts(expected), strict=True):
        for name in COMPUTED:
            assert ours.pop(name, []) == pytest.approx(theirs.pop(name, []), rel=1e-3, abs=1e-5), name
        assert ours == theirs


def rollouts(run: Path) -> list[dict]:
    """In the order of their places."""
    lines = [json.loads(line) for line in (run / "rollouts.jsonl").read_text().splitlines()]
    keys = ("step", "evaluating", "group", "row", "sample")
    return sorted(lines, key=lambda line: [line[key] for key in keys])


def metrics(run: Path) -> list[dict[str, float]]:
    """Per step, what does not depend on the clock."""
    steps = []
    for line in (run / "metrics.jsonl").read_text().splitlines():
        values = json.loads(line)
        steps.append({k: v for k, v in values.items() if isinstance(v, float) and not k.endswith("_s")})
    assert steps
    return steps


def weights(run: Path, model: str, num_steps: int = NUM_STEPS) -> dict[str, torch.Tensor]:
    """All tensors of the run's last checkpoint."""
    files = sorted((run / "checkpoints" / f"step-{num_steps}" / model).glob("*.safetensors"))
    assert files
    return {name: tensor for file in files for name, tensor in load_file(file).items()}
