"""The recipe's advantages against plain float64 loops over each sample."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
import torch

from realrl.api.batch import PackedBatch, Sample, pack
from realrl.api.config import GenerationConfig
from realrl.recipes import grpo, ppo, ppo_math, rloo
from realrl.recipes.grpo import GRPOConfig, GRPOSettings
from realrl.recipes.gspo import GSPOConfig, GSPOSettings
from realrl.recipes.parts.config import CriticConfig, PolicyConfig, ScoreConfig
from realrl.recipes.parts.critic import moments as moments_of
from realrl.recipes.parts.estimates import chosen, scored
from realrl.recipes.parts.reference import LOGPROB_NOISE
from realrl.recipes.parts.update import minibatches
from realrl.recipes.ppo import PPOConfig, PPOSettings
from realrl.recipes.ppo_math import PPOMathConfig, PPOMathSettings
from realrl.recipes.rloo import RLOOConfig, RLOOSettings

EOS = 1
PROMPTS, RESPONSES = [3, 1, 2, 4, 1, 2], [1, 5, 2, 3, 4, 2]
TRUNCATED = [False, True, False, True, True, False]


def context(scores: ScoreConfig | None = None, critic: CriticConfig | None = None, **ppo) -> SimpleNamespace:
    settings = PPOMathSettings(group_size=2, **ppo)
    return context_of(
        PPOMathConfig(batch_size=3, critic=critic, ppo=settings, scores=scores or ScoreConfig())
    )


def context_of(config: PolicyConfig) -> SimpleNamespace:
    return SimpleNamespace(config=config, reduce=lambda x: x, memory={})


def rloo_context(kl_coef: float = 0.1) -> SimpleNamespace:
    return context_of(RLOOConfig(batch_size=3, ppo=RLOOSettings(group_size=2, kl_coef=kl_coef)))


def rollouts(
    rewards: list[float], *, critic: bool = False, is_graded: Sequence[bool] = (True,) * 6
) -> PackedBatch:
    generator = torch.Generator().manual_seed(0)
    tokens: dict[str, list[torch.Tensor]] = {
        key: [] for key in ("input_ids", "logprobs", "ref_logprobs", "values")
    }
    masks = []
    for prompt, response in zip(PROMPTS, RESPONSES, strict=True):
        length = prompt + response
        tokens["input_ids"].append(torch.randint(5, 60, (length,), generator=generator))
        for key in ("logprobs", "ref_logprobs", "values"):
            tokens[key].append(torch.randn(length, generator=generator))
        masks.append(torch.arange(length) >= prompt)
    if not critic:
        del tokens["values"]
    samples = [Sample(i, i // 2) for i in range(len(PROMPTS))]
    single = {
        "rewards": torch.tensor(rewards),
        "ended": ~torch.tensor(TRUNCATED),
        "is_graded": torch.tensor(is_graded),
    }
    return pack(samples, {**tokens, "loss_mask": masks}, {key: list(x.split(1)) for key, x in single.items()})


def _with_advantages(ctx: SimpleNamespace, batch: PackedBatch, recipe=ppo_math) -> PackedBatch:
    """Return the samples that are trained on, with what the call `advantages` adds."""
    return chosen(ctx.config, recipe.advantages(ctx, batch).batch)


def token_rewards(batch: PackedBatch, sample: int, task_reward: float, kl_coef: float) -> list[float]:
    """Of one sample's response."""
    prompt = PROMPTS[sample]
    logprobs, ref = (batch.unpacked(key)[sample].tolist()[prompt:] for key in ("logprobs", "ref_logprobs"))
    rewards = [-kl_coef * (a - b) for a, b in zip(logprobs, ref, strict=True)]
    rewards[-1] += task_reward
    return rewards


def test_without_a_critic_rewards_are_relative_to_the_prompts_others():
    """Each token gets the sum of what follows it: its group's relative reward and the KL to come."""
    rewards = [1.0, 0.0, 3.0, 2.0, 5.0, 5.0]
    batch = rollouts(rewards)
    found = _with_advantages(context(kl_coef=0.1), batch).unpacked("advantages")
    relative = [1.0, -1.0, 1.0, -1.0, 0.0, 0.0]  # in units of the group's standard deviation
    for sample, prompt in enumerate(PROMPTS):
        given = token_rewards(batch, sample, relative[sample], 0.1)
        expected = [0.0] * prompt + [math.fsum(given[t:]) for t in range(len(given))]
        assert found[sample].tolist() == pytest.approx(expected, abs=1e-5)


def test_the_kl_of_a_response_can_be_part_of_what_is_compared():
    """Leaving one out, and without units: the other's reward and KL are the baseline, and each token gets
    all.
    """
    rewards = [1.0, 0.0, 3.0, 2.0, 5.0, 5.0]
    batch = rollouts(rewards)
    found = _with_advantages(rloo_context(), batch, rloo).unpacked("advantages")
    whole = [math.fsum(token_rewards(batch, i, rewards[i], 0.1)) for i in range(6)]
    for sample, prompt in enumerate(PROMPTS):
        expected = [0.0] * prompt + [whole[sample] - whole[sample ^ 1]] * RESPONSES[sample]
        assert found[sample].tolist() == pytest.approx(expected, abs=1e-5)


def test_a_tokens_reward_has_the_kl_only_where_it_is_to():
    """Equal rewards then give what the response's KL gives, or nothing where the KL is in the loss."""
    batch = rollouts([1.0] * 6)
    in_loss = context_of(GRPOConfig(batch_size=3, ppo=GRPOSettings(group_size=2, kl_coef=0.1)))
    assert not _with_advantages(in_loss, batch, grpo)["advantages"].any()
    assert _with_advantages(rloo_context(), batch, rloo)["advantages"].any()


def test_without_a_baseline_advantages_are_normalised_over_the_batch():
    """Over its tokens, each of which has the rewards of those after it."""
    batch = rollouts([1.0, 0.0, 3.0, 2.0, 5.0, 5.0])
    found = _with_advantages(context(kl_coef=0.1, baseline="none", advantage_scale="batch"), batch)
    sums = [
        math.fsum(given[t:])
        for sample, reward in enumerate([1.0, 0.0, 3.0, 2.0, 5.0, 5.0])
        for given in [token_rewards(batch, sample, reward, 0.1)]
        for t in range(len(given))
    ]
    mean, std = statistics.fmean(sums), statistics.pstdev(sums)
    expected = [(x - mean) / std for x in sums]
    assert found["advantages"][found["loss_mask"]].tolist() == pytest.approx(expected, abs=1e-4)


def test_what_was_not_graded_takes_no_part():
    """Neither in the step nor in its group's mean; nor do truncated ones, if they are to be dropped."""
    is_graded = [True, True, False, True, True, True]
    batch = rollouts([1.0, 0.0, 9.0, 2.0, 5.0, 3.0], is_graded=is_graded)
    found = _with_advantages(context(kl_coef=0.0), batch)
    assert [s.id for s in found.samples] == [0, 1, 3, 4, 5]
    first = [float(x[mask][0]) for x, mask in zip(found.unpacked("advantages"), found.unpacked("loss_mask"))]
    assert first == pytest.approx([1.0, -1.0, 0.0, 1.0, -1.0])
    found = _with_advantages(context(ScoreConfig(truncated="left_out"), kl_coef=0.0), batch)
    assert [s.id for s in found.samples] == [0, 5]


@pytest.mark.parametrize("normalise", ["group_std", "none"])
def test_equal_rewards_without_kl_give_no_advantage(normalise):
    """Else noise would be scaled up to a full update."""
    ctx = context(kl_coef=0.0, advantage_scale=normalise)
    assert not _with_advantages(ctx, rollouts([1.0] * 6))["advantages"].any()


def test_with_a_critic_it_is_gae_and_normalised():
    """A truncated response goes on with the value of its last state, an ended one with nothing."""
    rewards, gamma, lam = [1.0, 0.0, 0.5, 2.0, -1.0, 0.0], 0.9, 0.8
    batch = rollouts(rewards, critic=True)
    ctx = context(critic=CriticConfig(), gamma=gamma, lam=lam, kl_coef=0.05)
    found = _with_advantages(ctx, batch)
    advantages, returns = [], []
    for sample, prompt in enumerate(PROMPTS):
        values = batch.unpacked("values")[sample].tolist()
        states = values[prompt - 1 :] if TRUNCATED[sample] else [*values[prompt - 1 : -1], 0.0]
        carried, own = 0.0, []
        for t, reward in reversed(list(enumerate(token_rewards(batch, sample, rewards[sample], 0.05)))):
            carried = reward + gamma * states[t + 1] - states[t] + gamma * lam * carried
            own.insert(0, carried)
        advantages += own
        returns += [a + v for a, v in zip(own, states, strict=False)]
    mean = math.fsum(advantages) / len(advantages)
    std = math.sqrt(math.fsum((a - mean) ** 2 for a in advantages) / len(advantages))
    mask = found["loss_mask"]
    assert found["advantages"][mask].tolist() == pytest.approx(
        [(a - mean) / std for a in advantages], abs=1e-4
    )
    assert found["returns"][mask].tolist() == pytest.approx(returns, abs=1e-5)
    assert not found["advantages"][~mask].any() and not found["returns"][~mask].any()


@pytest.mark.parametrize(
    ("settings", "scores", "goes_on"),
    [
        ({}, None, True),
        ({}, ScoreConfig(truncated="wrong"), False),
        ({"bootstrap_truncated": False}, None, False),
        ({"bootstrap_truncated": True}, ScoreConfig(truncated="wrong"), True),
    ],
)
def test_a_truncated_responses_return_may_be_its_reward(settings, scores, goes_on):
    """With values of 0.8 everywhere, rewards of 0 and no discount, a truncated response returns 0.8 if it
    goes on with the value of its last state, and 0 if not; one that ended returns 0."""
    batch = rollouts([0.0] * 6, critic=True)
    batch = batch.with_keys(tokens={"values": torch.full((batch.num_tokens,), 0.8)})
    ctx = context(scores, CriticConfig(), kl_coef=0.0, advantage_scale="none", **settings)
    found = _with_advantages(ctx, batch)
    for sample, is_truncated in enumerate(TRUNCATED):
        mask = found.unpacked("loss_mask")[sample]
        expected = 0.8 if is_truncated and goes_on else 0.0
        returns, advantages = (found.unpacked(key)[sample][mask] for key in ("returns", "advantages"))
        torch.testing.assert_close(returns, torch.full_like(returns, expected))
        torch.testing.assert_close(advantages, torch.full_like(advantages, expected - 0.8))


NO_LESSON = {
    "normalised": (ppo_math, context(kl_coef=0.1, advantage_scale="batch", baseline="none")),
    "normalised groups": (ppo_math, context(kl_coef=0.1, advantage_scale="batch")),
    "rloo": (rloo, rloo_context()),
    "groups": (ppo_math, context(kl_coef=0.1)),
}


@pytest.mark.parametrize("name", NO_LESSON)
def test_where_all_rewards_are_equal_rounding_is_no_lesson(name):
    """A reference that differs by rounding alone gives advantages of exactly 0, whatever they are divided by;
    one that differs by more, or a reward that does, gives others."""
    (recipe, ctx), equal = NO_LESSON[name], [1.0] * 6
    noise = torch.linspace(-1, 1, rollouts(equal).num_tokens)

    def advantages(rewards: list[float], apart: float) -> torch.Tensor:
        batch = rollouts(rewards)
        ref = {"ref_logprobs": batch["logprobs"] + apart * noise}
        return _with_advantages(ctx, batch.with_keys(tokens=ref), recipe)["advantages"]

    within = LOGPROB_NOISE[ctx.config.actor.model.dtype]
    assert not advantages(equal, within).any()
    assert advantages(equal, 10 * within).any() and advantages([1.0, 1.0, 1.0, 0.0, 1.0, 1.0], within).any()


def test_sums_that_overflow_are_named():
    """Each reward is a number, their discounted sum in float32 is none."""
    batch = rollouts([1e30, 0.0, 0.0, 0.0, 0.0, 0.0])
    batch = batch.with_keys(tokens={"ref_logprobs": batch["logprobs"] - 1e38})
    with pytest.raises(FloatingPointError, match="advantages or returns are not finite"):
        _with_advantages(context(kl_coef=10.0, baseline="none", advantage_scale="none"), batch)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: PPOMathSettings(importance="mask"),
            "^importance: mask weighs the trainer's policy against the rollout's",
        ),
        (lambda: GRPOSettings(kl_estimator="k1"), "^kl_estimator: the gradient of k1 in the loss is zero"),
        (lambda: GRPOSettings(clip_eps=0.0), "^clip_eps must be above 0"),
        (lambda: PPOSettings(clip_eps_high=0.0), "^clip_eps_high must be above 0"),
        (
            lambda: PPOMathConfig(ppo=PPOMathSettings(lam=0.9)),
            "^ppo.lam: without a critic, lam=0.9 would discount",
        ),
        (
            lambda: PPOMathConfig(ppo=PPOMathSettings(bootstrap_truncated=True)),
            "^ppo.bootstrap_truncated: true takes the critic's value",
        ),
        (
            lambda: PPOMathConfig(ppo=PPOMathSettings(baseline="none", advantage_scale="group_std")),
            "^ppo.advantage_scale: group_std divides differences from a group's baseline",
        ),
        (
            lambda: GSPOConfig(generation=GenerationConfig(engine="vllm")),
            "^ppo.old: gspo compares .* set ppo.old=trainer",
        ),
        (
            lambda: GRPOConfig(ppo=GRPOSettings(group_size=1)),
            "^ppo.group_size must be at least 2: rewards are",
        ),
        (
            lambda: PPOMathConfig(advantage="rloo", ppo=PPOMathSettings(baseline="none")),
            "^advantage: an estimator that is named has its own baseline",
        ),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(make, message):
    """With what to set instead."""
    with pytest.raises(ValueError, match=message):
        make()


def test_what_is_left_out_follows_from_the_rest():
    """The scale of advantages from the baseline and the critic; and what is refused of one setting is
    accepted with the other that it needs."""
    assert PPOMathConfig(ppo=PPOMathSettings(baseline="none")).advantage_scale == "batch"
    assert PPOMathConfig(ppo=PPOMathSettings(baseline="leave_one_out")).advantage_scale == "group_std"
    assert PPOMathConfig(critic=CriticConfig(), ppo=PPOMathSettings(lam=0.9)).advantage_scale == "batch"
    assert GRPOSettings(kl_estimator="k1", kl_coef=0.0).kl_estimator == "k1"
    GSPOConfig(ppo=GSPOSettings(old="trainer"), generation=GenerationConfig(engine="vllm"))


def test_ppo_estimates_as_ppo_math_does_with_a_critic():
    """The two recipes have one pair of bodies, each in its own file."""
    batch = rollouts([1.0, 0.0, 0.5, 2.0, -1.0, 0.0], critic=True)
    settings = {"group_size": 2, "gamma": 0.9, "lam": 0.8, "kl_coef": 0.05}
    critic = CriticConfig(normalise="moving")
    theirs = context_of(PPOMathConfig(batch_size=3, critic=critic, ppo=PPOMathSettings(**settings)))
    ours = context_of(PPOConfig(batch_size=3, critic=critic, ppo=PPOSettings(**settings, num_minibatches=1)))
    expected, found = _with_advantages(theirs, batch), _with_advantages(ours, batch, ppo)
    for key in ("advantages", "returns", "old_values"):
        assert torch.equal(found[key], expected[key])


@pytest.mark.parametrize("kind", ["exponential", "moving"])
def test_values_in_units_of_earlier_returns_change_no_advantage(kind):
    """What the critic says is brought back to rewards' units; a step's returns count from the next one on."""
    rewards = [1.0, 0.0, 0.5, 2.0, -1.0, 0.0]
    batch, settings = rollouts(rewards, critic=True), {"gamma": 0.9, "lam": 0.8, "kl_coef": 0.05}
    plain = _with_advantages(context(critic=CriticConfig(), **settings), batch)
    ctx = context(critic=CriticConfig(normalise=kind), **settings)
    first = _with_advantages(ctx, batch)
    assert torch.equal(first["advantages"], plain["advantages"])
    moments, mask = moments_of(ctx), plain["loss_mask"]
    torch.testing.assert_close(first["returns"], moments.normalised(plain["returns"]))
    returns = plain["returns"][mask].double()
    assert moments.mean == pytest.approx(float(returns.mean()))
    assert moments.std == pytest.approx(float(returns.std(correction=0)))
    scaled = batch.with_keys(tokens={"values": moments.normalised(batch["values"])})
    second = _with_advantages(ctx, scaled)
    torch.testing.assert_close(second["advantages"], plain["advantages"], rtol=1e-4, atol=1e-5)
    for key, expected in (("returns", plain["returns"]), ("old_values", batch["values"])):
        torch.testing.assert_close(moments_of(ctx).restored(second[key]), expected, rtol=1e-4, atol=1e-5)


def test_tokens_pay_for_their_kl():
    """-kl_coef * k1 on response tokens, 0 elsewhere; as data, without a gradient: it acts by advantages."""
    batch = rollouts([0.0] * 6)
    logprobs = batch["logprobs"].clone().requires_grad_()
    own = batch.with_keys(tokens={"logprobs": logprobs})
    found = scored(context(), own, kl_coef=0.1).token_rewards
    assert not found.requires_grad and found.dtype == torch.float32
    for place, is_response in enumerate(batch["loss_mask"].tolist()):
        distance = float(batch["logprobs"][place]) - float(batch["ref_logprobs"][place])
        assert float(found[place]) == pytest.approx(-0.1 * distance if is_response else 0.0, abs=1e-6)
    assert not scored(context(), own, kl_coef=0.0).token_rewards.any()


def test_minibatches_do_not_depend_on_who_holds_the_samples():
    """Every sample is in one mini-batch, whichever rank has it; a rank may have none of one."""
    batch, config = rollouts([0.0] * 6), context().config
    whole = [[s.id for s in part.samples] for part in minibatches(config, batch, 3)]
    assert whole == [[0, 1], [2, 3], [4, 5]]
    shares = [minibatches(config, batch.select(rows), 3) for rows in ([0, 1, 5], [2, 3, 4])]
    joined = [sorted(s.id for share in shares for s in share[i].samples) for i in range(3)]
    assert joined == whole
