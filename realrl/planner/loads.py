"""Predicts the work of one rank in each call of a pass: its micro-batches, tokens and sequences."""

from __future__ import annotations

from dataclasses import dataclass

from realrl.api.config import RunConfig, TrainingConfig
from realrl.api.traits import generation_of
from realrl.planner.engine_memory import GenerationLoad, Load


@dataclass(frozen=True)
class PassRows:
    """An upper bound on the rows that one pass, a step or an evaluation, works on."""

    num_rows: int
    samples_per_row: int
    longest: int
    """Tokens of the longest row; all rows are taken to be as long."""

    def on_each(self, dp: int) -> PassRows:
        """Return the share of the rank with the most rows, of `dp` data-parallel ranks."""
        num_rows = -(-self.num_rows // dp)
        return PassRows(num_rows, self.samples_per_row, self.longest)

    @property
    def num_samples(self) -> int:
        """Samples of all rows."""
        return self.num_rows * self.samples_per_row


def generation_load(rows: PassRows) -> GenerationLoad:
    """Return a rank's work in a generate call on `rows`."""
    return GenerationLoad(
        num_sequences=rows.num_samples,
        longest_prompt=rows.longest,
        num_prompt_tokens=rows.num_rows * rows.longest,
    )


def model_load(config: RunConfig, rows: PassRows, num_minibatches: int) -> Load:
    """Return a rank's work in a train or inference call: full micro-batches, all of whose tokens may be a
    response's.
    """
    generation = generation_of(config)
    num_new = generation.max_new_tokens if generation else 0
    num_prompts = rows.num_rows if _shares_prompts(config) else rows.num_samples
    num_response_tokens = rows.num_samples * num_new

    num_all_tokens = num_prompts * rows.longest + num_response_tokens
    total = -(-num_all_tokens // num_minibatches)
    # A sample that is longer than the budget has a micro-batch of its own.
    budget = max(config.max_tokens_per_microbatch, rows.longest + num_new)
    num_tokens = min(budget, total)
    most_logits = num_response_tokens if num_new else num_tokens
    return Load(
        num_micros=-(-total // num_tokens),
        num_tokens=num_tokens,
        num_logits=min(num_tokens, most_logits),
    )


def recomputes(config: RunConfig) -> bool:
    """Return whether training computes layers again in the backward pass."""
    return isinstance(config, TrainingConfig) and config.gradient_checkpointing


def _shares_prompts(config: RunConfig) -> bool:
    """Return whether the samples of a row share the computation of its prompt.

    An engine shares prompts unless a training says otherwise.
    """
    if isinstance(config, TrainingConfig):
        return config.share_prompts
    return True
