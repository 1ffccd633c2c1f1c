"""The critic's loss against a loop in float64."""

from __future__ import annotations

import pytest
import torch

from realrl.algorithms.value import value_loss


def drawn():
    generator = torch.Generator().manual_seed(1)
    tensors = torch.randn(4, 200, generator=generator, dtype=torch.float64)
    return *tensors[:3], torch.rand(200, generator=generator) < 0.7, tensors[3].abs()


def test_value_loss_agrees_with_a_loop():
    """The worse of the two errors, halved and weighted."""
    values, old_values, returns, mask, weights = drawn()
    loss, clipped = 0.0, []
    columns = (x[mask].tolist() for x in (values, old_values, returns, weights))
    for new, old, target, weight in zip(*columns, strict=True):
        bounded = old + min(max(new - old, -0.5), 0.5)
        loss += weight * 0.5 * max((new - target) ** 2, (bounded - target) ** 2)
        clipped.append((bounded - target) ** 2 > (new - target) ** 2)
    found = value_loss(values, old_values, returns, mask.nonzero()[:, 0], weights, clip_eps=0.5)
    assert float(found.loss) == pytest.approx(loss)
    assert found.clipped.tolist() == clipped and any(clipped)


def test_without_a_bound_values_may_go_where_the_returns_are():
    """A bound of 0 is none: else the gradient would end wherever a value moved towards its return."""
    values, old_values, returns, mask, weights = drawn()
    found = value_loss(
        values.requires_grad_(), old_values, returns, mask.nonzero()[:, 0], weights, clip_eps=0
    )
    found.loss.backward()
    torch.testing.assert_close(values.grad, torch.where(mask, (values.detach() - returns) * weights, 0.0))
    assert not found.clipped.any() and len(found.clipped) == mask.sum()


def test_masked_tokens_have_no_say():
    """Prompt positions may hold anything, nan too."""
    *tensors, mask, weights = drawn()
    expected = value_loss(*tensors, mask.nonzero()[:, 0], weights, clip_eps=0.2).loss
    values, *others, weights = (torch.where(mask, x, float("nan")) for x in (*tensors, weights))
    found = value_loss(values.requires_grad_(), *others, mask.nonzero()[:, 0], weights, clip_eps=0.2).loss
    found.backward()
    assert torch.equal(found.detach(), expected)
    assert (values.grad[~mask] == 0).all()
