"""Estimators of advantages, each a function of the scored samples of a step.

    rewards, groups, KL by token, values ── Scored ──▶ estimator ──▶ advantages [T]

A user's own estimator is a function of the same form in a file of theirs, named by path.

Shapes: B samples of this rank, T packed tokens, G groups of the global batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from realrl.algorithms.kl import last_response_tokens
from realrl.algorithms.normalise import Baseline, Reduce, Scale, group_means, group_relative
from realrl.ops.gae import gae as gae_of_tokens


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The samples of a step that this rank holds, with what they earned."""

    rewards: Tensor
    """The reward of each response: float `[B]`."""
    groups: Tensor
    """The group of each sample, which has the responses to one prompt: int64 `[B]` from 0 to G - 1. Other
    ranks may hold other samples of a group."""
    num_groups: int
    """G."""
    counts: Tensor
    """Whether the sample takes part: bool `[B]`. One that does not, as its check failed, is in no mean."""
    loss_mask: Tensor
    """Response tokens: bool `[T]`."""
    cu_seqlens: Tensor
    """int32 `[B+1]`."""
    reduce: Reduce
    """The sum of a tensor over the ranks that hold the batch. Collective: every rank calls it as often."""
    token_rewards: Tensor
    """What a token earns besides, as minus its KL to the reference: float32 `[T]`, 0 outside the mask."""
    values: Tensor | None = None
    """The critic's value after each token, float32 `[T]`; None without a critic."""
    bootstrap: Tensor | None = None
    """Whether a response's return continues with the value of its last state: bool `[B]`; None: of none."""
    gamma: float = 1.0
    """Discount of a later token's reward."""
    lam: float | Tensor = 1.0
    """Weight of longer looks ahead in generalised advantage estimation; of each response, float64 `[B]`."""
    scale: Scale = "group_std"
    """What GRPO divides differences from a group's mean by."""
    sample_std: bool = False
    """Whether a standard deviation is that of a sample, with n - 1, and not that of a population, with n."""
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    """The rewards by name, float `[B]` each; `rewards` is their weighted sum, as `scores` has shaped it.
    Only `gdpo` and estimators of a user's own have them."""
    part_weights: Mapping[str, Tensor] = field(default_factory=dict)
    """The weight of each of `parts`, by name: float64 `[B]`, 0 for a sample whose row does not have it."""

    def group_mean(self, x: Tensor) -> Tensor:
        """Return the mean of `x [B]` over the samples of the same group that take part, float64 `[B]`.

        Collective: over the ranks of `reduce`.
        """
        means = group_means(
            x,
            self.groups,
            self.num_groups,
            self.reduce,
            counts=self.counts,
        )
        return means[self.groups]

    def to_go(self, rewards: Tensor) -> Tensor:
        """Return what each token still earns: `rewards [B]` at the end, and `token_rewards` on the way.

        Shapes: returns float32 `[T]`, 0 outside the mask.
        """
        return generalised_advantages(self, rewards=rewards, values=None).advantages


class Advantages(NamedTuple):
    """What generalised advantage estimation gives: float32 `[T]` each, 0 outside the responses."""

    advantages: Tensor
    returns: Tensor
    """The critic's targets."""


Estimator = Callable[[Scored], Tensor]
"""Returns the advantage of each token: `[T]`, 0 outside the mask. Collective: over the ranks of `reduce`."""


def gae(scored: Scored) -> Tensor:
    """Generalised advantage estimation, with a critic.

    Source: Schulman et al. 2016, arXiv:1506.02438, eq. 16.
    """
    return generalised_advantages(scored, rewards=scored.rewards, values=scored.values).advantages


def grpo(scored: Scored) -> Tensor:
    """Rewards less their group's mean, in units of its standard deviation, or as `scored.scale` says.

    Source: Shao et al. 2024, arXiv:2402.03300, section 4.1.2.
    """
    return scored.to_go(relative_rewards(scored, scale=scored.scale))


def dr_grpo(scored: Scored) -> Tensor:
    """Rewards less their group's mean.

    Source: Liu et al. 2025, arXiv:2503.20783, section 3.2.
    """
    return scored.to_go(relative_rewards(scored))


def rloo(scored: Scored) -> Tensor:
    """Rewards less the mean of the group's other samples.

    Source: Ahmadian et al. 2024, arXiv:2402.14740, eq. 8.
    """
    return scored.to_go(relative_rewards(scored, baseline="leave_one_out"))


def reinforce(scored: Scored) -> Tensor:
    """Rewards as they are, without a baseline.

    Source: Williams 1992, "Simple statistical gradient-following algorithms", eq. 8.
    """
    return scored.to_go(scored.rewards)


def gdpo(scored: Scored) -> Tensor:
    """Each of several rewards in its group, as GRPO has one; then their weighted sum, over the whole batch.

    Rewards of unlike spread then count by their weights alone. A reward that is the same in all of a group,
    or sums that are the same in all of the batch, teach nothing.

    Source: Liu et al. 2026, arXiv:2601.05242, section 3 (GDPO).
    """
    summed = torch.zeros_like(scored.rewards, dtype=torch.double)
    for name, part in scored.parts.items():
        weights = scored.part_weights[name]
        own = replace(scored, rewards=part.where(weights != 0, 0.0))
        summed = summed + weights * relative_rewards(own, scale="group_std")
    whole = torch.zeros_like(scored.groups)
    batch = replace(scored, rewards=summed, groups=whole, num_groups=1)
    return scored.to_go(relative_rewards(batch, scale="group_std"))


ESTIMATORS: Mapping[str, Estimator] = {
    "gae": gae,
    "grpo": grpo,
    "dr-grpo": dr_grpo,
    "rloo": rloo,
    "reinforce": reinforce,
    "gdpo": gdpo,
}
"""By the name that a config gives."""


def relative_rewards(scored: Scored, *, baseline: Baseline = "group_mean", scale: Scale = "none") -> Tensor:
    """Return each sample's reward less its group's baseline: float32 `[B]`; see `group_relative`.

    Collective: over the ranks of `reduce`.
    """
    return group_relative(
        scored.rewards,
        scored.groups,
        scored.num_groups,
        scored.reduce,
        counts=scored.counts,
        baseline=baseline,
        scale=scale,
        sample_std=scored.sample_std,
    )


def generalised_advantages(scored: Scored, *, rewards: Tensor, values: Tensor | None) -> Advantages:
    """Return advantages and returns of `rewards [B]` at the responses' ends, plus `token_rewards`.

    Without `values [T]`, every value is 0 and `lam` is 1: advantages are what tokens still earn.

    Raises:
        FloatingPointError: one is not finite; NaN would pass through clipping unseen.
    """
    mask = scored.loss_mask
    # A response's reward is earned by its last token; without a token, by none.
    last = last_response_tokens(mask, scored.cu_seqlens)
    responded = last >= 0
    at_ends = rewards[responded].to(scored.token_rewards.dtype)
    token_rewards = scored.token_rewards.index_add(0, last[responded], at_ends)

    nothing = torch.zeros_like(rewards, dtype=torch.bool)
    bootstrap = nothing if scored.bootstrap is None else scored.bootstrap
    advantages, returns = gae_of_tokens(
        token_rewards[mask],
        _state_values(values, mask),
        _response_bounds(mask, scored.cu_seqlens),
        bootstrap,
        gamma=scored.gamma,
        lam=1.0 if values is None else scored.lam,
    )
    if not (advantages.isfinite().all() and returns.isfinite().all()):
        raise FloatingPointError(
            "advantages or returns are not finite: the sum of rewards, values and KL overflows float32, or"
            " has NaN in it; look at reward, scores.scale, ppo.kl_coef and the critic's values"
        )
    return Advantages(spread(advantages, mask), spread(returns, mask))


def length_adaptive_lam(lengths: Tensor, *, alpha: float) -> Tensor:
    """Return the weight of longer looks ahead for responses of some lengths: `1 - 1 / (alpha * length)`.

    The weights of the temporal-difference errors then add up to `alpha` times the length. Shorter responses
    than `1 / alpha` have 0.

    Shapes: lengths `[B]`; returns float64 `[B]`.
    Source: Yue et al. 2025, arXiv:2504.05118, eq. 9 (VAPO, with alpha 0.05).
    """
    looks = alpha * lengths.double()
    return 1 - 1 / looks.clamp(min=1)


def spread(values: Tensor, mask: Tensor) -> Tensor:
    """Return the values of the mask's tokens at their places, and 0 elsewhere: `[R] -> [T]`."""
    outside = torch.zeros(len(mask), dtype=values.dtype)
    return outside.masked_scatter(mask, values)


def _state_values(values: Tensor | None, mask: Tensor) -> Tensor:
    """Return the value before each response token and after the last: `[R + B]`, 0 without a critic."""
    in_state = mask | mask.roll(-1)
    if values is None:
        return torch.zeros(int(in_state.sum()))
    return values[in_state]


def _response_bounds(mask: Tensor, cu_seqlens: Tensor) -> Tensor:
    """Return the cumulative lengths of the responses alone: int32 `[B+1]`."""
    none = torch.zeros(1, dtype=torch.long)
    up_to_each = mask.long().cumsum(0)
    before_each = torch.cat((none, up_to_each))
    bounds = before_each[cu_seqlens.long()]
    return bounds.to(torch.int32)
