"""A small recipe config of every kind of field, for the tests of loading."""

from __future__ import annotations

from dataclasses import dataclass, field

from realrl.api.config import GenerationConfig, ModelConfig, OptimizerConfig, TrainingConfig


@dataclass(frozen=True, kw_only=True)
class TrainedConfig:
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)


@dataclass(frozen=True, kw_only=True)
class SmallConfig(TrainingConfig):
    """A recipe's config."""

    experiment: str = "small"
    note: str | None = None
    actor: TrainedConfig = field(default_factory=TrainedConfig)
    critic: TrainedConfig | None = None
    generation: GenerationConfig = field(default_factory=GenerationConfig)


DEFAULT = SmallConfig(actor=TrainedConfig(optimizer=OptimizerConfig(lr=3e-4, warmup_steps=5)))
