"""Settings of the demo in `experiments/sums`, as overrides, for tests that want any run."""

from __future__ import annotations

SUMS = (
    "data.path=sums",
    "data.template=plain",
    "generation.max_new_tokens=8",
    "device=cpu",
    "allocation=actor_gen:d2,*:p2",
    "max_tokens_per_microbatch=512",
    "num_steps=30",
)
"""Of `ppo-math` and its variants, without a model."""


def sums_with(*overrides: str) -> list[str]:
    """The demo's settings but for those that `overrides` replace, then these."""
    replaced = {override.partition("=")[0] for override in overrides}
    kept = [setting for setting in SUMS if setting.partition("=")[0] not in replaced]
    return [*kept, *overrides]
