"""Pure maths: advantages, losses, KL, normalisation, schedules; imported at their first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from realrl.base.lazy import lazy_submodules

if TYPE_CHECKING:
    from realrl.algorithms import (
        advantages,
        aggregate,
        choices,
        coefficients,
        correction,
        kl,
        learning_rate,
        normalise,
        pass_at_k,
        policy,
        preference,
        presets,
        running,
        scores,
        selection,
        value,
    )
else:
    __getattr__ = lazy_submodules(
        __name__,
        "advantages",
        "aggregate",
        "choices",
        "coefficients",
        "correction",
        "kl",
        "learning_rate",
        "normalise",
        "pass_at_k",
        "policy",
        "preference",
        "presets",
        "running",
        "scores",
        "selection",
        "value",
    )

__all__ = [
    "advantages",
    "aggregate",
    "choices",
    "coefficients",
    "correction",
    "kl",
    "learning_rate",
    "normalise",
    "pass_at_k",
    "policy",
    "preference",
    "presets",
    "running",
    "scores",
    "selection",
    "value",
]
