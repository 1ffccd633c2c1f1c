"""Rewards by functions of a user's own, named as `path/to/file.py:function`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from realrl.base.progress import Progress, counted, no_progress
from realrl.base.user_code import is_reference, load_user_function, named

MATH = "math"
"""Stands for the verifier of mathematical answers."""
GYM = "gym"
"""Stands for the scorers of reasoning-gym's tasks."""
MODEL = "model"
"""Stands for a reward model."""

LARGEST_REWARD = 1e30
"""Bound on the absolute value of a reward: sums and products of larger ones overflow float32."""

RewardFunction = Callable[[str, str, Sequence[str]], float | None]
"""`(prompt, response, solutions) -> reward`, or None for no opinion; the prompt is without its template."""


def weights_of(reward: str | Mapping[str, float]) -> dict[str, float]:
    """What rewards a response, each with its weight, from a config's `reward`.

    Raises:
        ValueError: there is none, a weight is not finite or too large, or two say what is right.
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
    """Whether a number can be a reward: finite, and not too large to be summed."""
    return math.isfinite(reward) and abs(reward) <= LARGEST_REWARD


def load_function(reference: str) -> RewardFunction:
    """Return the function of a Python file, which is run for that.

    Raises:
        ValueError: it names no file, the file cannot be run, has no such function, or one that cannot be
            called with a prompt, a response and solutions.
    """
    if not is_reference(reference):
        raise ValueError(
            f"reward: expected `math`, `gym`, `model` or a path/to/file.py:function, got {reference!r}"
        )
    form = "f(prompt, response, solutions): two texts and the list of right answers"
    function: RewardFunction = load_user_function("reward", reference, 3, form)
    return function


def rewards_by(
    reference: str,
    prompts: Sequence[str],
    responses: Sequence[str],
    solutions: Sequence[Sequence[str]],
    progress: Progress = no_progress,
) -> list[float | None]:
    """What a function says of each response; None where it has no opinion.

    Raises:
        RuntimeError: it raised, or gave no number that can be a reward.
    """
    function = load_function(reference)
    cases = zip(prompts, responses, solutions, strict=True)
    rewards = (_reward(reference, function, *case) for case in cases)
    return list(counted(rewards, len(responses), progress))


def _reward(
    reference: str, function: RewardFunction, prompt: str, response: str, solutions: Sequence[str]
) -> float | None:
    try:
        given = function(prompt, response, solutions)
        reward = None if given is None else float(given)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too, which would end this worker without a word
        raise RuntimeError(
            f"reward {reference} raised {named(error)}; the response was {response[:200]!r}"
        ) from error
    if reward is not None and not is_usable(reward):
        raise RuntimeError(
            f"reward {reference} gave {reward}, expected a number from {-LARGEST_REWARD:g} to"
            f" {LARGEST_REWARD:g} or None; the response was {response[:200]!r}"
        )
    return reward
