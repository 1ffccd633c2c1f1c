"""Checks that rows, with what is generated for them, fit the context of a model."""

from __future__ import annotations

from realrl.api.config import RunConfig
from realrl.api.traits import data_of, generation_of
from realrl.planner.run_inputs import RowFacts

MAX_NEW_TOKENS = "generation.max_new_tokens"


def check_context(
    path: str, rows: RowFacts, config: RunConfig, name: str, limit: int, new_tokens_key: str = MAX_NEW_TOKENS
) -> None:
    """Check the rows that the key `path` names against the context of model `name`, of `limit` tokens.

    `new_tokens_key` says how many tokens are generated for them.

    Raises:
        ValueError: a row is too long; the message gives only settings that help.
    """
    new_tokens = _max_new_tokens(config)
    room = limit - new_tokens
    longest = max(rows.sequence_lengths)
    if longest <= room:
        return
    more = f" and {new_tokens_key}={new_tokens}" if new_tokens else ""
    too_long = [length for length in rows.sequence_lengths if length > room]
    others = ""
    if len(too_long) > 1:
        others = f" (so do {len(too_long)} of {len(rows)} rows)"

    means = []
    if new_tokens and longest < limit:
        means.append(f"set {new_tokens_key} to at most {limit - longest}")
    # If all prompts are too long, no rows would be left.
    some_fit = len(too_long) < len(rows)
    if some_fit or not new_tokens:
        means.append(_leaving_out(config, room if new_tokens else None))
    advice = ", or ".join(means) or f"shorten the prompts, or take a model with more context than {longest}"
    raise ValueError(
        f"{path}: {rows.longest_place} has {longest} tokens; that{more} exceeds the {limit} tokens of model"
        f" {name}'s context{others}; {advice}"
    )


def _leaving_out(config: RunConfig, room: int | None) -> str:
    """Return which settings leave out rows whose prompts have more than `room` tokens (None: responses)."""
    limit = "data.max_response_tokens" if room is None else f"data.max_prompt_tokens={room}"
    data = data_of(config)
    drops_already = data is not None and data.drop_long
    drop = "" if drops_already else " and data.drop_long=true"
    return f"set {limit}{drop} to leave such rows out"


def _max_new_tokens(config: RunConfig) -> int:
    """Return the most tokens that are generated for a row."""
    generation = generation_of(config)
    return 0 if generation is None else generation.max_new_tokens
