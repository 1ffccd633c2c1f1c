"""Every estimator against a loop in float64, and however ranks share the samples."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace

import pytest
import torch

from realrl.algorithms.advantages import ESTIMATORS, Scored, generalised_advantages, length_adaptive_lam
from realrl.api.batch import cu_seqlens_of
from tests.algorithms.splits import run_ranks

PROMPTS, RESPONSES = [3, 1, 2, 4, 1, 2], [1, 5, 2, 3, 4, 1]
GROUPS = [0, 1, 0, 1, 1, 0]
REWARDS = [1.0, 0.0, 3.0, 2.0, 4.0, 7.0]
PARTS = {"math": [1.0, 0.0, 1.0, 0.0, 1.0, 1.0], "length": [30.0, 10.0, 20.0, 70.0, 0.0, 50.0]}
"""Rewards one by one, of unlike spread; the second one is not every row's."""
PART_WEIGHTS = {"math": [1.0] * 6, "length": [0.5, 0.0, 0.5, 0.0, 0.0, 0.5]}
COUNTS = [True, True, True, True, True, False]
ENDED = [True, False, True, False, True, True]


def samples(which: list[int], reduce=lambda x: x, **settings) -> Scored:
    """Return some of the six samples, with numbers that depend on the sample alone."""
    masks, costs, values = [], [], []
    for sample in which:
        generator = torch.Generator().manual_seed(sample)
        length = PROMPTS[sample] + RESPONSES[sample]
        mask = torch.arange(length) >= PROMPTS[sample]
        masks.append(mask)
        costs.append(torch.where(mask, 0.1 * torch.randn(length, generator=generator), 0.0))
        values.append(torch.randn(length, generator=generator))
    return Scored(
        rewards=torch.tensor([REWARDS[sample] for sample in which]),
        groups=torch.tensor([GROUPS[sample] for sample in which], dtype=torch.long),
        num_groups=2,
        counts=torch.tensor([COUNTS[sample] for sample in which], dtype=torch.bool),
        loss_mask=torch.cat(masks) if masks else torch.zeros(0, dtype=torch.bool),
        cu_seqlens=cu_seqlens_of(len(mask) for mask in masks),
        reduce=reduce,
        token_rewards=torch.cat(costs) if costs else torch.zeros(0),
        values=torch.cat(values) if values else torch.zeros(0),
        bootstrap=~torch.tensor([ENDED[sample] for sample in which], dtype=torch.bool),
        parts={name: torch.tensor([part[sample] for sample in which]) for name, part in PARTS.items()},
        part_weights={name: of_samples(weights, which) for name, weights in PART_WEIGHTS.items()},
        **settings,
    )


def of_samples(numbers: list[float], which: list[int]) -> torch.Tensor:
    return torch.tensor([numbers[sample] for sample in which], dtype=torch.double)


def sums_of_relative_parts() -> list[float]:
    """Return GDPO's sums: of each reward less its group's mean, in units of its spread there."""
    sums = []
    for sample in range(6):
        total = 0.0
        for name, part in PARTS.items():
            group = [i for i in range(6) if GROUPS[i] == GROUPS[sample] and COUNTS[i]]
            rewards = [part[i] for i in group]
            spread = statistics.pstdev(rewards)
            if PART_WEIGHTS[name][sample] and spread:
                total += PART_WEIGHTS[name][sample] * (part[sample] - statistics.fmean(rewards)) / spread
        sums.append(total)
    return sums


def at_ends(name: str) -> list[float]:
    """Return what each sample earns at its end."""
    found = []
    for sample, reward in enumerate(REWARDS):
        group = [i for i in range(6) if GROUPS[i] == GROUPS[sample] and COUNTS[i]]
        others = [REWARDS[i] for i in group if i != sample]
        rewards = [REWARDS[i] for i in group]
        mean, std = statistics.fmean(rewards), statistics.pstdev(rewards)
        sums = sums_of_relative_parts()
        counting = [sums[i] for i in range(6) if COUNTS[i]]
        by_name = {
            "gdpo": (sums[sample] - statistics.fmean(counting)) / statistics.pstdev(counting),
            "grpo": (reward - mean) / std,
            "dr-grpo": reward - mean,
            "rloo": reward - statistics.fmean(others),
            "reinforce": reward,
        }
        found.append(by_name[name] if COUNTS[sample] or name == "reinforce" else 0.0)
    return found


@pytest.mark.parametrize("name", sorted(ESTIMATORS.keys() - {"gae"}))
def test_rewards_in_groups_are_credited_to_every_token(name):
    """Each token has what follows it: the response's at its end, and the tokens' own, discounted."""
    scored = samples([*range(6)], gamma=0.9)
    found = ESTIMATORS[name](scored)
    expected = torch.zeros(len(scored.loss_mask), dtype=torch.double)
    bounds = scored.cu_seqlens.tolist()
    for sample, reward in enumerate(at_ends(name)):
        carried = reward
        for place in reversed(range(bounds[sample] + PROMPTS[sample], bounds[sample + 1])):
            own = float(scored.token_rewards[place])
            carried = own + carried if place == bounds[sample + 1] - 1 else own + 0.9 * carried
            expected[place] = carried
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shares", [[[0, 1], [2, 3, 4, 5]], [[5, 4], [], [3, 2, 1, 0]]], ids=str)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_it_does_not_matter_which_rank_has_a_sample(name, shares):
    """A group may be spread over ranks, and one may have none of the samples."""
    whole = ESTIMATORS[name](samples([*range(6)], gamma=0.9, lam=0.8)).split(
        [p + r for p, r in zip(PROMPTS, RESPONSES)]
    )

    def on_rank(rank: int, reduce) -> torch.Tensor:
        return ESTIMATORS[name](samples(shares[rank], reduce, gamma=0.9, lam=0.8))

    for rank, found in enumerate(run_ranks(len(shares), on_rank)):
        expected = [whole[sample] for sample in shares[rank]]
        torch.testing.assert_close(found, torch.cat(expected) if expected else torch.zeros(0))


def test_gae_is_that_of_a_loop():
    """A response that is cut off goes on with its last state's value, if the caller says so."""
    scored = samples([*range(6)], gamma=0.9, lam=0.8)
    found = generalised_advantages(scored, rewards=scored.rewards, values=scored.values)
    assert torch.equal(ESTIMATORS["gae"](scored), found.advantages)
    bounds = scored.cu_seqlens.tolist()
    for sample in range(6):
        first, end = bounds[sample] + PROMPTS[sample], bounds[sample + 1]
        carried = 0.0
        for place in reversed(range(first, end)):
            is_last = place == end - 1
            following = 0.0 if is_last and ENDED[sample] else float(scored.values[place])
            reward = float(scored.token_rewards[place]) + (REWARDS[sample] if is_last else 0.0)
            before = float(scored.values[place - 1])
            carried = reward + 0.9 * following - before + 0.9 * 0.8 * carried
            assert float(found.advantages[place]) == pytest.approx(carried, abs=1e-5)
            assert float(found.returns[place]) == pytest.approx(carried + before, abs=1e-5)
    assert not found.advantages[~scored.loss_mask].any() and not found.returns[~scored.loss_mask].any()


def test_without_a_kl_every_token_of_a_response_has_its_advantage():
    """To the bit: no rounding on the way from the last token to the first."""
    scored = samples([*range(6)])
    silent = Scored(**{**vars(scored), "token_rewards": torch.zeros(len(scored.loss_mask))})
    found = ESTIMATORS["grpo"](silent)
    for sample, tokens in enumerate(found.split(scored.cu_seqlens.diff().tolist())):
        response = tokens[PROMPTS[sample] :]
        assert response.unique().numel() <= 1
        if RESPONSES[sample]:
            assert math.isclose(float(response[0]), at_ends("grpo")[sample], rel_tol=1e-6, abs_tol=1e-7)


def test_group_means_are_of_those_that_count():
    """One that does not count has its group's mean, and is not in it."""
    assert samples([*range(6)]).group_mean(torch.tensor(REWARDS)).tolist() == [2.0] * 1 + [2.0] * 5


def test_what_is_not_finite_is_named():
    """NaN would pass through clipping unseen."""
    scored = samples([*range(6)])
    with pytest.raises(FloatingPointError, match="advantages or returns are not finite"):
        scored.to_go(torch.tensor([float("nan")] * 6))


def test_looks_ahead_grow_with_the_length():
    """The weights 1, lam, lam^2 ... add up to alpha times the length; short responses look at one token."""
    lams = length_adaptive_lam(torch.tensor([1, 20, 40, 4000]), alpha=0.05)
    assert lams.tolist() == pytest.approx([0.0, 0.0, 0.5, 0.995])
    assert 1 / (1 - float(lams[-1])) == pytest.approx(0.05 * 4000)


def test_unlike_rewards_count_by_their_weights_alone():
    """GDPO tells three kinds of responses apart, and does not look at the scale of a reward."""
    right, short = torch.tensor([1.0, 1.0, 0.0, 0.0]), torch.tensor([100.0, 0.0, 100.0, 0.0])
    whole = samples([0, 2, 1, 3])
    four = {"groups": torch.zeros(4, dtype=torch.long), "num_groups": 1, "token_rewards": torch.zeros(21)}
    both = {name: torch.ones(4, dtype=torch.double) for name in ("right", "short")}
    scored = replace(
        whole, **four, rewards=right + short, parts={"right": right, "short": short}, part_weights=both
    )
    root = math.sqrt(2)
    found = ESTIMATORS["gdpo"](scored)[scored.cu_seqlens[1:].long() - 1]
    torch.testing.assert_close(found, torch.tensor([root, 0.0, 0.0, -root]))
    louder = replace(scored, parts={"right": right, "short": 10 * short})
    torch.testing.assert_close(ESTIMATORS["gdpo"](louder), ESTIMATORS["gdpo"](scored))
    alike = replace(scored, parts={"right": right.clone().fill_(1.0), "short": short.clone().fill_(0.0)})
    assert not ESTIMATORS["gdpo"](alike).any()
