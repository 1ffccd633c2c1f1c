"""Rewards by functions of a user's own, named as `path/to/file.py:function`."""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

MATH = "math"
"""Stands for the verifier of mathematical answers."""
GYM = "gym"
"""Stands for the scorers of reasoning-gym's tasks."""
MODEL = "model"
"""Stands for a reward model."""

RewardFunction = Callable[[str, str, Sequence[str]], float]
"""`(prompt, response, solutions) -> reward`; the prompt is without its chat template."""


def weights_of(reward: str | Mapping[str, float]) -> dict[str, float]:
    """What rewards a response, each with its weight, from a config's `reward`.

    Raises:
        ValueError: there is none, a weight is not finite, or two say what is right.
    """
    weights = {reward: 1.0} if isinstance(reward, str) else dict(reward)
    if not weights:
        raise ValueError(
            "reward: expected `math`, `gym`, `model`, a path/to/file.py:function, or several with weights,"
            " got none"
        )
    for name, weight in weights.items():
        if not math.isfinite(weight):
            raise ValueError(f"reward.{name}: expected a finite weight, got {weight}")
    if {MATH, GYM} <= weights.keys():
        raise ValueError("reward: both `math` and `gym` say what is right; give one of them")
    return weights


@functools.cache
def load_function(reference: str) -> RewardFunction:
    """The function of a Python file, which is run for that.

    Raises:
        ValueError: it names no file, the file cannot be run, or has no such function.
    """
    path, _, name = reference.rpartition(":")
    if not path.endswith(".py") or not name.isidentifier():
        raise ValueError(
            f"reward: expected `math`, `gym`, `model` or a path/to/file.py:function, got {reference!r}"
        )
    if not Path(path).is_file():
        raise ValueError(f"reward: {path} is no file; give the path of a Python file, from here or absolute")
    spec = importlib.util.spec_from_file_location(f"realrl_reward_{Path(path).stem}", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a user's file raises
        raise ValueError(
            f"reward: {path} cannot be loaded ({type(error).__name__}: {error}); mend it"
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        raise ValueError(f"reward: {path} has no function {name!r}; it has {_functions(module)}")
    return function


def rewards_by(
    reference: str, prompts: Sequence[str], responses: Sequence[str], solutions: Sequence[Sequence[str]]
) -> list[float]:
    """What a function says of each response.

    Raises:
        RuntimeError: it raised, or gave no finite number.
    """
    function = load_function(reference)
    rewards = []
    for case in zip(prompts, responses, solutions, strict=True):
        try:
            reward = float(function(*case))
        except Exception as error:
            raise RuntimeError(
                f"reward {reference} raised {type(error).__name__}: {error}; the response was"
                f" {case[1][:200]!r}"
            ) from error
        if not math.isfinite(reward):
            raise RuntimeError(f"reward {reference} gave {reward}; the response was {case[1][:200]!r}")
        rewards.append(reward)
    return rewards


def _functions(module: object) -> str:
    names = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
    return ", ".join(names) or "none"
