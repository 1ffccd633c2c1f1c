"""A critic that learns by a lambda of its own, before the policy; and a KL that is held at a target."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from realrl.recipes import ppo, ppo_math
from realrl.recipes.parts import actor
from realrl.recipes.parts.config import CriticConfig, ScoreConfig
from realrl.recipes.parts.settings import CorrectionConfig, Reference
from realrl.recipes.ppo import PPOConfig, PPOSettings
from realrl.recipes.ppo_math import PPOMathConfig, PPOMathSettings
from realrl.recipes.reinforce_pp import ReinforcePPConfig, ReinforcePPSettings
from realrl.recipes.reinforce_pp import advantages as reinforce_pp_advantages
from tests.ops.gae_loop import gae_loop
from tests.recipes.test_ppo_math import RESPONSES, context_of, rollouts

REWARDS = [1.0, 0.0, 3.0, 2.0, 5.0, 4.0]
RESPONSE_TOKENS = torch.tensor(RESPONSES)


def config_of(critic: CriticConfig, **settings) -> PPOConfig:
    settings = PPOSettings(group_size=2, kl_coef=0.0, advantage_scale="none", **settings)
    return PPOConfig(batch_size=3, critic=critic, ppo=settings)


def by_loop(batch, lam) -> tuple[torch.Tensor, torch.Tensor]:
    """Advantages and returns of the responses' tokens, end to end, by the textbook's recurrence."""
    rewards, values = [], []
    for reward, mask, of_tokens in zip(REWARDS, batch.unpacked("loss_mask"), batch.unpacked("values")):
        earned = torch.zeros(int(mask.sum()))
        earned[-1] = reward
        rewards.append(earned)
        first = int(mask.nonzero()[0, 0])
        # Without a token before the response there is no state to value; prompts are not empty.
        values.append(of_tokens[first - 1 :])
    bounds = torch.cat((torch.zeros(1, dtype=torch.long), RESPONSE_TOKENS.cumsum(0))).int()
    truncated = ~batch["ended"]
    return gae_loop(torch.cat(rewards), torch.cat(values), bounds, truncated, gamma=1.0, lam=lam)


@pytest.mark.parametrize("alpha", [0.0, 0.4])
@pytest.mark.parametrize("own", [None, 1.0])
def test_the_policy_and_the_critic_look_ahead_by_their_own_lambdas(alpha, own):
    """VAPO's policy by the length of a response; VC-PPO's critic to the end."""
    batch = rollouts(REWARDS, critic=True)
    config = config_of(CriticConfig(lam=own), lam=0.7, length_adaptive_lam=alpha)
    found = ppo.advantages(context_of(config), batch).batch
    mask = found["loss_mask"]
    lams = 1 - 1 / (alpha * RESPONSE_TOKENS.double()).clamp(min=1) if alpha else 0.7
    advantages, _ = by_loop(batch, lams)
    _, returns = by_loop(batch, 0.7 if own is None else own)
    torch.testing.assert_close(found["advantages"][mask].double(), advantages, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found["returns"][mask].double(), returns, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("recipe", [ppo, ppo_math])
def test_the_policy_waits_for_the_critic(recipe, monkeypatch):
    """In the steps of the critic's warm-up nothing of the policy is trained."""
    trained = []
    monkeypatch.setattr(actor, "train", lambda ctx, *_, **__: trained.append(ctx.step))
    ctx = context_of(config_of(CriticConfig(warmup_steps=2)))
    for ctx.step in (0, 1):
        assert recipe.actor_train(ctx, None).metrics["actor_updates"].total == 0
    ctx.step = 2
    recipe.actor_train(ctx, None)
    assert trained == [2]


def test_the_cost_of_a_nat_follows_the_divergence():
    """By a fifth over the horizon's responses; the step that measures it has the cost from before."""
    settings = ReinforcePPSettings(group_size=2, kl_coef=0.1, kl_target=0.01, kl_horizon=60)
    ctx = context_of(ReinforcePPConfig(batch_size=3, ppo=settings))
    batch = rollouts(REWARDS)
    fixed = context_of(replace(ctx.config, ppo=replace(settings, kl_target=0.0)))
    first = reinforce_pp_advantages(ctx, batch).batch["advantages"]
    assert torch.equal(first, reinforce_pp_advantages(fixed, batch).batch["advantages"])
    kl = (batch["logprobs"] - batch["ref_logprobs"])[batch["loss_mask"]].sum() / 6
    grows = 1 if kl > 0.01 else -1
    assert float(ctx.memory["kl_coef"]) == pytest.approx(0.1 * (1 + grows * 0.2 * 6 / 60))
    second = reinforce_pp_advantages(ctx, batch).batch["advantages"]
    assert not torch.equal(first, second)


def test_a_target_needs_a_cost_to_begin_with():
    with pytest.raises(ValueError, match="^kl_target: kl_coef"):
        Reference(kl_coef=0.0, kl_target=1.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CorrectionConfig(mask="token"), "^mask: token leaves nothing out"),
        (lambda: CorrectionConfig(name="kpop", low=0.5), "^low is a bound of weights"),
        (lambda: CorrectionConfig(high=2.0), "^low and high are bounds of a mask"),
        (lambda: CorrectionConfig(cap=2.0), "^cap is the largest weight"),
        (lambda: PPOSettings(top_entropy=0.0, old="trainer"), "^top_entropy: 0 leaves no token"),
        (lambda: PPOSettings(top_entropy=0.2), "^top_entropy: the trainer computes"),
        (lambda: PPOSettings(covariance="kl", covariance_share=0.0), "^covariance_share: 0 treats"),
        (
            lambda: replace(config_of(CriticConfig(warmup_steps=3)), num_steps=3),
            "^critic.warmup_steps: in all 3",
        ),
        (
            lambda: PPOMathConfig(ppo=PPOMathSettings(length_adaptive_lam=0.05)),
            "^ppo.length_adaptive_lam: it is for advantages by a critic",
        ),
        (
            lambda: PPOMathConfig(reward="own.py:f", scores=ScoreConfig(form="box")),
            "^scores.form: it is for the rewards",
        ),
    ],
)
def test_settings_that_would_do_nothing_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
