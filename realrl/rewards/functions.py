"""The names of rewards, their weights, and functions of a user's own, as `path/to/file.py:function`.

    f(prompt, response, solutions)    one response as texts
    f(sample)                         one response with all that is known of it
    f(samples)                        all responses that a worker rewards in a step, at once

The first parameter's name tells the forms apart. Each may be `async`; `realrl/rewards/calling.py` calls them.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from realrl.base.user_files import check_callable, load_from_file, signature_of

MATH = "math"
"""The reward by the verifier of mathematical answers."""
GYM = "gym"
"""The reward by the scorers of reasoning-gym's tasks."""
MODEL = "model"
"""The reward by a reward model."""
FORMAT = "format"
"""The reward for the form of an answer, whether it is right or wrong."""

JUDGE = "judge"
"""The reward by a language model that judges responses."""
BUILT_IN = (MATH, GYM, MODEL, FORMAT, JUDGE)
"""The rewards that are no functions of a user's own."""

LARGEST_REWARD = 1e30
"""The largest absolute value of a reward: sums and products of larger ones overflow float32."""

Takes = Literal["texts", "sample", "samples"]
"""What a reward function is called with."""
_NUM_ARGUMENTS: Mapping[Takes, int] = {"texts": 3, "sample": 1, "samples": 1}
_FORMS = "f(prompt, response, solutions), f(sample) or f(samples), whose first parameter has this name"


@dataclass(frozen=True)
class RewardFunction:
    """A reward function of a user's own, and how it is called."""

    reference: str
    """`path/to/file.py:function`."""
    function: Callable[..., Any]
    """Returns a number, or None for no opinion; with `samples`, a list of these."""
    takes: Takes
    is_async: bool

    @property
    def needs_groups(self) -> bool:
        """Whether it may look at the other responses to a prompt."""
        return self.takes != "texts"


def weights_of(reward: str | Mapping[str, float]) -> dict[str, float]:
    """Return the rewards that a config's `reward` names, each with its weight.

    Raises:
        ValueError: there is none, a weight is not finite or too large, or two of them grade answers.
    """
    weights = {reward: 1.0} if isinstance(reward, str) else dict(reward)
    if not weights:
        raise ValueError(
            "reward: expected `math`, `gym`, `format`, `model`, `judge`, a path/to/file.py:function, or"
            " several with weights, got none"
        )
    for name, weight in weights.items():
        if not is_usable(weight):
            bounds = f"from {-LARGEST_REWARD:g} to {LARGEST_REWARD:g}"
            raise ValueError(f"reward.{name}: expected a weight {bounds}, got {weight}")
    if {MATH, GYM} <= weights.keys():
        raise ValueError("reward: both `math` and `gym` say what is right; give one of them")
    return weights


def is_usable(reward: float) -> bool:
    """Return whether a number can be a reward: it is finite, and not too large to be summed."""
    return math.isfinite(reward) and abs(reward) <= LARGEST_REWARD


@functools.cache
def load_function(reference: str) -> RewardFunction:
    """Return a function of a Python file, which this runs.

    Raises:
        ValueError: the reference names no file, the file cannot be run or has no such function, or the
            function has none of the three forms.
    """
    instead = "`math`, `gym`, `format`, `model`, `judge` or "
    found = load_from_file(reference, setting="reward", what="function", fits=callable, instead=instead)
    assert callable(found), "load_from_file returns what fits"
    takes = _takes(found)
    num_arguments = _NUM_ARGUMENTS[takes]
    check_callable(found, reference, setting="reward", num_arguments=num_arguments, form=_FORMS)
    return RewardFunction(reference, found, takes, _is_async(found))


def _takes(function: Callable[..., Any]) -> Takes:
    """Return what a function is called with, by the name of its first parameter.

    A function that cannot be called with one argument takes texts, whatever their names.
    """
    signature = signature_of(function)
    if signature is None:
        return "texts"
    try:
        bound = signature.bind("")
    except TypeError:
        return "texts"
    first = next(iter(bound.arguments), "")
    if first == "sample":
        return "sample"
    return "samples" if first == "samples" else "texts"


def _is_async(function: Callable[..., Any]) -> bool:
    """Return whether a call of a function, or of an object that can be called, has to be awaited."""
    called = getattr(function, "__call__", None)  # noqa: B004
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)
