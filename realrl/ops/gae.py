"""Generalised advantage estimation over packed sequences (Schulman et al. 2016, arXiv:1506.02438).

Shapes: B sequences, T rewards in all; sequence i has rewards `[cu_seqlens[i], cu_seqlens[i+1])` and one
value more than rewards, `values[cu_seqlens[i] + i : cu_seqlens[i+1] + i + 1]`. The last of them is the
value of the state after the last token, used only where `bootstrap` says that the sequence was cut off.
"""

from __future__ import annotations

import torch
from torch import Tensor

from realrl.ops import kernels


@torch.no_grad()
def gae(
    rewards: Tensor, values: Tensor, cu_seqlens: Tensor, bootstrap: Tensor, *, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Advantages and returns of each token, by the kernel for the tensors' device.

    Shapes: rewards `[T]` and values `[T+B]` float32, cu_seqlens int32 `[B+1]`, bootstrap bool `[B]`;
        returns two `[T]` float32. `cu_seqlens` and `bootstrap` may stay on the host.
    Raises:
        ValueError: a type or a shape that does not fit.
    """
    _check(rewards, values, cu_seqlens, bootstrap)
    kernel = kernels.for_device(rewards.device)
    if kernel is None:
        return gae_reference(rewards, values, cu_seqlens, bootstrap, gamma=gamma, lam=lam)
    rewards, values = rewards.contiguous(), values.contiguous()
    cu_seqlens, bootstrap = (x.to(rewards.device).contiguous() for x in (cu_seqlens, bootstrap))
    advantages, returns = torch.empty_like(rewards), torch.empty_like(rewards)
    kernel.gae(rewards, values, cu_seqlens, bootstrap, gamma, lam, advantages, returns)
    return advantages, returns


@torch.no_grad()
def gae_reference(
    rewards: Tensor, values: Tensor, cu_seqlens: Tensor, bootstrap: Tensor, *, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """The kernels' twin, in PyTorch: the recurrence as a scan by doubling.

    After the round with distance k, a token holds the discounted sum of its own and the next 2k - 1
    temporal-difference errors of its sequence.
    """
    sequence = _sequence_of_tokens(cu_seqlens.to(rewards.device))
    token = torch.arange(len(rewards), device=rewards.device)
    current = values.double()[token + sequence]
    advantages = rewards.double() + gamma * _next_values(values, sequence, bootstrap) - current
    distance, weight = 1, gamma * lam
    longest = int(cu_seqlens.diff().max()) if len(cu_seqlens) > 1 else 0
    while distance < longest:
        same = sequence[distance:] == sequence[:-distance]
        later = torch.where(same, advantages[distance:], 0.0)
        advantages = torch.cat((advantages[:-distance] + weight * later, advantages[-distance:]))
        distance, weight = 2 * distance, weight * weight
    return advantages.float(), (advantages + current).float()


def _sequence_of_tokens(cu_seqlens: Tensor) -> Tensor:
    lengths = cu_seqlens.diff()
    return torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)


def _next_values(values: Tensor, sequence: Tensor, bootstrap: Tensor) -> Tensor:
    token = torch.arange(len(sequence), device=sequence.device)
    is_last = torch.ones_like(sequence, dtype=torch.bool)
    is_last[:-1] = sequence[1:] != sequence[:-1]
    worthless = is_last & ~bootstrap.to(sequence.device)[sequence]
    return values.double()[token + sequence + 1].masked_fill(worthless, 0.0)


def _check(rewards: Tensor, values: Tensor, cu_seqlens: Tensor, bootstrap: Tensor) -> None:
    """The kernels read raw memory, so what does not fit is refused here."""
    num_sequences = len(cu_seqlens) - 1
    expected = {
        "rewards": (rewards, torch.float32, len(rewards)),
        "values": (values, torch.float32, len(rewards) + num_sequences),
        "cu_seqlens": (cu_seqlens, torch.int32, max(num_sequences, 0) + 1),
        "bootstrap": (bootstrap, torch.bool, num_sequences),
    }
    for name, (tensor, dtype, length) in expected.items():
        if tensor.dtype != dtype or tensor.shape != (length,):
            got = f"{tensor.dtype} {list(tensor.shape)}"
            raise ValueError(f"gae: {name} must be {dtype} [{length}], got {got}")
    if values.device != rewards.device:
        raise ValueError(f"gae: rewards are on {rewards.device}, values on {values.device}")
    bounds = cu_seqlens.cpu()
    if bounds[0] != 0 or bounds[-1] != len(rewards) or (bounds.diff() < 0).any():
        raise ValueError(f"gae: cu_seqlens must rise from 0 to {len(rewards)}, got {bounds.tolist()[:8]}…")
