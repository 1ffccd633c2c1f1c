"""What can be set of `dpo`."""

from __future__ import annotations

from dataclasses import dataclass, field

from realrl.api.config import ModelConfig, OptimizerConfig, TrainingConfig
from realrl.api.data import DataConfig


@dataclass(frozen=True, kw_only=True)
class DPOConfig(TrainingConfig):
    """Direct preference optimisation on pairs of responses."""

    experiment: str = "dpo"
    batch_size: int = 16
    model: ModelConfig = field(default_factory=ModelConfig)
    ref: ModelConfig | None = None
    """The reference policy; left out, the model as it was loaded."""
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=1e-6))
    data: DataConfig = field(default_factory=DataConfig)
    beta: float = 0.1
    """How far the model may move from the reference: the less, the further."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beta <= 0:
            raise ValueError(f"beta must be positive, got {self.beta}")
