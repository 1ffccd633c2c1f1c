"""What can be set of `sft`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from realrl.api.config import ModelConfig, OptimizerConfig, TrainingConfig
from realrl.api.data import DataConfig


@dataclass(frozen=True, kw_only=True)
class SFTConfig(TrainingConfig):
    """Supervised fine-tuning on demonstrations."""

    experiment: str = "sft"
    batch_size: int = 16
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    verdicts: tuple[str, ...] = ("correct",)
    """Rows that have a `verdict`, as those that `gen` writes, are learned from if it is one of these; others
    are dropped, and counted. Rows without one always are learned from. Empty: whatever the verdict."""
    truncated: Literal["drop", "learn"] = "drop"
    """Rows with `ended: false`, as `gen` writes for responses that were cut off, are dropped, and counted; or
    learned from without a token that ends them."""
