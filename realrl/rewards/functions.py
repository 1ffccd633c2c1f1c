"""Rewards by a user's functions, named as `path/to/file.py:function`."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence

from realrl.base.progress import Progress, counted, no_progress
from realrl.base.user_files import describe_error, load_function_from_file

MATH = "math"
"""The reward by the verifier of mathematical answers."""
GYM = "gym"
"""The reward by the scorers of reasoning-gym's tasks."""
MODEL = "model"
"""The reward by a reward model."""
FORMAT = "format"
"""The reward for the form of an answer, whether it is right or wrong."""

LARGEST_REWARD = 1e30
"""The largest absolute value of a reward: sums and products of larger ones overflow float32."""
_SHOWN_CHARS = 200
"""The largest number of characters of a response in an error."""

RewardFunction = Callable[[str, str, Sequence[str]], float | None]
"""`(prompt, response, solutions) -> reward`, or None for no opinion; the prompt is without its template."""


def weights_of(reward: str | Mapping[str, float]) -> dict[str, float]:
    """Return the rewards that a config's `reward` names, each with its weight.

    Raises:
        ValueError: there is none, a weight is not finite or too large, or two of them grade answers.
    """
    weights = {reward: 1.0} if isinstance(reward, str) else dict(reward)
    if not weights:
        raise ValueError(
            "reward: expected `math`, `gym`, `model`, a path/to/file.py:function, or several with weights,"
            " got none"
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
            function cannot be called with a prompt, a response and solutions.
    """
    function: RewardFunction = load_function_from_file(
        reference,
        setting="reward",
        num_arguments=3,
        form="f(prompt, response, solutions): two texts and the list of right answers",
        instead="`math`, `gym`, `model` or ",
    )
    return function


def rewards_by(
    reference: str,
    prompts: Sequence[str],
    responses: Sequence[str],
    solutions: Sequence[Sequence[str]],
    progress: Progress = no_progress,
) -> list[float | None]:
    """Return a function's reward for each response; None where it has no opinion.

    Raises:
        RuntimeError: the function raised an error, or returned a number that cannot be a reward.
    """
    function = load_function(reference)
    cases = zip(prompts, responses, solutions, strict=True)
    rewards = (_reward(reference, function, *case) for case in cases)
    return list(counted(rewards, len(responses), progress))


def _reward(
    reference: str, function: RewardFunction, prompt: str, response: str, solutions: Sequence[str]
) -> float | None:
    """Return the function's reward for one response."""
    shown = response[:_SHOWN_CHARS]
    try:
        given = function(prompt, response, solutions)
        reward = None if given is None else float(given)
    except KeyboardInterrupt:
        raise
    # SystemExit, too, which would end this worker without a message.
    except BaseException as error:
        raise RuntimeError(
            f"reward {reference} raised {describe_error(error)}; the response was {shown!r}"
        ) from error
    if reward is not None and not is_usable(reward):
        raise RuntimeError(
            f"reward {reference} gave {reward}, expected a number from {-LARGEST_REWARD:g} to"
            f" {LARGEST_REWARD:g} or None; the response was {shown!r}"
        )
    return reward
