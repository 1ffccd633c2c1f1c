"""Which of a run's rewards are functions, look at samples, or are seen one by one by the estimator."""

from __future__ import annotations

from realrl.base.user_files import is_file_reference
from realrl.recipes.parts.config import AdvantageConfig, PolicyConfig
from realrl.rewards.functions import BUILT_IN, JUDGE, RewardFunction, load_function

GDPO = "gdpo"
"""The estimator that looks at each reward by itself."""
OVERLONG = "overlong"
"""The penalty of long responses, as one of several rewards."""


def own_functions(config: PolicyConfig) -> list[RewardFunction]:
    """Return the reward functions of a user's own.

    Raises:
        ValueError: one cannot be loaded.
    """
    return [load_function(name) for name in config.reward_names if name not in BUILT_IN]


def looks_at_samples(config: PolicyConfig) -> bool:
    """Whether some reward looks at more of a response than a verifier does."""
    return any(name == JUDGE or name not in BUILT_IN for name in config.reward_names)


def part_names(config: PolicyConfig) -> tuple[str, ...]:
    """Return the rewards that the estimator sees one by one; none where it sees their sum alone."""
    advantage = config.advantage if isinstance(config, AdvantageConfig) else None
    if advantage is None or not (advantage == GDPO or is_file_reference(advantage)):
        return ()
    if config.scores.overlong_tokens:
        return (*config.reward_names, OVERLONG)
    return config.reward_names


def part_keys(config: PolicyConfig) -> tuple[str, ...]:
    """Return the keys of a batch that hold these rewards, in the same order."""
    return tuple(f"reward_part_{number}" for number in range(len(part_names(config))))
