"""The policy's losses against loops in float64, token by token."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch

from realrl.algorithms.policy import (
    ResponseTokens,
    cispo_loss,
    gmpo_loss,
    gspo_loss,
    own_loss,
    ppo_loss,
    sapo_loss,
)

LENGTHS = [30, 1, 55, 14]
CU_SEQLENS = torch.tensor([0, 30, 31, 86, 100], dtype=torch.int32)
OPTIONS = [
    {"clip_low": 0.2, "clip_high": 0.2},
    {"clip_low": 0.2, "clip_high": 0.28, "dual_clip": 1.5},
    {"clip_low": 3e-2, "clip_high": 4e-2, "level": "sequence"},
    {"clip_low": 1.0, "clip_high": 1.0, "surrogate": "cispo"},
    {"clip_low": 0.4, "clip_high": 0.3, "surrogate": "gmpo"},
]
SAPO = {"tau_positive": 1.0, "tau_negative": 1.05}


@dataclass
class Tokens:
    """Of 4 sequences, one of which is masked out as a whole: `[T]` float64, and a mask."""

    logprobs: torch.Tensor
    old_logprobs: torch.Tensor
    advantages: torch.Tensor
    weights: torch.Tensor
    mask: torch.Tensor


def tokens(seed: int = 0) -> Tokens:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(4, 100, generator=generator, dtype=torch.float64)
    mask = torch.rand(100, generator=generator) < 0.7
    mask[30] = False
    return Tokens(drawn[0], drawn[0] + 0.4 * drawn[1], drawn[2], drawn[3].abs(), mask)


def computed(t: Tokens, logprobs: torch.Tensor, cu_seqlens: torch.Tensor = CU_SEQLENS, **options):
    return loss_of(options)(response_tokens(t, logprobs, cu_seqlens), **bounds_of(options))


def response_tokens(t: Tokens, logprobs: torch.Tensor, cu_seqlens: torch.Tensor) -> ResponseTokens:
    responses = t.mask.nonzero()[:, 0]
    columns = (logprobs, t.old_logprobs, t.advantages, t.weights)
    return ResponseTokens(*(column[responses] for column in columns), responses, cu_seqlens)


def loss_of(options):
    if "surrogate" in options:
        return {"cispo": cispo_loss, "gmpo": gmpo_loss}[options["surrogate"]]
    return gspo_loss if "level" in options else ppo_loss


def bounds_of(options):
    return {key: value for key, value in options.items() if key not in ("level", "surrogate")}


def one_by_one(t: Tokens, *, clip_low, clip_high, dual_clip=0.0, level="token", surrogate="ppo"):
    """Loss, its gradient by the tokens' log-probabilities, and at which tokens a bound gave it."""
    loss, gradient, clipped = 0.0, [0.0] * 100, []
    columns = (t.logprobs, t.old_logprobs, t.advantages, t.weights)
    new, old, advantages, weights = (x.tolist() for x in columns)
    for sequence in range(len(LENGTHS)):
        places = [i for i in range(*CU_SEQLENS[sequence : sequence + 2].tolist()) if t.mask[i]]
        mean = sum(new[i] - old[i] for i in places) / max(1, len(places))
        for i in places:
            a, w = advantages[i], weights[i]
            if surrogate == "gmpo":
                bounded = [geometric(new[j] - old[j], advantages[j], clip_low, clip_high) for j in places]
                mean = math.exp(sum(bounded) / len(places))
                loss -= w * mean * a
                for j, log_ratio in zip(places, bounded):
                    gradient[j] -= w * mean * a / len(places) * (log_ratio == new[j] - old[j])
                clipped.append(bounded[places.index(i)] != new[i] - old[i])
                continue
            ratio = math.exp(mean if level == "sequence" else new[i] - old[i])
            bounded = min(max(ratio, 1 - clip_low), 1 + clip_high)
            if surrogate == "cispo":
                loss -= w * bounded * a * new[i]
                gradient[i] = -w * bounded * a
                clipped.append(bounded != ratio)
                continue
            objective, slope = min((ratio * a, ratio * a), (bounded * a, ratio * a * (bounded == ratio)))
            if dual_clip and a < 0 and objective < dual_clip * a:
                objective, slope = dual_clip * a, 0.0
            loss -= w * objective
            gradient[i] = -w * slope
            clipped.append(slope == 0.0)
    return loss, gradient, clipped


def geometric(log_ratio, advantage, clip_low, clip_high):
    """A log-ratio, bounded in the direction of its advantage."""
    return min(log_ratio, clip_high) if advantage >= 0 else max(log_ratio, -clip_low)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_loss_and_its_gradient_agree_with_a_loop(options):
    """For every kind of ratio, bound and surrogate; a sequence's gradient is shared out over its tokens."""
    t = tokens()
    leaf = t.logprobs.clone().requires_grad_()
    found = computed(t, leaf, **options)
    found.loss.backward()
    loss, gradient, clipped = one_by_one(t, **options)
    assert float(found.loss.detach()) == pytest.approx(loss, rel=1e-9)
    torch.testing.assert_close(leaf.grad, torch.tensor(gradient, dtype=torch.float64))
    assert found.clipped.tolist() == clipped and 0 < sum(clipped) < len(clipped)


def test_on_policy_gradient_is_the_policy_gradient():
    """At ratio 1 nothing is clipped, so d loss / d logprobs = -w * A, whatever the ratio's level.

    GMPO shares a response's gradient out over its tokens.
    """
    t = tokens()
    t.old_logprobs = t.logprobs
    for options in OPTIONS[:4]:
        leaf = t.logprobs.clone().requires_grad_()
        found = computed(t, leaf, **options)
        found.loss.backward()
        torch.testing.assert_close(leaf.grad, torch.where(t.mask, -t.weights * t.advantages, 0.0))
        assert not found.clipped.any() and not found.approx_kl.any()


def test_a_sigmoid_fades_out_what_has_moved_far():
    """SAPO: 4 / tau * sigmoid(tau * (r - 1)) * A by a loop, with the slope A at ratio 1."""
    t = tokens(5)
    leaf = t.logprobs.clone().requires_grad_()
    found = sapo_loss(response_tokens(t, leaf, CU_SEQLENS), **SAPO)
    found.loss.backward()
    loss, gradient = 0.0, [0.0] * 100
    for i in t.mask.nonzero()[:, 0].tolist():
        a, w = float(t.advantages[i]), float(t.weights[i])
        ratio = math.exp(float(t.logprobs[i] - t.old_logprobs[i]))
        tau = 1.0 if a > 0 else 1.05
        sigmoid = 1 / (1 + math.exp(-tau * (ratio - 1)))
        loss -= w * a * 4 / tau * sigmoid
        gradient[i] = -w * a * 4 * sigmoid * (1 - sigmoid) * ratio
    assert float(found.loss.detach()) == pytest.approx(loss)
    torch.testing.assert_close(leaf.grad, torch.tensor(gradient, dtype=torch.float64))
    at_one = t.logprobs.clone().requires_grad_()
    t.old_logprobs = t.logprobs
    sapo_loss(response_tokens(t, at_one, CU_SEQLENS), **SAPO).loss.backward()
    torch.testing.assert_close(at_one.grad, torch.where(t.mask, -t.weights * t.advantages, 0.0))


def test_the_kl_is_never_negative_and_that_of_a_loop():
    """By the k3 estimator, of the tokens' own ratios."""
    t = tokens()
    found = computed(t, t.logprobs, **OPTIONS[2]).approx_kl
    difference = (t.logprobs - t.old_logprobs)[t.mask].tolist()
    assert found.tolist() == pytest.approx([math.exp(d) - 1 - d for d in difference])
    assert (found >= 0).all()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("cuts", [[0, 1, 4], [0, 0, 2, 3, 4]])
def test_any_split_gives_the_same_loss_and_gradient(options, cuts):
    """Micro-batches of whole sequences add up to the batch, also with an empty one."""
    t = tokens(2)

    def parts(bounds):
        leaf, total = t.logprobs.clone().requires_grad_(), 0.0
        for first, last in zip(bounds, bounds[1:]):
            a, b = CU_SEQLENS[first], CU_SEQLENS[last]
            part = Tokens(*(x[a:b] for x in vars(t).values()))
            found = computed(part, leaf[a:b], CU_SEQLENS[first : last + 1] - a, **options)
            found.loss.backward()
            total += float(found.loss.detach())
        return total, leaf.grad

    (loss, gradient), (expected_loss, expected_gradient) = parts(cuts), parts([0, 4])
    assert loss == pytest.approx(expected_loss, rel=1e-12)
    torch.testing.assert_close(gradient, expected_gradient)


def test_masked_tokens_have_no_say():
    """Prompt positions may hold anything, nan too."""
    t = tokens(3)
    expected = computed(t, t.logprobs, **OPTIONS[0]).loss
    spoilt = Tokens(*(torch.where(t.mask, x, float("nan")) for x in list(vars(t).values())[:4]), t.mask)
    leaf = spoilt.logprobs.requires_grad_()
    found = computed(spoilt, leaf, **OPTIONS[0])
    found.loss.backward()
    assert torch.equal(found.loss.detach(), expected)
    assert (leaf.grad[~t.mask] == 0).all()


@pytest.mark.parametrize("difference", [1e4, -1e4])
@pytest.mark.parametrize("options", OPTIONS[:1] + OPTIONS[2:4], ids=str)
def test_a_ratio_never_overflows(options, difference):
    """e^89 is infinite in float32, and times an advantage of 0 no number."""
    t = Tokens(*(x.float() for x in list(vars(tokens()).values())[:4]), tokens().mask)
    t.advantages[0] = 0.0
    leaf = (t.logprobs + difference).requires_grad_()
    found = computed(t, leaf, **options)
    found.loss.backward()
    for numbers in (found.loss.detach(), found.ratio, found.approx_kl, leaf.grad):
        assert numbers.isfinite().all()


def test_a_loss_of_ones_own_is_weighted_like_ours():
    """PPO's loss without bounds, written anew, gives the same numbers; what it clips is not known."""
    t = tokens(4)

    def unclipped(tokens: ResponseTokens) -> torch.Tensor:
        return -tokens.log_ratio.exp() * tokens.advantages

    found, expected = [], []
    for results, loss in (
        (found, lambda given: own_loss(given, unclipped)),
        (expected, lambda given: ppo_loss(given, clip_low=1e9, clip_high=1e9)),
    ):
        leaf = t.logprobs.clone().requires_grad_()
        made = loss(response_tokens(t, leaf, CU_SEQLENS))
        made.loss.backward()
        results += [made.loss.detach(), leaf.grad, made.ratio, made.approx_kl]
        assert not made.clipped.any()
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize(("given", "got"), [(1.0, "float"), (torch.ones(2), r"\(2,\)")])
def test_a_loss_of_ones_own_is_one_number_a_token(given, got):
    """A sum would be weighted once more."""
    t = tokens()
    with pytest.raises(ValueError, match=f"^loss: expected a tensor with one loss for each of .* got {got}"):
        own_loss(response_tokens(t, t.logprobs, CU_SEQLENS), lambda tokens: given)
