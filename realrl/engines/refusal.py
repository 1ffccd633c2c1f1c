"""Refusals of what an engine cannot compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from torch import Tensor

from realrl.api.batch import PackedBatch
from realrl.api.config import GenerationConfig
from realrl.api.engine import NO_PREEMPTION, Ends, Loss, Preemption
from realrl.api.metrics import Metrics


class RefusesScoring:
    """An engine without `Infers` and `Trains`: every such method raises ValueError."""

    def __init__(self, why: str) -> None:
        """`why`: the end of the error's sentence, which says what to do."""
        self._why = why

    def logprobs(self, batch: PackedBatch, *, temperature: float) -> Tensor | None:
        """Raise ValueError."""
        self._refuse("logprobs")

    def logprobs_and_entropies(
        self, batch: PackedBatch, *, temperature: float
    ) -> tuple[Tensor, Tensor] | None:
        """Raise ValueError."""
        self._refuse("logprobs_and_entropies")

    def values(self, batch: PackedBatch) -> Tensor | None:
        """Raise ValueError."""
        self._refuse("values")

    def train_logprobs(
        self,
        batch: PackedBatch,
        loss: Loss,
        *,
        lr: float,
        temperature: float,
        whole_rows: bool = False,
        accept: Callable[[], bool] = lambda: True,
    ) -> Metrics:
        """Raise ValueError."""
        self._refuse("train_logprobs")

    def train_values(self, batch: PackedBatch, loss: Loss, *, lr: float, whole_rows: bool = False) -> Metrics:
        """Raise ValueError."""
        self._refuse("train_values")

    def _refuse(self, method: str) -> NoReturn:
        raise ValueError(f"engine.{method}: {self._why}")


class NoEngine(RefusesScoring):
    """The engine of a compute call, which has no model: it refuses everything."""

    def __init__(self, call: str) -> None:
        super().__init__(
            f"the call {call} has no model; name one in the recipe's graph, or compute without an engine"
        )

    def generate(
        self,
        batch: PackedBatch,
        config: GenerationConfig,
        *,
        seed: int,
        step: int,
        ends: Ends | None = None,
        preemption: Preemption = NO_PREEMPTION,
    ) -> PackedBatch:
        """Raise ValueError."""
        self._refuse("generate")
