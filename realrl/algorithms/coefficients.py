"""Coefficients of a loss's terms that follow what a step measured."""

from __future__ import annotations

_LARGEST_ERROR = 0.2
"""The relative error beyond which a step changes the KL's coefficient no further."""


def adapted_kl_coef(kl_coef: float, kl: float, *, target: float, num_samples: int, horizon: int) -> float:
    """Return the KL's coefficient after a step of `num_samples` samples that found the divergence `kl`.

    It grows where the divergence is above `target`, in nats a response, and falls where it is below: by at
    most a fifth over `horizon` samples.

    Source: Ziegler et al. 2019, arXiv:1909.08593, sec. 2.2.
    """
    error = kl / target - 1
    bounded = min(max(error, -_LARGEST_ERROR), _LARGEST_ERROR)
    return kl_coef * (1 + bounded * num_samples / horizon)


def adapted_entropy_coef(entropy_coef: float, entropy: float, *, target: float, change: float) -> float:
    """Return the entropy bonus's coefficient after a step that found a mean entropy, in nats a token.

    It grows by `change` where the entropy is below `target`, and else falls by as much, down to 0.

    Source: He et al. 2025, arXiv:2505.22312, sec. 3.2.4 (Skywork-OR1).
    """
    if entropy < target:
        return entropy_coef + change
    return max(0.0, entropy_coef - change)
