"""Names of the variants that a config chooses from; their code is in the module that takes the name."""

from __future__ import annotations

from typing import Literal

Aggregation = Literal["token", "sequence", "constant"]
"""How token losses become one loss: `aggregate`."""
Estimator = Literal["k1", "k2", "k3"]
"""Estimators of the KL divergence: `kl`."""
Level = Literal["token", "sequence"]
"""Whether a ratio belongs to a token or to its response: `policy`."""
Surrogate = Literal["ppo", "cispo"]
"""Objectives of the policy: `policy`."""
Importance = Literal["none", "truncate", "mask"]
"""What becomes of importance weights above their cap, or that there are none: `policy`."""
