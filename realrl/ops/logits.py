"""From logits to log-probabilities and entropies without a float32 copy of the logits, and back.

Shapes: T tokens, V columns: the ids of one tensor-parallel rank and then its padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from realrl.ops import kernels

LARGEST, SUM, WEIGHTED, LABEL = range(4)
"""Columns of a row's statistics, as `RowStatistics` in csrc/logits.h explains them."""

_TYPES = (torch.float32, torch.bfloat16)
_LEAST = torch.finfo(torch.float32).min


@dataclass(frozen=True, kw_only=True)
class LogitsMap:
    """Which ids the columns stand for, and how a logit is scaled.

    A logit x stands for x / temperature; with a cap, for cap * tanh(x / cap) / temperature.
    """

    first: int
    """The id of the first column."""
    num_real: int
    """Columns that stand for ids; the others are padding."""
    temperature: float = 1.0
    softcap: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("temperature", self.temperature), ("softcap", self.softcap)):
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be above 0, got {value}")


class TokenLogprobs(NamedTuple):
    """What a distribution gives its label, float32 `[T]` each."""

    logprobs: Tensor
    entropy: Tensor
    logsumexp: Tensor


@torch.no_grad()
def statistics(logits: Tensor, labels: Tensor, mapping: LogitsMap) -> Tensor:
    """What `finish` needs of each row, in one pass over the logits.

    A row's statistics depend on that row alone, bit for bit.

    Shapes: logits `[T, V]`, labels int64 `[T]` (any id, here or not); returns float32 `[T, 4]`.
    """
    _check(logits, labels, mapping)
    kernel = _kernel(logits)
    if kernel is None:
        return statistics_reference(logits, labels, mapping)
    found = torch.empty(len(logits), 4, dtype=torch.float32, device=logits.device)
    if len(logits):
        kernel.logits_statistics(logits, labels.contiguous(), _fields(mapping), found)
    return found


@torch.no_grad()
def finish(parts: Tensor) -> TokenLogprobs:
    """Join the statistics of the parts of a vocabulary.

    A label in no part has the log-probability -inf.

    Shapes: parts `[P, T, 4]`.
    """
    parts = parts.double()
    largest = parts[..., LARGEST].amax(dim=0)
    total, weighted = torch.zeros_like(largest), torch.zeros_like(largest)
    # One by one: a sum over a dim may take another order elsewhere in the tensor.
    for part in parts:
        shift = part[:, LARGEST] - largest
        factor = shift.exp()
        total += factor * part[:, SUM]
        weighted += factor * (part[:, WEIGHTED] + shift.clamp(min=-1e3) * part[:, SUM])
    log_total = total.log()
    label = parts[..., LABEL].amax(dim=0)
    found = label - largest - log_total, log_total - weighted / total, largest + log_total
    return TokenLogprobs(*(x.float() for x in found))


@torch.no_grad()
def gradient_(
    logits: Tensor,
    labels: Tensor,
    mapping: LogitsMap,
    found: TokenLogprobs,
    grad_logprobs: Tensor | None,
    grad_entropy: Tensor | None,
) -> Tensor:
    """Put d loss / d logits in the place of the logits, 0 in that of their padding, and return it.

    Shapes: logits `[T, V]`, labels int64 `[T]`, gradients float32 `[T]` or None for 0.
    """
    _check(logits, labels, mapping)
    gradients = tuple(
        torch.zeros_like(found.logsumexp) if g is None else g.float().contiguous()
        for g in (grad_logprobs, grad_entropy)
    )
    kernel = _kernel(logits)
    if kernel is None:
        return logits.copy_(gradient_reference(logits, labels, mapping, found, *gradients))
    if len(logits):
        rows = found.logsumexp, found.entropy, *gradients
        kernel.logits_gradient(logits, labels.contiguous(), _fields(mapping), *rows)
    return logits


def statistics_reference(logits: Tensor, labels: Tensor, mapping: LogitsMap) -> Tensor:
    """The kernels' twin, in PyTorch."""
    z, _ = _scaled(logits, mapping)
    if not mapping.num_real:
        return torch.tensor((_LEAST, 0.0, 0.0, -torch.inf), device=logits.device).repeat(len(logits), 1)
    largest = z.amax(dim=-1).clamp(min=_LEAST)
    shifted = z - largest[:, None]
    terms = shifted.exp()
    weighted = (terms * shifted.clamp(min=-1e3)).sum(dim=-1)
    label, is_here = _columns_of(labels, mapping)
    own = z.gather(-1, label[:, None])[:, 0].masked_fill(~is_here, -torch.inf)
    return torch.stack((largest, terms.sum(dim=-1), weighted, own), dim=-1)


def gradient_reference(
    logits: Tensor,
    labels: Tensor,
    mapping: LogitsMap,
    found: TokenLogprobs,
    grad_logprobs: Tensor,
    grad_entropy: Tensor,
) -> Tensor:
    """The kernels' twin, in PyTorch, on a tensor of its own: float32 `[T, V]`."""
    gradient = torch.zeros(logits.shape, dtype=torch.float32, device=logits.device)
    if not mapping.num_real:
        return gradient
    z, slope = _scaled(logits, mapping)
    logp = (z - found.logsumexp[:, None]).clamp(min=-1e3)
    of_z = -logp.exp() * (grad_logprobs[:, None] + grad_entropy[:, None] * (logp + found.entropy[:, None]))
    label, is_here = _columns_of(labels, mapping)
    of_z.scatter_add_(-1, label[:, None], torch.where(is_here, grad_logprobs, 0)[:, None])
    gradient[:, : mapping.num_real] = of_z * slope
    return gradient


def _scaled(logits: Tensor, mapping: LogitsMap) -> tuple[Tensor, Tensor | float]:
    """z of the real columns in float32, and its derivative."""
    x, cap = logits[:, : mapping.num_real].float(), mapping.softcap
    if cap is None:
        return x / mapping.temperature, 1 / mapping.temperature
    bounded = (x / cap).tanh()
    return bounded * cap / mapping.temperature, (1 - bounded.square()) / mapping.temperature


def _columns_of(labels: Tensor, mapping: LogitsMap) -> tuple[Tensor, Tensor]:
    """Each label's column, some column where it is not here, and whether it is."""
    column = labels - mapping.first
    is_here = (column >= 0) & (column < mapping.num_real)
    return column.masked_fill(~is_here, 0), is_here


def _fields(mapping: LogitsMap) -> tuple[int, int, float, float]:
    return mapping.num_real, mapping.first, mapping.temperature, mapping.softcap or 0.0


def _kernel(logits: Tensor) -> kernels.Kernels | None:
    fits = logits.dtype in _TYPES and logits.is_contiguous()
    return kernels.for_device(logits.device) if fits else None


def _check(logits: Tensor, labels: Tensor, mapping: LogitsMap) -> None:
    """The kernels read raw memory, so what does not fit is refused here."""
    if logits.dim() != 2 or not 0 <= mapping.num_real <= logits.shape[1]:
        raise ValueError(f"logits: expected [T, {mapping.num_real} or more], got {list(logits.shape)}")
    if labels.dtype != torch.int64 or labels.shape != logits.shape[:1] or labels.device != logits.device:
        got = f"{labels.dtype} {list(labels.shape)} on {labels.device}"
        raise ValueError(f"logits: labels must be torch.int64 [{len(logits)}] on {logits.device}, got {got}")
