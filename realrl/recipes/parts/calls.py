"""The calls that recipes of policies share, and the keys that they make."""

from __future__ import annotations

from realrl.api.config import ModelConfig
from realrl.api.graph import Blend, CallKind, DataflowGraph, Redraw
from realrl.api.graph import ModelFunctionCall as Call
from realrl.api.recipe import ModelSpec
from realrl.recipes.parts.config import AdvantageConfig, CriticPolicyConfig, PolicyConfig
from realrl.recipes.parts.reward_names import own_functions, part_keys
from realrl.recipes.parts.settings import Reference

ROLLOUT = ("input_ids", "logprobs", "policy_versions", "loss_mask", "ended")
"""What generation makes."""
GRADED = ("rewards", "is_graded")
"""What the reward makes."""
RESPONSE = ("input_ids", "loss_mask")
TRAINED = (*ROLLOUT, "is_graded")
"""What every train call takes."""
TARGETS = ("returns", "old_values")
"""What a critic trains on."""
PROMPT = ("prompts",)
"""The key of a dataset's row."""
PAIR = ("input_ids", "loss_mask", "chosen_tokens")
"""The keys of a row with two responses."""
PER_PAIR = ("chosen_tokens",)
LABELLED = ("input_ids", "loss_mask", "own_tokens", "is_desirable")
"""The keys of a row with a labelled response."""
PER_LABELLED = ("own_tokens", "is_desirable", "kl_log_ratios")


def actor_gen(config: PolicyConfig) -> Call:
    """Return the call that samples responses."""
    return Call("actor_gen", "actor", CallKind.GENERATE, PROMPT, ROLLOUT, engine=config.generation.engine)


def rewards(config: PolicyConfig) -> list[Call]:
    """Return the call that rewards responses, after that of the reward model if there is one.

    Raises:
        ValueError: a reward function cannot be loaded.
    """
    inputs: tuple[str, ...] = (*RESPONSE, "ended")
    before: list[Call] = []
    if config.reward_model is not None:
        inputs += ("scores",)
        before.append(Call("reward_inf", "reward", CallKind.INFERENCE, RESPONSE, ("scores",)))
    outputs = (*GRADED, *part_keys(config))
    needs_groups = any(function.needs_groups for function in own_functions(config))
    reward = Call("reward", None, CallKind.COMPUTE, inputs, outputs, whole_rows=needs_groups)
    return [*before, reward]


def ref_inf() -> Call:
    """Return the call that takes log-probabilities of the reference."""
    return Call("ref_inf", "ref", CallKind.INFERENCE, RESPONSE, ("ref_logprobs",))


def critic_inf() -> Call:
    """Return the call that takes the critic's values."""
    return Call("critic_inf", "critic", CallKind.INFERENCE, RESPONSE, ("values",))


def prox_inf(config: AdvantageConfig) -> list[Call]:
    """Return the call that recomputes log-probabilities before the update, if the config asks for it."""
    if config.ppo.old == "rollout":
        return []
    return [Call("prox_inf", "actor", CallKind.INFERENCE, RESPONSE, _prox_keys(config))]


def _prox_keys(config: AdvantageConfig) -> tuple[str, ...]:
    """Return what the trainer computes of each token before the update."""
    if config.ppo.top_entropy < 1:
        return ("prox_logprobs", "prox_entropies")
    return ("prox_logprobs",)


def advantages(config: AdvantageConfig, *more: str, outputs: tuple[str, ...] = ("advantages",)) -> Call:
    """Return the call that estimates advantages, from the rollout, its rewards and the keys `more`.

    It runs on the ranks of `actor_train`, each on the samples that it trains on: nothing has to move.
    """
    return Call(
        "advantages",
        None,
        CallKind.COMPUTE,
        (*ROLLOUT, *GRADED, *part_keys(config), *more),
        outputs,
        num_minibatches=config.ppo.num_minibatches,
        beside="actor_train",
    )


def actor_train(config: AdvantageConfig, *more: str) -> Call:
    """Return the call that trains the actor on advantages, and on the keys `more`."""
    keys = (*TRAINED, *more, "advantages")
    if config.ppo.positive_nll:
        keys += ("rewards",)
    if config.ppo.old == "trainer":
        keys += _prox_keys(config)
    num_minibatches = config.ppo.num_minibatches
    return Call("actor_train", "actor", CallKind.TRAIN, keys, num_minibatches=num_minibatches)


def critic_train(config: CriticPolicyConfig) -> Call:
    """Return the call that trains the critic on its targets."""
    keys = (*TRAINED, *TARGETS)
    num_minibatches = config.critic_minibatches
    return Call("critic_train", "critic", CallKind.TRAIN, keys, num_minibatches=num_minibatches)


def step(config: PolicyConfig, *calls: Call) -> DataflowGraph:
    """Return a training step: generation and rewards, then `calls`; prompts may be resampled.

    A reference follows the actor if the config says so.
    """
    ppo = config.ppo
    blends: tuple[Blend, ...] = ()
    if isinstance(ppo, Reference) and ppo.ref_eta:
        blends = (Blend("actor", "ref", ppo.ref_eta),)
    redraw = None
    if ppo.max_draws > 1:
        redraw = Redraw("reward", ppo.max_draws)
    return DataflowGraph(
        actor_gen(config),
        *rewards(config),
        *calls,
        per_sample=_per_sample(config),
        blends=blends,
        redraw=redraw,
    )


def evaluation(config: PolicyConfig) -> DataflowGraph:
    """Return an evaluation: greedy answers to held-out problems, rewarded."""
    return DataflowGraph(actor_gen(config), *rewards(config), per_sample=_per_sample(config))


def _per_sample(config: PolicyConfig) -> tuple[str, ...]:
    scores = () if config.reward_model is None else ("scores",)
    return ("ended", *scores, *GRADED, *part_keys(config))


def models(config: PolicyConfig, ref: ModelConfig | None = None) -> dict[str, ModelSpec]:
    """Return the actor, and the reference and the reward model where there are such."""
    actor = config.actor
    specs = {"actor": ModelSpec(actor.model, "lm", actor.optimizer)}
    if isinstance(config.ppo, Reference) and config.ppo.kl_coef:
        specs["ref"] = ModelSpec(ref or actor.model, "lm")
    if config.reward_model is not None:
        specs["reward"] = ModelSpec(config.reward_model, "scalar")
    return specs


def models_with_critic(config: CriticPolicyConfig) -> dict[str, ModelSpec]:
    """Return the actor, and the reference, the reward model and the critic where there are such."""
    specs = models(config, config.ref)
    critic = config.critic
    if critic is not None:
        specs["critic"] = ModelSpec(critic.model or config.actor.model, "scalar", critic.optimizer)
    return specs
