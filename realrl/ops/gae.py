"""Generalised advantage estimation over packed sequences (Schulman et al. 2016, arXiv:1506.02438).

Shapes: B sequences, T rewards in total. Sequence i has the rewards `[cu_seqlens[i], cu_seqlens[i+1])` and one
value more, `values[cu_seqlens[i] + i : cu_seqlens[i+1] + i + 1]`. Its last value belongs to the state after
the last token. It is used only if `bootstrap` marks the sequence as cut off.
"""

from __future__ import annotations

import torch
from torch import Tensor

from realrl.ops import kernels


@torch.no_grad()
def gae(
    rewards: Tensor,
    values: Tensor,
    cu_seqlens: Tensor,
    bootstrap: Tensor,
    *,
    gamma: float,
    lam: float | Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the advantages and returns of each token, from the kernel for the tensors' device.

    `lam` is that of all sequences, or of each. `cu_seqlens`, `bootstrap` and `lam` may be on the host.

    Shapes: rewards `[T]` and values `[T+B]` float32, cu_seqlens int32 `[B+1]`, bootstrap bool `[B]`, a lam of
        each sequence float64 `[B]`; returns two `[T]` float32.
    Raises:
        ValueError: a type, a shape or a device that does not match.
    """
    lams = _of_sequences(lam, len(bootstrap))
    _check(rewards, values, cu_seqlens, bootstrap, lams)
    kernel = kernels.for_device(rewards.device)
    if kernel is None:
        return gae_reference(rewards, values, cu_seqlens, bootstrap, gamma=gamma, lam=lam)
    rewards = rewards.contiguous()
    values = values.contiguous()
    cu_seqlens = cu_seqlens.to(rewards.device).contiguous()
    bootstrap = bootstrap.to(rewards.device).contiguous()
    lams = lams.to(rewards.device).contiguous()
    advantages = torch.empty_like(rewards)
    returns = torch.empty_like(rewards)
    kernel.gae(
        rewards,
        values,
        cu_seqlens,
        bootstrap,
        lams,
        gamma,
        advantages,
        returns,
    )
    return advantages, returns


@torch.no_grad()
def gae_reference(
    rewards: Tensor,
    values: Tensor,
    cu_seqlens: Tensor,
    bootstrap: Tensor,
    *,
    gamma: float,
    lam: float | Tensor,
) -> tuple[Tensor, Tensor]:
    """Compute `gae` in PyTorch, with the recurrence as a scan by doubling.

    After the round with distance k, a token holds the discounted sum of its own and the next 2k - 1
    temporal-difference errors of its sequence.

    Shapes: as for `gae`.
    """
    sequence = _sequence_of_tokens(cu_seqlens.to(rewards.device))
    token = torch.arange(len(rewards), device=rewards.device)
    current = values.double()[token + sequence]
    following = _next_values(values, sequence, bootstrap)
    advantages = rewards.double() + gamma * following - current
    longest = 0
    if len(cu_seqlens) > 1:
        lengths = cu_seqlens.diff()
        longest = int(lengths.max())

    distance = 1
    lams = _of_sequences(lam, len(bootstrap)).to(rewards.device)
    weight = gamma * lams[sequence]
    while distance < longest:
        is_same_sequence = sequence[distance:] == sequence[:-distance]
        later = torch.where(is_same_sequence, advantages[distance:], 0.0)
        head = advantages[:-distance] + weight[:-distance] * later
        tail = advantages[-distance:]
        advantages = torch.cat((head, tail))

        distance = 2 * distance
        weight = weight * weight

    returns = advantages + current
    return advantages.float(), returns.float()


def _of_sequences(lam: float | Tensor, num_sequences: int) -> Tensor:
    """Return the lam of each sequence: float64 `[B]`."""
    if isinstance(lam, Tensor):
        return lam
    return torch.full((num_sequences,), lam, dtype=torch.double)


def _sequence_of_tokens(cu_seqlens: Tensor) -> Tensor:
    """Return the sequence of each token: int32 `[B+1]` to int64 `[T]`."""
    lengths = cu_seqlens.diff()
    sequences = torch.arange(len(lengths), device=lengths.device)
    return torch.repeat_interleave(sequences, lengths)


def _next_values(values: Tensor, sequence: Tensor, bootstrap: Tensor) -> Tensor:
    """Return the value of the state after each token.

    Shapes: values `[T+B]`, sequence int64 `[T]`, bootstrap bool `[B]`; returns float64 `[T]`.
    """
    device = sequence.device
    token = torch.arange(len(sequence), device=device)
    is_last = torch.ones_like(sequence, dtype=torch.bool)
    is_last[:-1] = sequence[1:] != sequence[:-1]
    bootstraps = bootstrap.to(device)[sequence]

    index = token + sequence + 1
    following = values.double()[index]
    # A sequence that ended by itself has no value after its last token.
    has_no_value = is_last & ~bootstraps
    return following.masked_fill(has_no_value, 0.0)


def _check(rewards: Tensor, values: Tensor, cu_seqlens: Tensor, bootstrap: Tensor, lams: Tensor) -> None:
    """Raise if an argument does not fit: the kernels read raw memory."""
    num_tokens = len(rewards)
    num_sequences = len(cu_seqlens) - 1
    num_bounds = max(num_sequences, 0) + 1
    _check_vector("rewards", rewards, torch.float32, num_tokens)
    _check_vector("values", values, torch.float32, num_tokens + num_sequences)
    _check_vector("cu_seqlens", cu_seqlens, torch.int32, num_bounds)
    _check_vector("bootstrap", bootstrap, torch.bool, num_sequences)
    _check_vector("lam", lams, torch.double, num_sequences)
    if values.device != rewards.device:
        raise ValueError(f"gae: rewards are on {rewards.device}, values on {values.device}")

    bounds = cu_seqlens.cpu()
    has_ends = bounds[0] == 0 and bounds[-1] == num_tokens
    if not has_ends or (bounds.diff() < 0).any():
        got = bounds.tolist()[:8]
        raise ValueError(f"gae: cu_seqlens must rise from 0 to {num_tokens}, got {got}…")


def _check_vector(name: str, tensor: Tensor, dtype: torch.dtype, length: int) -> None:
    if tensor.dtype != dtype or tensor.shape != (length,):
        got = f"{tensor.dtype} {list(tensor.shape)}"
        raise ValueError(f"gae: {name} must be {dtype} [{length}], got {got}")
