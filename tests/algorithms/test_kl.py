"""KL estimators against the exact divergence, and the rewards made of them against a loop."""

from __future__ import annotations

import math

import pytest
import torch

from realrl.algorithms.advantages import Scored
from realrl.algorithms.kl import kl_estimate, last_response_tokens
from realrl.api.batch import cu_seqlens_of

POLICY = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
REFERENCE = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_expectation_is_the_divergence(estimator):
    """Over the policy's own distribution, k1 and k3 give KL(policy || reference) exactly."""
    expected = sum(p * math.log(p / q) for p, q in zip(POLICY.tolist(), REFERENCE.tolist(), strict=True))
    got = (POLICY * kl_estimate(POLICY.log(), REFERENCE.log(), estimator)).sum()
    assert float(got) == pytest.approx(expected, rel=1e-12)


def test_each_estimator_is_its_formula():
    """At one token with log ratio reference / policy of r."""
    r = 0.3
    estimates = {
        k: float(kl_estimate(torch.tensor(-1.0), torch.tensor(-1.0 + r), k)) for k in ("k1", "k2", "k3")
    }
    assert estimates == pytest.approx({"k1": -r, "k2": r * r / 2, "k3": math.exp(r) - 1 - r}, rel=1e-5)


def test_k3_is_never_negative():
    """So it can stand in a loss."""
    logprobs, ref_logprobs = -torch.rand(2, 1000, generator=torch.Generator().manual_seed(0)) * 5
    assert (kl_estimate(logprobs, ref_logprobs, "k3") >= 0).all()


def test_in_a_loss_k1_regularises_nothing():
    """The mean gradient of k2 over the policy's samples is the divergence's, that of k1 is zero."""
    logits = torch.tensor([1.0, 0.0, -1.0, 2.0], dtype=torch.float64, requires_grad=True)
    uniform = torch.full((4,), 0.25, dtype=torch.float64).log()
    policy = logits.log_softmax(-1)
    (expected,) = torch.autograd.grad((policy.exp() * (policy - uniform)).sum(), logits, retain_graph=True)
    found = {}
    for estimator in ("k1", "k2", "k3"):
        sampled = (policy.exp().detach() * kl_estimate(policy, uniform, estimator)).sum()
        (found[estimator],) = torch.autograd.grad(sampled, logits, retain_graph=True)
    assert float(expected.abs().max()) > 0.3 and found["k1"].abs().max() < 1e-12
    torch.testing.assert_close(found["k2"], expected)
    assert torch.nn.functional.cosine_similarity(found["k3"], expected, dim=0) > 0.9


def test_k3_of_a_token_that_the_policy_gave_up_is_bounded_in_slope():
    """It goes on as its tangent: with 14 nats between them, e^14 would outweigh all other tokens."""
    apart = torch.tensor([-14.0, -5.1, -4.9, -0.1, 3.0], dtype=torch.float64, requires_grad=True)
    found = kl_estimate(apart, torch.zeros_like(apart), "k3")
    (slope,) = torch.autograd.grad(found.sum(), apart)
    expected = [1 - math.exp(min(5.0, -x)) for x in apart.tolist()]
    assert slope.tolist() == pytest.approx(expected) and float(slope[0]) > -150
    ratios = [min(5.0, -x) for x in apart.tolist()]
    values = [math.exp(r) * (1 - x - r) - 1 + x for x, r in zip(apart.tolist(), ratios)]
    assert found.tolist() == pytest.approx(values)


def test_an_unknown_estimator_is_refused():
    with pytest.raises(ValueError, match="k1, k2 or k3, got 'k4'"):
        kl_estimate(torch.zeros(1), torch.zeros(1), "k4")


# Prompt and response; two turns; response only; no response; empty; a single token.
MASKS = [[0, 0, 1, 1, 1], [0, 1, 0, 1, 0], [1, 1], [0, 0, 0], [], [1]]


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_rewards_agree_with_a_loop(estimator):
    """A token has what follows it: -0.1 * KL of each response token, and the task's reward at the end."""
    prompts, responses = [2, 1, 3, 1], [3, 1, 2, 5]
    lengths = [prompt + response for prompt, response in zip(prompts, responses)]
    masks = [[0] * prompt + [1] * response for prompt, response in zip(prompts, responses)]
    loss_mask = torch.tensor(sum(masks, []), dtype=torch.bool)
    generator = torch.Generator().manual_seed(1)
    logprobs, ref_logprobs = -torch.rand(2, sum(lengths), generator=generator)
    task_rewards = torch.tensor([5.0, -5.0, 1.0, 2.0])
    kl = kl_estimate(logprobs.double(), ref_logprobs.double(), estimator).tolist()
    expected, start = [], 0
    for mask, reward in zip(masks, task_rewards.tolist(), strict=True):
        row, carried = [0.0] * len(mask), reward
        for t in reversed(range(len(mask))):
            if mask[t]:
                carried -= 0.1 * kl[start + t]
                row[t] = carried
        expected += row
        start += len(mask)
    got = Scored(
        rewards=task_rewards,
        groups=torch.arange(4),
        num_groups=4,
        counts=torch.ones(4, dtype=torch.bool),
        loss_mask=loss_mask,
        cu_seqlens=cu_seqlens_of(lengths),
        reduce=lambda x: x,
        token_rewards=torch.where(loss_mask, -0.1 * kl_estimate(logprobs, ref_logprobs, estimator), 0.0),
    ).to_go(task_rewards)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, torch.tensor(expected), rtol=1e-5, atol=1e-6)


def test_last_response_tokens():
    """Packed positions; -1 for a sequence that has none."""
    lengths = [len(mask) for mask in MASKS]
    loss_mask = torch.tensor(sum(MASKS, []), dtype=torch.bool)
    assert last_response_tokens(loss_mask, cu_seqlens_of(lengths)).tolist() == [4, 8, 11, -1, -1, 15]
