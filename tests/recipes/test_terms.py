"""Terms that any loss of a policy may have, against loops in float64; the weight that follows the entropy."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from realrl.algorithms.policy import ResponseTokens
from realrl.api.batch import PackedBatch, Sample, pack
from realrl.api.recipe import Mean
from realrl.recipes.grpo import GRPOConfig, GRPOSettings
from realrl.recipes.parts import terms

LENGTHS = [5, 3, 6, 2]
REWARDS = [1.0, 0.0, -1.0, 2.0]
RIGHT = {0, 3}
"""Samples with a reward above 0."""


def context(memory: dict | None = None, **settings) -> SimpleNamespace:
    """Of a rank that is alone."""
    config = GRPOConfig(seed=3, ppo=GRPOSettings(kl_coef=0.0, **settings))
    return SimpleNamespace(
        config=config,
        step=2,
        reduce=lambda x: x,
        reduce_mesh=lambda x: x,
        memory={} if memory is None else memory,
    )


def rollout() -> PackedBatch:
    """Four responses after prompts of one token; advantages and log-probabilities at random."""
    generator = torch.Generator().manual_seed(1)
    samples = [Sample(i, i // 2) for i in range(len(LENGTHS))]
    ids = [torch.zeros(n + 1, dtype=torch.long) for n in LENGTHS]
    batch = pack(samples, {"input_ids": ids, "loss_mask": [torch.arange(n + 1) > 0 for n in LENGTHS]})
    columns = torch.randn(5, batch.num_tokens, generator=generator, dtype=torch.float64)
    names = ("logprobs", "advantages", "weights", "entropy", "current")
    return batch.with_keys(
        tokens=dict(zip(names, columns, strict=True)),
        per_sample={"rewards": torch.tensor(REWARDS)},
    )


def tokens_of(batch: PackedBatch) -> ResponseTokens:
    responses = batch["loss_mask"].nonzero()[:, 0]
    columns = (batch[name][responses] for name in ("current", "logprobs", "advantages", "weights"))
    return ResponseTokens(*columns, responses, batch.cu_seqlens)


def rows(batch: PackedBatch) -> list[tuple[int, int]]:
    """The sample of each response token, and its place."""
    bounds = batch.cu_seqlens.tolist()
    return [
        (sample, place)
        for sample, (first, last) in enumerate(zip(bounds, bounds[1:]))
        for place in range(first, last)
        if batch["loss_mask"][place]
    ]


def test_each_term_is_its_formula():
    batch = rollout()
    tokens = tokens_of(batch)
    entropies = -sum(0.3 * float(batch["entropy"][i] * batch["weights"][i]) for _, i in rows(batch))
    found = terms.cost(context().config.ppo, tokens, batch, 0.3)
    assert float(found) == pytest.approx(entropies)

    ctx = context(positive_nll=0.5)
    learned = [float(batch["current"][i]) for sample, i in rows(batch) if sample in RIGHT]
    found = terms.cost(ctx.config.ppo, tokens, terms.prepared(ctx, batch), 0.0)
    assert float(found) == pytest.approx(-0.5 * sum(learned) / len(learned))

    ctx = context(covariance="kl", covariance_share=0.25)
    whole = [i for _, i in rows(batch)]
    means = {
        name: sum(float(batch[name][i]) for i in whole) / len(whole) for name in ("logprobs", "advantages")
    }
    covariances = {
        i: (float(batch["logprobs"][i]) - means["logprobs"])
        * (float(batch["advantages"][i]) - means["advantages"])
        for i in whole
    }
    greatest = sorted(whole, key=covariances.get)[-4:]
    expected = sum(
        abs(float(batch["current"][i] - batch["logprobs"][i])) * float(batch["weights"][i]) for i in greatest
    )
    found = terms.cost(ctx.config.ppo, tokens, terms.prepared(ctx, batch), 0.0)
    assert float(found) == pytest.approx(expected)


def test_clip_cov_draws_from_those_between_its_bounds(monkeypatch):
    """As many as its share of all tokens, others in another step, the same whatever the order of samples."""
    monkeypatch.setattr(terms, "COVARIANCE_BOUNDS", (0.0, 5.0))
    batch = rollout()
    ctx = context(covariance="clip", covariance_share=0.13)
    found = terms.prepared(ctx, batch)["covariant"]
    assert int(found.sum()) == 2
    backwards = batch.select([3, 2, 1, 0])
    other_way = terms.prepared(ctx, backwards)
    assert torch.equal(other_way.select([3, 2, 1, 0])["covariant"], found)
    ctx.step = 3
    assert not torch.equal(terms.prepared(ctx, batch)["covariant"], found)


def test_the_entropy_is_held_at_its_target():
    """Below it the weight grows step by step and counts; above it falls and does not count."""
    memory = {}
    ctx = context(memory, entropy_target=0.5)
    used = []
    for entropy in (0.2, 0.2, 0.9, 0.9, 0.2):
        used.append(terms.entropy_coef(ctx))
        metrics = terms.remember_entropy(ctx, {"actor_entropy": Mean(entropy * 10, 10.0)})
        assert metrics["actor_entropy_coef"].total == used[-1]
    assert used == pytest.approx([0.0, 0.005, 0.01, 0.0, 0.0])
    assert terms.entropy_coef(ctx) == pytest.approx(0.005)


def test_a_weight_without_a_target_stays():
    ctx = context(entropy_coef=0.001)
    assert terms.entropy_coef(ctx) == 0.001
    assert terms.remember_entropy(ctx, {})["actor_entropy_coef"].total == 0.001 and not ctx.memory
    assert not terms.remember_entropy(context(), {})
