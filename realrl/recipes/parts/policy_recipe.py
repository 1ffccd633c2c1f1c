"""A recipe of a policy, made of what tells its algorithm apart: config, graph, models and bodies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from realrl.api.config import GenerationConfig
from realrl.api.evals import part_of
from realrl.api.graph import DataflowGraph
from realrl.api.recipe import CallBody, CallContext, CallOutput, Dataset, ModelSpec, Recipe
from realrl.base.seeding import derive_seed
from realrl.recipes import parts
from realrl.recipes.parts.calls import PROMPT, evaluation
from realrl.recipes.parts.config import AdvantageConfig, PolicyConfig
from realrl.recipes.parts.eval_scores import criteria, scores
from realrl.recipes.parts.grading import reward
from realrl.recipes.parts.reward_names import own_functions
from realrl.recipes.parts.settings import Reference
from realrl.recipes.parts.symptoms import policy_symptoms
from realrl.recipes.parts.verdict_watch import watch_verdicts
from realrl.rewards.functions import MATH, weights_of

if TYPE_CHECKING:
    from realrl.api.batch import PackedBatch

P = TypeVar("P", bound=PolicyConfig)


def generate(ctx: CallContext[PolicyConfig], batch: PackedBatch) -> CallOutput:
    """Sample a response to each prompt; in an evaluation, as its set says."""
    generation, seed = _generation(ctx)
    config = parts.data.stopping(generation, ctx.tokenizer, _template(ctx))
    ends = parts.data.ends_by(config, ctx.tokenizer)
    found = ctx.engine.generate(batch, config, seed=seed, step=ctx.step, ends=ends, preemption=ctx.preemption)
    return CallOutput(found)


def _generation(ctx: CallContext[PolicyConfig]) -> tuple[GenerationConfig, int]:
    """Return how responses are sampled in a step or an evaluation, and the seed of their random numbers."""
    config = ctx.config
    generation = config.generation
    if ctx.eval_set not in config.evals:
        return generation.greedy() if ctx.evaluating else generation, config.seed
    # Answers to a set's problems are drawn by other numbers than the responses of the step.
    seed = derive_seed(config.seed, "evaluation", ctx.eval_set)
    return config.evals[ctx.eval_set].generation(generation), seed


def _template(ctx: CallContext[PolicyConfig]) -> str:
    """Return the form of the prompts."""
    own = ctx.config.evals.get(ctx.eval_set)
    return own.template if own and own.template else ctx.config.data.template


def take_scores(ctx: CallContext[PolicyConfig], batch: PackedBatch) -> CallOutput:
    """Take the reward model's score of each response: its value at the end, normalised if asked for."""
    values = ctx.engine.values(batch)
    if values is None:
        return CallOutput()
    scores = parts.pairs.scores_at_ends(values, batch)
    config = ctx.config
    if config.scores.normalise:
        assert config.reward_model is not None, "only a run with a reward model normalises its scores"
        scores = parts.score_scale.read_scale(config.reward_model.path).normalised(scores)
    return CallOutput(batch.with_keys(per_sample={"scores": scores}))


def infer(ctx: CallContext[PolicyConfig], batch: PackedBatch, *, key: str) -> CallOutput:
    """Take what the call's model says of each token, as `key`.

    That is the critic's value of the state after it (`values`), or the log-probability by a policy at the
    training temperature.
    """
    if key == "values":
        found = ctx.engine.values(batch)
    else:
        found = ctx.engine.logprobs(batch, temperature=ctx.config.generation.training_temperature)
    if found is None:
        return CallOutput()
    return CallOutput(batch.with_keys(tokens={key: found}))


def prox_inf(ctx: CallContext[PolicyConfig], batch: PackedBatch) -> CallOutput:
    """Take the trainer's own log-probability of each token, and its entropy where `ppo.top_entropy` asks."""
    config = ctx.config
    assert isinstance(config, AdvantageConfig), "only what is updated by advantages has an old policy"
    if config.ppo.top_entropy == 1:
        return infer(ctx, batch, key="prox_logprobs")
    found = ctx.engine.logprobs_and_entropies(batch, temperature=ctx.config.generation.training_temperature)
    if found is None:
        return CallOutput()
    logprobs, entropies = found
    return CallOutput(batch.with_keys(tokens={"prox_logprobs": logprobs, "prox_entropies": entropies}))


def datasets(config: PolicyConfig, tokenizer: Any) -> tuple[Dataset, Dataset | None]:
    """Return the training prompts, and the held-out ones if there are any."""
    needs_solutions = MATH in weights_of(config.reward)
    return parts.data.load_prompts(config.data, tokenizer, needs_solutions=needs_solutions)


def eval_sets(config: PolicyConfig, tokenizer: Any) -> dict[str, Dataset]:
    """Return the problems of each of `evals`."""
    needs_solutions = MATH in weights_of(config.reward)
    found: dict[str, Dataset] = {}
    for name, each in config.evals.items():
        part = part_of(name, each, config.data)
        found[name] = parts.data.load_eval_set(
            part, tokenizer, limit=each.limit, needs_solutions=needs_solutions
        )
    return found


def samples_per_row(config: PolicyConfig) -> int:
    """Return how many samples a prompt gets."""
    return config.ppo.group_size


def validate(config: PolicyConfig, decoders: Mapping[str, Any]) -> None:
    """Check what a config names in files, and that a reference can follow the actor.

    Raises:
        ValueError: a reward, an estimator or a loss that cannot be loaded, or another architecture.
    """
    own_functions(config)
    if config.judge is not None:
        config.judge.template()
        config.judge.key()
    if config.scores.normalise and config.reward_model is not None:
        parts.score_scale.read_scale(config.reward_model.path)
    if isinstance(config, AdvantageConfig):
        parts.estimates.check(config)
        parts.actor.check(config)
    if isinstance(config.ppo, Reference) and config.ppo.ref_eta:
        ref = replace(decoders["ref"], eos_token_ids=())
        if ref != replace(decoders["actor"], eos_token_ids=()):
            raise ValueError(
                "ppo.ref_eta: the reference can follow only an actor of its own architecture; leave out ref,"
                " or set ppo.ref_eta=0"
            )


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
        "actor_gen": generate,
        "reward_inf": take_scores,
        "reward": reward,
        "ref_inf": partial(infer, key="ref_logprobs"),
        "critic_inf": partial(infer, key="values"),
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
        eval_sets=eval_sets,
        criteria=criteria,
        eval_scores=scores,
        symptoms=policy_symptoms,
        course_watch=watch_verdicts,
        validate=validate,
    )
