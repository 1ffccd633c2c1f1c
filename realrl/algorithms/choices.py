"""Names of the variants that a config can choose; each docstring names the module that implements them."""

from __future__ import annotations

from typing import Literal

Aggregation = Literal["token", "sequence", "constant"]
"""How token losses become one loss: `aggregate`."""
Estimator = Literal["k1", "k2", "k3"]
"""Estimators of the KL divergence: `kl`."""
Level = Literal["token", "sequence"]
"""Whether an importance weight belongs to a token or to its response: `policy`."""
Importance = Literal["none", "truncate", "mask"]
"""Treatment of importance weights above their cap, or no weights at all: `policy`."""
