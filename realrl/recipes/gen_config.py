"""What can be set of `gen`."""

from __future__ import annotations

from dataclasses import dataclass, field

from realrl.api.config import GenerationConfig, ModelConfig, RunConfig
from realrl.api.data import DataConfig
from realrl.base.require import require_at_most


@dataclass(frozen=True, kw_only=True)
class GenConfig(RunConfig):
    """Answers to prompts, written to a file and graded where there are solutions; nothing is trained."""

    experiment: str = "gen"
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    num_samples: int = 1
    """Sampled answers to each prompt."""
    greedy: bool = False
    """One greedy answer to each before these."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_most(self, 2**16, "num_samples")
        if self.num_samples < 0 or not self.samples_per_row:
            raise ValueError(
                f"num_samples must be at least 1, or 0 with greedy: true, got {self.num_samples}"
            )
        if self.generation.temperature == 0 and self.samples_per_row > 1:
            raise ValueError(
                "num_samples: with generation.temperature=0 all answers to a prompt are the same; raise that,"
                " or leave num_samples 1 and greedy false"
            )
        if self.data.eval_path is not None:
            raise ValueError("data.eval_path: nothing is trained here; give the file as data.path")
        if self.generation.interruptible:
            raise ValueError(
                "generation.interruptible: nothing is trained here, so no new weights come; leave this false"
            )

    @property
    def samples_per_row(self) -> int:
        return self.num_samples + self.greedy
