"""Settings of `DecoderEngine`."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from realrl.api.config import OptimizerConfig


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How an engine computes. None of it changes what is computed, except by rounding."""

    dtype: torch.dtype
    """Type of weights and activations."""
    device: torch.device | str
    max_tokens_per_microbatch: int
    """Token budget of one forward and backward pass, and of a prefill."""
    share_prompts: bool = True
    """Compute a prompt once for all of its samples in a micro-batch."""
    deterministic: bool = False
    """Use products of one shape only, so that a token's log-probability has the same bits in every pass."""
    gradient_checkpointing: bool = False
    """Keep only each layer's input for the backward pass, and recompute the layer."""
    sequence_pieces: int = 0
    """Spread tokens over tensor-parallel ranks outside of products, in this many pieces (0: never)."""
    add_products: bool | None = None
    """Whether the product that computes a matrix's gradient also adds it to the sum over micro-batches, and
    is deferred in pipelines; None: on CUDA. On CPUs this gains nothing: deferred products took longer than
    the idle time that they filled."""
    sum_early: bool = False
    """Whether data-parallel ranks sum complete gradients while the last backward passes run. Requires
    `add_products`."""
    optimizer: OptimizerConfig | None = None
    """How the weights are trained; None for weights that are not."""

    @property
    def torch_device(self) -> torch.device:
        """Return the device as PyTorch's type."""
        return torch.device(self.device)

    @property
    def adds_products(self) -> bool:
        """Return `add_products`, or its default on the device."""
        if self.add_products is None:
            return self.torch_device.type == "cuda"
        return self.add_products
