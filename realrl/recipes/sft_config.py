"""What can be set of `sft`."""

from __future__ import annotations

from dataclasses import dataclass, field

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
