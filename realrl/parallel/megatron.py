"""What tensor parallelism takes from Megatron-Core, which takes seconds to import: not a matter of course."""

import warnings

with warnings.catch_warnings():
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
