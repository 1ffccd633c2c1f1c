"""What a reward function learns of a response."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from realrl.rewards.verdict import Verdict

if TYPE_CHECKING:  # configs load the names of rewards, and have no need of torch
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Turn:
    """What the policy wrote at one time."""

    text: str
    tokens: Tensor
    """Token ids: int64 `[R]`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RewardSample:
    """A response, and all that is known of it when it is rewarded."""

    prompt: str
    """The question, without its template."""
    response: str
    solutions: Sequence[str]
    """The row's right answers."""
    source: str = ""
    """The name of the row's data set, or its field `source`; empty without either."""
    metadata: Mapping[str, Any]
    """The row's further fields in its file, as JSON values."""
    tokens: Tensor
    """Token ids of the response: int64 `[R]`; `len(sample.tokens)` is how many it has."""
    ended: bool
    """Whether the response ended by itself, and was not cut off at `generation.max_new_tokens`."""
    turns: Sequence[Turn]
    """The response by what the policy wrote at one time; one turn, as there are no tools."""
    verdict: Verdict | None = None
    """What `math` or `gym` says of the response, where it is one of the response's rewards."""
    group: Sequence[RewardSample] = ()
    """All responses to the prompt in this step, in order; this one is among them."""
    evaluating: bool = False
    """Whether the response is one of an evaluation, where a prompt may have only one."""
