"""Names of the variants that a config can choose; each docstring names the module that implements them."""

from __future__ import annotations

from typing import Literal

Aggregation = Literal["token", "sequence", "prompt", "constant"]
"""How token losses become one loss: `aggregate`."""
Estimator = Literal["k1", "k2", "k3", "k3+"]
"""Estimators of the KL divergence: `kl`."""
WeightBy = Literal["none", "token", "sequence", "geometric"]
"""Whose importance weight a token has: its own, or its response's product or geometric mean: `correction`."""
MaskBy = Literal["none", "token", "sequence", "geometric", "binary_kl"]
"""What is looked at to leave tokens out of the loss: `correction`."""
CorrectionName = Literal[
    "none", "tis", "sequence-tis", "sequence-mis", "icepop", "kpop", "geo-rs", "seq-mask-tis"
]
"""Published combinations of a weight and a mask: `presets`."""
