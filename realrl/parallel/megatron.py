"""What tensor parallelism takes from Megatron-Core, which takes seconds to import: not a matter of course."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _absent(package: str) -> Iterator[None]:
    """Let imports of a package fail meanwhile, unless it is imported already."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None
    try:
        yield
    finally:
        del sys.modules[package]


# Megatron-Core imports wandb where it is installed; that makes a temporary folder in every worker, which one
# that is killed leaves behind.
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
