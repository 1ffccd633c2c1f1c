"""What can be set of `rw`."""

from __future__ import annotations

from dataclasses import dataclass, field

from realrl.api.config import ModelConfig, OptimizerConfig, TrainingConfig
from realrl.api.data import DataConfig


@dataclass(frozen=True, kw_only=True)
class RewardModelConfig(TrainingConfig):
    """A reward model, trained on pairs of responses."""

    experiment: str = "rw"
    batch_size: int = 16
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=1e-5))
    data: DataConfig = field(default_factory=DataConfig)
