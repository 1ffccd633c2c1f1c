"""What a run's numbers show to be wrong, in words, with the likely cause.

    metrics of the first step ──┐
                                ├──▶ symptoms ──▶ lines in the terminal, in master.log and in summary.json
    means over the whole run ───┘

Each symptom is a function of numbers that every run reports. A threshold lies where no run is by intent.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from realrl.api.config import GenerationConfig, OptimizerConfig, RunConfig
from realrl.api.configure import sections
from realrl.api.data import DataConfig
from realrl.api.recipe import Observed
from realrl.recipes.parts.config import PolicyConfig
from realrl.recipes.parts.settings import Reference

_MANY = 0.8
"""Share of responses from which a fault is the rule."""
_EMPTY = _MOSTLY = 0.5
_SOME = 0.01
"""Share of responses, or of updates, from which a fault is worth a line."""
_ALL = 0.999
"""Share of groups that means all of them, up to rounding."""
_SHORT_LIMIT = 256
"""Response tokens below which a limit is more likely the cause than a model that does not end."""
_LARGE_LR = 1e-3
"""A hundred times what language models are fine-tuned with, all weights at once."""
_FAR_NATS = 0.1
"""Difference of log-probabilities per token between two engines of a model; bfloat16's rounding is below."""
_FAR_REFERENCE_NATS = 0.05
"""The same between the actor at its start and its reference, which are one model by default."""
_SHOWN_CHARACTERS = 60


class Answering(Protocol):
    """A config of a recipe that generates answers to prompts."""

    @property
    def generation(self) -> GenerationConfig:
        """How responses are sampled."""

    @property
    def data(self) -> DataConfig:
        """Where prompts come from."""


def response_symptoms(config: Answering, tokenizer: Any, seen: Observed) -> list[str]:
    """Return what is wrong with the responses of a recipe that generates and grades."""
    return [
        *_empty(config, tokenizer, seen),
        *_truncated(config, tokenizer, seen),
        *_without_answer(config, tokenizer, seen),
        *_never_right(seen),
        *_unchecked(seen),
    ]


def policy_symptoms(config: PolicyConfig, tokenizer: Any, seen: Observed) -> list[str]:
    """Return what is wrong with a run of PPO or one of its relatives."""
    return [
        *response_symptoms(config, tokenizer, seen),
        *_equal_rewards(config, seen),
        *_ungraded(seen),
        *_two_engines(config, seen),
        *_reference(config, seen),
        *optimizer_symptoms(config, tokenizer, seen),
    ]


def optimizer_symptoms(config: RunConfig, tokenizer: Any, seen: Observed) -> list[str]:
    """Return what is wrong with the learning rates and the updates of a recipe that trains."""
    found = list(_skipped_updates(seen))
    for path, optimizer in sections(config):
        if not isinstance(optimizer, OptimizerConfig):
            continue
        if optimizer.lr == 0:
            found.append(f"{path}.lr is 0: the weights will not change; published runs have 1e-6 to 1e-5")
        elif optimizer.lr > _LARGE_LR:
            found.append(
                f"{path}.lr is {optimizer.lr:g}, which destroys most language models within a few steps;"
                " published runs have 1e-6 to 1e-5"
            )
    return found


def _empty(config: Answering, tokenizer: Any, seen: Observed) -> Iterator[str]:
    if seen["empty"] >= _EMPTY:
        yield (
            f"{seen['empty']:.0%} of the responses are empty: the model ends at once;"
            f" {_about_template(config, tokenizer)}"
        )


def _truncated(config: Answering, tokenizer: Any, seen: Observed) -> Iterator[str]:
    # Short answers that are right need no end: nothing is lost but what would follow them.
    if seen["truncated"] < _MANY or seen["accuracy"] >= _MOSTLY:
        return
    limit = config.generation.max_new_tokens
    if limit < _SHORT_LIMIT:
        cause = "raise it to what an answer takes, a few hundred tokens or more"
    elif tokenizer.eos_token is None:
        cause = "the tokenizer has no end token: set generation.stop_token_ids or generation.stop"
    else:
        cause = (
            f"is the limit too short, or does the model not end with {tokenizer.eos_token!r}? Then set"
            f" generation.stop_token_ids; {_about_template(config, tokenizer)}"
        )
    share = f"{seen['truncated']:.0%} of the responses"
    yield f"{share} reach generation.max_new_tokens={limit} without an end: {cause}"


def _without_answer(config: Answering, tokenizer: Any, seen: Observed) -> Iterator[str]:
    if seen["verdict_no_answer"] >= _MANY and seen["empty"] < _EMPTY:
        yield (
            f"{seen['verdict_no_answer']:.0%} of the responses have no answer that the verifier finds: ask"
            f" for one in the prompt, as \\boxed{{}}; {_about_template(config, tokenizer)}"
        )


def _never_right(seen: Observed) -> Iterator[str]:
    """Shows what was wanted and what came: a field of another meaning is seen at a glance."""
    accuracy = seen.metrics.get("accuracy", seen.metrics.get("greedy_accuracy"))
    if accuracy != 0:
        return
    shown = next((record for record in seen.records if record.get("solutions")), None)
    example = ""
    if shown:
        example = (
            f" the first row wants {shortened(shown['solutions'][0])}, its response ends in"
            f" {shortened(shown['response'][-_SHOWN_CHARACTERS:])};"
        )
    yield (
        f"no response is right:{example} are the problems too hard, is data.fields.solutions the field of the"
        " answers, and does the prompt ask for the answer in a form that the verifier reads?"
    )


def _unchecked(seen: Observed) -> Iterator[str]:
    slow, broken = seen["verdict_timeout"], seen["verdict_error"]
    if slow + broken >= _SOME:
        yield (
            f"the check of {slow + broken:.0%} of the responses said nothing: {slow:.0%} took too long,"
            f" {broken:.0%} broke; are the solutions answers that can be compared?"
        )


def _ungraded(seen: Observed) -> Iterator[str]:
    if seen["ungraded"] >= _SOME:
        yield (
            f"{seen['ungraded']:.0%} of the responses have no reward and take no part in the step: a reward"
            " function returned None, or a check said nothing (scores.ungraded gives those a reward)"
        )


def _skipped_updates(seen: Observed) -> Iterator[str]:
    for name in (name for name in seen.metrics if name.endswith("skipped_updates")):
        whose = name.partition("skipped")[0].replace("_", " ")
        if seen[name]:
            yield (
                f"{seen[name]:.0%} of the {whose}updates were skipped, because their gradient was no finite"
                " number: lower the learning rate, and look at the rewards"
            )


def _equal_rewards(config: PolicyConfig, seen: Observed) -> Iterator[str]:
    if seen["groups_equal"] < _ALL or config.has_critic:
        return
    if seen.metrics.get("accuracy") == 1:
        cause = "every response is right: are the problems too easy, or does the reward accept anything?"
    else:
        cause = "is the reward the same for anything, or are the problems far too hard or too easy?"
    yield (
        f"the rewards of each prompt's responses are equal (their mean is {seen['reward']:.4g}), so that"
        f" nothing can be learned: {cause}"
    )


def _two_engines(config: PolicyConfig, seen: Observed) -> Iterator[str]:
    difference = seen["actor_logprob_diff"]
    if difference <= _FAR_NATS:
        return
    engine = config.generation.engine
    cause = (
        f"generation.engine={engine} computes the model otherwise: compare actor.model.dtype and the versions"
        if engine != "realrl"
        else "please report this, with the model's config.json"
    )
    yield (
        f"the trainer's log-probabilities differ from the rollout's by {difference:.2f} a token, although the"
        f" weights are the same (rounding stays below {_FAR_NATS:g}): {cause}"
    )


def _reference(config: PolicyConfig, seen: Observed) -> Iterator[str]:
    distance = seen["kl_to_ref"]
    if not isinstance(config.ppo, Reference):
        return
    if seen.is_first_step and abs(distance) > _FAR_REFERENCE_NATS:
        yield (
            f"the reference is another model than the actor at its start, {distance:.2f} nats a token apart,"
            f" and ppo.kl_coef={config.ppo.kl_coef:g} pulls towards it; leave `ref` out for the actor itself"
        )


def _about_template(config: Answering, tokenizer: Any) -> str:
    """What the prompt's form may have to do with it."""
    template = config.data.template
    if template == "chat" and tokenizer.chat_template:
        return "data.template=chat is for models that were trained to chat; a base model wants another one"
    if tokenizer.chat_template:
        return f"the tokenizer has a chat template, but data.template={template}: try data.template=chat"
    return "the tokenizer has no chat template: is the model one that answers questions (data.template)?"


def shortened(text: str) -> str:
    """Return a text as one line that fits into a message."""
    line = " ".join(text.split())
    if len(line) > _SHOWN_CHARACTERS:
        line = line[: _SHOWN_CHARACTERS - 1] + "…"
    return repr(line)
