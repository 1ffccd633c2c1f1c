"""The functions of Megatron-Core that tensor parallelism uses; to import them takes seconds."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


@contextmanager
def _absent(package: str) -> Iterator[None]:
    """Make imports of a package fail within the context, unless it is imported already."""
    if package in sys.modules:
        yield
        return

    # Python's mark of a module that is not to be imported.
    modules: dict[str, ModuleType | None] = sys.modules  # type: ignore[assignment]
    modules[package] = None
    try:
        yield
    finally:
        del sys.modules[package]


# Megatron-Core imports wandb if it is installed. wandb then creates a temporary folder in every worker, and a
# killed worker leaves it behind.
with warnings.catch_warnings(), _absent("wandb"):
    warnings.filterwarnings("ignore", "Transformer Engine and Apex are not installed")
    from megatron.core.tensor_parallel.layers import linear_with_grad_accumulation_and_async_allreduce
    from megatron.core.tensor_parallel.mappings import (
        copy_to_tensor_model_parallel_region,
        reduce_from_tensor_model_parallel_region,
    )

__all__ = [
    "copy_to_tensor_model_parallel_region",
    "linear_with_grad_accumulation_and_async_allreduce",
    "reduce_from_tensor_model_parallel_region",
]
