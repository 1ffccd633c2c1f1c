"""A recipe of a policy, made of what tells its algorithm apart: config, graph, models and bodies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from realrl.api.graph import DataflowGraph
from realrl.api.recipe import CallBody, CallContext, CallOutput, Criterion, Dataset, ModelSpec, Recipe
from realrl.recipes import parts
from realrl.recipes.parts.calls import PROMPT, evaluation
from realrl.recipes.parts.config import PolicyConfig
from realrl.recipes.parts.settings import Reference
from realrl.recipes.parts.symptoms import policy_symptoms
from realrl.recipes.parts.verdict_watch import watch_verdicts
from realrl.rewards.functions import GYM, MATH, MODEL, load_function, weights_of

if TYPE_CHECKING:
    from realrl.api.batch import PackedBatch

P = TypeVar("P", bound=PolicyConfig)


def actor_gen(ctx: CallContext[PolicyConfig], batch: PackedBatch) -> CallOutput:
    """Sample a response to each prompt."""
    return parts.rollout.generate(ctx, batch)


def reward_inf(ctx: CallContext[PolicyConfig], batch: PackedBatch) -> CallOutput:
    """Take the reward model's score of each response."""
    return parts.rollout.take_scores(ctx, batch)


def reward(ctx: CallContext[PolicyConfig], batch: PackedBatch) -> CallOutput:
    """Reward each response, and say which prompts are to be resampled."""
    return parts.grading.reward(ctx, batch)


def ref_inf(ctx: CallContext[PolicyConfig], batch: PackedBatch) -> CallOutput:
    """Take the reference's log-probability of each token."""
    return parts.rollout.take_logprobs(ctx, batch, "ref_logprobs")


def prox_inf(ctx: CallContext[PolicyConfig], batch: PackedBatch) -> CallOutput:
    """Take the trainer's own log-probability of each token, before the update."""
    return parts.rollout.take_logprobs(ctx, batch, "prox_logprobs")


def datasets(config: PolicyConfig, tokenizer: Any) -> tuple[Dataset, Dataset | None]:
    """Return the training prompts, and the held-out ones if there are any."""
    needs_solutions = MATH in weights_of(config.reward)
    return parts.data.load_prompts(config.data, tokenizer, needs_solutions=needs_solutions)


def samples_per_row(config: PolicyConfig) -> int:
    """Return how many samples a prompt gets."""
    return config.ppo.group_size


def validate(config: PolicyConfig, decoders: Mapping[str, Any]) -> None:
    """Check what a config names in files, and that a reference can follow the actor.

    Raises:
        ValueError: a reward, an estimator or a loss that cannot be loaded, or another architecture.
    """
    for name in weights_of(config.reward):
        if name not in (MATH, GYM, MODEL):
            load_function(name)
    parts.estimates.check(config)
    parts.update.check(config)
    if isinstance(config.ppo, Reference) and config.ppo.ref_eta:
        ref = replace(decoders["ref"], eos_token_ids=())
        if ref != replace(decoders["actor"], eos_token_ids=()):
            raise ValueError(
                "ppo.ref_eta: the reference can follow only an actor of its own architecture; leave out ref,"
                " or set ppo.ref_eta=0"
            )


def best_by(config: PolicyConfig) -> Criterion:
    """Return right answers as what counts, where the verifier tells which are right, else the reward."""
    return Criterion("greedy_accuracy" if MATH in weights_of(config.reward) else "reward")


def policy_recipe(
    name: str,
    default_config: P,
    *,
    graph: Callable[[P], DataflowGraph],
    models: Callable[[P], Mapping[str, ModelSpec]],
    bodies: Mapping[str, CallBody[P]],
) -> Recipe[P]:
    """Return a recipe that generates, rewards and evaluates as all do, and learns in its own way.

    Raises:
        ValueError: these do not fit each other.
    """
    shared: dict[str, CallBody[P]] = {
        "actor_gen": actor_gen,
        "reward_inf": reward_inf,
        "reward": reward,
        "ref_inf": ref_inf,
        "prox_inf": prox_inf,
    }
    return Recipe(
        name=name,
        default_config=default_config,
        graph=graph,
        eval_graph=evaluation,
        models=models,
        samples_per_row=samples_per_row,
        datasets=datasets,
        row_keys=PROMPT,
        bodies={**shared, **bodies},
        best_by=best_by,
        symptoms=policy_symptoms,
        course_watch=watch_verdicts,
        validate=validate,
    )
