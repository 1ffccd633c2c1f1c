"""PPO's losses against loops in float64."""

from __future__ import annotations

import math

import pytest
import torch

from realrl.algorithms.ppo import ppo_policy_loss, value_loss


def random_tokens(num_tokens, *, seed=0):
    """Three `[T]` tensors of float64 and a mask."""
    generator = torch.Generator().manual_seed(seed)
    tensors = torch.randn(3, num_tokens, generator=generator, dtype=torch.float64)
    return *tensors.unbind(), torch.rand(num_tokens, generator=generator) < 0.7


def test_on_policy_gradient_is_the_policy_gradient():
    """At ratio 1 nothing is clipped, so d loss / d logprobs = -A / T."""
    logprobs = torch.zeros(3, requires_grad=True)
    advantages, mask = torch.tensor([1.0, -2.0, 0.5]), torch.ones(3, dtype=torch.bool)
    result = ppo_policy_loss(logprobs, logprobs.detach(), advantages, mask, clip_eps=0.2, num_tokens=3)
    result.loss.backward()
    torch.testing.assert_close(logprobs.grad, -advantages / 3)
    assert result.clip_fraction == 0 and result.approx_kl == 0


def test_policy_loss_agrees_with_a_loop():
    """Loss, clip fraction and KL, token by token."""
    logprobs, old_logprobs, advantages, mask = random_tokens(200)
    loss = clipped = kl = 0.0
    for new, old, a in zip(*(x[mask].tolist() for x in (logprobs, old_logprobs, advantages)), strict=True):
        ratio = math.exp(new - old)
        bounded = min(max(ratio, 0.8), 1.2)
        loss -= min(ratio * a, bounded * a)
        clipped += bounded * a < ratio * a
        kl += ratio - 1 - (new - old)
    got = ppo_policy_loss(logprobs, old_logprobs, advantages, mask, clip_eps=0.2, num_tokens=77)
    expected = [total / 77 for total in (loss, clipped, kl)]
    assert [float(x) for x in (got.loss, got.clip_fraction, got.approx_kl)] == pytest.approx(expected)
    assert got.clip_fraction > 0


def test_a_clipped_token_has_no_gradient():
    """Beyond the bound in the direction of its advantage, and only there."""
    logprobs = torch.log(torch.tensor([1.5, 1.5, 0.5, 0.5])).requires_grad_()
    advantages = torch.tensor([1.0, -1.0, -1.0, 1.0])
    everywhere = torch.ones(4, dtype=torch.bool)
    loss = ppo_policy_loss(logprobs, torch.zeros(4), advantages, everywhere, clip_eps=0.2, num_tokens=4).loss
    loss.backward()
    assert (logprobs.grad != 0).tolist() == [False, True, False, True]


def test_value_loss_agrees_with_a_loop():
    """The worse of the two errors, halved."""
    values, old_values, returns, mask = random_tokens(200, seed=1)
    loss = clipped = 0.0
    for new, old, target in zip(*(x[mask].tolist() for x in (values, old_values, returns)), strict=True):
        bounded = old + min(max(new - old, -0.5), 0.5)
        loss += 0.5 * max((new - target) ** 2, (bounded - target) ** 2)
        clipped += (bounded - target) ** 2 > (new - target) ** 2
    got = value_loss(values, old_values, returns, mask, clip_eps=0.5, num_tokens=50)
    assert [float(got.loss), float(got.clip_fraction)] == pytest.approx([loss / 50, clipped / 50])
    assert got.clip_fraction > 0


@pytest.mark.parametrize("loss_fn", [ppo_policy_loss, value_loss])
@pytest.mark.parametrize("cuts", [[0, 100], [0, 1, 40, 100], [0, 0, 99, 100]])
def test_any_split_gives_the_same_loss_and_gradient(loss_fn, cuts):
    """Micro-batches' shares add up to the whole batch's, also with an empty one."""
    first, second, third, mask = random_tokens(100, seed=2)
    num_tokens = int(mask.sum())

    def parts(bounds):
        leaf = first.clone().requires_grad_()
        total = 0.0
        for a, b in zip(bounds, bounds[1:], strict=False):
            tensors = (leaf[a:b], second[a:b], third[a:b], mask[a:b])
            result = loss_fn(*tensors, clip_eps=0.2, num_tokens=num_tokens)
            result.loss.backward()
            total += float(result.loss.detach())
        return total, leaf.grad

    (loss, gradient), (expected_loss, expected_gradient) = parts(cuts), parts([0, 100])
    assert loss == pytest.approx(expected_loss, rel=1e-12)
    torch.testing.assert_close(gradient, expected_gradient)


@pytest.mark.parametrize("loss_fn", [ppo_policy_loss, value_loss])
def test_masked_tokens_have_no_say(loss_fn):
    """Prompt positions may hold anything, nan too."""
    first, second, third, mask = random_tokens(60, seed=3)
    spoilt = [torch.where(mask, x, float("nan")) for x in (first, second, third)]
    leaf = spoilt[0].requires_grad_()
    got = loss_fn(leaf, *spoilt[1:], mask, clip_eps=0.2, num_tokens=40)
    got.loss.backward()
    expected = loss_fn(first, second, third, mask, clip_eps=0.2, num_tokens=40)
    assert torch.equal(got.loss.detach(), expected.loss)
    assert (leaf.grad[~mask] == 0).all()
