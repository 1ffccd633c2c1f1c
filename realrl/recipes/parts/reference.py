"""The distance to a reference policy, as a cost: where it is paid, and when it is only rounding noise."""

from __future__ import annotations

import torch
from torch import Tensor

from realrl.algorithms.coefficients import adapted_kl_coef as adapted_kl
from realrl.algorithms.kl import kl_estimate
from realrl.api.batch import PackedBatch
from realrl.api.recipe import CallContext
from realrl.recipes.parts.config import AdvantageConfig
from realrl.recipes.parts.settings import Reference

LOGPROB_NOISE = {"float32": 1e-4, "bfloat16": 0.1}
"""Root mean square that two engines' log-probabilities of a token may differ by on equal weights, by the type
of the weights: twice what was measured of vLLM and a trainer. What is nearer cannot be told apart."""


KL_COEF = "kl_coef"
"""What a call remembers: the cost of a nat, where it is adapted."""


def adapted_kl_coef(ctx: CallContext[AdvantageConfig], batch: PackedBatch) -> float:
    """Return the cost of a nat in this step; with `kl_target`, adapt that of the next one to this batch.

    Collective: over the ranks of `ctx.reduce`, where it is adapted.
    """
    ppo = ctx.config.ppo
    assert isinstance(ppo, Reference), "only a recipe with a reference has a KL"
    if not ppo.kl_target:
        return ppo.kl_coef
    remembered = ctx.memory.get(KL_COEF)
    kl_coef = ppo.kl_coef if remembered is None else float(remembered)
    difference = batch["logprobs"] - batch["ref_logprobs"]
    own_kl = difference[batch["loss_mask"]].double().sum()
    own_number = torch.tensor(float(len(batch))).double()
    total, number = ctx.reduce(torch.stack((own_kl, own_number))).tolist()
    if number:
        next_coef = adapted_kl(
            kl_coef,
            total / number,
            target=ppo.kl_target,
            num_samples=int(number),
            horizon=ppo.kl_horizon,
        )
        ctx.memory[KL_COEF] = torch.tensor(next_coef, dtype=torch.double)
    return kl_coef


def kl_coef_unless_noise(
    ctx: CallContext[AdvantageConfig], batch: PackedBatch, kl_coef: float, lesson: Tensor
) -> float:
    """Return `kl_coef`, or 0 where only rounding noise would be learned.

    That is where no reward teaches anything, and the policy differs from the reference by no more than
    rounding: AdamW scales a gradient up to steps of the full rate, however small it is.

    Shapes: lesson, what this rank's rewards teach, of any shape; all 0 where they teach nothing.
    Collective: over the ranks of `ctx.reduce`.
    """
    if not kl_coef:
        return kl_coef
    difference = batch["logprobs"] - batch["ref_logprobs"]
    moved = difference[batch["loss_mask"]].double()
    own_lesson = lesson.double().abs().sum()
    own_squares = moved.square().sum()
    own_number = torch.tensor(float(len(moved))).double()
    sums = ctx.reduce(torch.stack([own_lesson, own_squares, own_number]))
    taught, squares, number = sums.tolist()
    if taught:
        return kl_coef
    noise = LOGPROB_NOISE[ctx.config.actor.model.dtype]
    is_noise = squares <= number * noise**2
    return 0.0 if is_noise else kl_coef


def response_costs(batch: PackedBatch, kl_coef: float) -> Tensor:
    """Return what the responses cost by their KL (k1) to the reference: float32 `[B]`."""
    if not kl_coef or not len(batch):
        return torch.zeros(len(batch))
    kl = kl_estimate(batch["logprobs"], batch["ref_logprobs"], "k1")
    of_responses = kl * batch["loss_mask"]
    responses = [part.sum() for part in of_responses.split(batch.lengths)]
    return kl_coef * torch.stack(responses)
