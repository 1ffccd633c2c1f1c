"""Compute log-probabilities, entropies and their gradients without a float32 copy of the logits.

Shapes: T tokens, V columns. The columns are the ids of one tensor-parallel rank, followed by its padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from realrl.ops import kernels

LARGEST, SUM, WEIGHTED, LABEL = range(4)
"""Columns of a row's statistics; `RowStatistics` in csrc/logits.h defines them."""

_TYPES = (torch.float32, torch.bfloat16)
_LEAST = torch.finfo(torch.float32).min


@dataclass(frozen=True, kw_only=True)
class LogitsMap:
    """The mapping from columns to ids, and the scaling of logits.

    A logit x is scaled to x / temperature, or to cap * tanh(x / cap) / temperature with a soft cap.
    """

    first: int
    """The id of the first column."""
    num_real: int
    """The number of columns that are ids; the columns after them are padding."""
    temperature: float = 1.0
    """The divisor of the logits, after the soft cap."""
    softcap: float | None = None
    """The bound on the absolute value of a logit; None: no bound."""

    def __post_init__(self) -> None:
        for name, value in (("temperature", self.temperature), ("softcap", self.softcap)):
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be above 0, got {value}")


class TokenLogprobs(NamedTuple):
    """The log-probability of each label, and the entropy and logsumexp of each row: float32 `[T]`."""

    logprobs: Tensor
    entropy: Tensor
    logsumexp: Tensor


@torch.no_grad()
def statistics(logits: Tensor, labels: Tensor, mapping: LogitsMap) -> Tensor:
    """Return the statistics of each row that `finish` needs, in one pass over the logits.

    A row's statistics are bitwise independent of other rows. A label may be an id of another rank.

    Shapes: logits `[T, V]`, labels int64 `[T]`; returns float32 `[T, 4]`.
    Raises:
        ValueError: a type, a shape or a device that does not match.
    """
    _check(logits, labels, mapping)
    kernel = _kernel(logits)
    if kernel is None:
        return statistics_reference(logits, labels, mapping)
    found = torch.empty(
        len(logits),
        4,
        dtype=torch.float32,
        device=logits.device,
    )
    if len(logits):
        kernel.logits_statistics(
            logits,
            labels.contiguous(),
            _fields(mapping),
            found,
        )
    return found


@torch.no_grad()
def finish(parts: Tensor) -> TokenLogprobs:
    """Combine the statistics of the P parts of a vocabulary.

    A label that is in no part has the log-probability -inf.

    Shapes: parts `[P, T, 4]`.
    """
    parts = parts.double()
    largest = parts[..., LARGEST].amax(dim=0)
    total = torch.zeros_like(largest)
    weighted = torch.zeros_like(largest)
    # One part at a time: the order of a sum over a dim may depend on the position in the tensor.
    for part in parts:
        part_sum = part[:, SUM]
        shift = part[:, LARGEST] - largest
        factor = shift.exp()
        total += factor * part_sum
        # Below -1e3 the factor is 0, so that the clamp only keeps the product small.
        bounded = shift.clamp(min=-1e3)
        part_weighted = part[:, WEIGHTED] + bounded * part_sum
        weighted += factor * part_weighted

    log_total = total.log()
    label = parts[..., LABEL].amax(dim=0)
    logprobs = label - largest - log_total
    entropy = log_total - weighted / total
    logsumexp = largest + log_total
    return TokenLogprobs(
        logprobs.float(),
        entropy.float(),
        logsumexp.float(),
    )


@torch.no_grad()
def gradient_(
    logits: Tensor,
    labels: Tensor,
    mapping: LogitsMap,
    found: TokenLogprobs,
    grad_logprobs: Tensor | None,
    grad_entropy: Tensor | None,
) -> Tensor:
    """Overwrite the logits with the loss's gradient with respect to them, and return it.

    The gradient of padding is 0.

    Shapes: logits `[T, V]`, labels int64 `[T]`, gradients float32 `[T]` or None for 0.
    Raises:
        ValueError: a type, a shape or a device that does not match.
    """
    _check(logits, labels, mapping)
    of_logprobs = _gradient_or_zeros(grad_logprobs, found)
    of_entropy = _gradient_or_zeros(grad_entropy, found)
    kernel = _kernel(logits)
    if kernel is None:
        gradient = gradient_reference(logits, labels, mapping, found, of_logprobs, of_entropy)
        return logits.copy_(gradient)

    if len(logits):
        kernel.logits_gradient(
            logits,
            labels.contiguous(),
            _fields(mapping),
            found.logsumexp,
            found.entropy,
            of_logprobs,
            of_entropy,
        )
    return logits


def _gradient_or_zeros(gradient: Tensor | None, found: TokenLogprobs) -> Tensor:
    """Return a gradient that may be None: float32 `[T]`."""
    if gradient is None:
        return torch.zeros_like(found.logsumexp)
    return gradient.float().contiguous()


def statistics_reference(logits: Tensor, labels: Tensor, mapping: LogitsMap) -> Tensor:
    """Compute `statistics` in PyTorch.

    Shapes: as for `statistics`.
    """
    z, _ = _scaled(logits, mapping)
    if not mapping.num_real:
        # A part without ids adds nothing to a sum and has no label.
        row = torch.tensor((_LEAST, 0.0, 0.0, -torch.inf), device=logits.device)
        return row.repeat(len(logits), 1)

    largest = z.amax(dim=-1).clamp(min=_LEAST)
    shifted = z - largest[:, None]
    terms = shifted.exp()
    # The clamp keeps 0 * -inf from becoming NaN.
    finite = shifted.clamp(min=-1e3)
    weighted = (terms * finite).sum(dim=-1)
    total = terms.sum(dim=-1)

    column, is_here = _columns_of(labels, mapping)
    label = z.gather(-1, column[:, None])[:, 0]
    label = label.masked_fill(~is_here, -torch.inf)
    return torch.stack((largest, total, weighted, label), dim=-1)


def gradient_reference(
    logits: Tensor,
    labels: Tensor,
    mapping: LogitsMap,
    found: TokenLogprobs,
    grad_logprobs: Tensor,
    grad_entropy: Tensor,
) -> Tensor:
    """Return the gradient of the logits as a new tensor, computed in PyTorch.

    Shapes: as for `gradient_`; returns float32 `[T, V]`.
    """
    gradient = torch.zeros(
        logits.shape,
        dtype=torch.float32,
        device=logits.device,
    )
    if not mapping.num_real:
        return gradient

    z, slope = _scaled(logits, mapping)
    logp = (z - found.logsumexp[:, None]).clamp(min=-1e3)
    centred = logp + found.entropy[:, None]
    from_entropy = grad_entropy[:, None] * centred
    total = grad_logprobs[:, None] + from_entropy
    of_z = -logp.exp() * total

    column, is_here = _columns_of(labels, mapping)
    from_label = torch.where(is_here, grad_logprobs, 0)
    of_z.scatter_add_(-1, column[:, None], from_label[:, None])
    gradient[:, : mapping.num_real] = of_z * slope
    return gradient


def _scaled(logits: Tensor, mapping: LogitsMap) -> tuple[Tensor, Tensor | float]:
    """Return the scaled logits of the ids in float32, and their derivative with respect to the logits."""
    x = logits[:, : mapping.num_real].float()
    cap = mapping.softcap
    temperature = mapping.temperature
    if cap is None:
        return x / temperature, 1 / temperature
    bounded = (x / cap).tanh()
    scaled = bounded * cap / temperature
    slope = (1 - bounded.square()) / temperature
    return scaled, slope


def _columns_of(labels: Tensor, mapping: LogitsMap) -> tuple[Tensor, Tensor]:
    """Return each label's column, and whether the label is an id of this part; if not, the column is 0."""
    column = labels - mapping.first
    is_here = (column >= 0) & (column < mapping.num_real)
    return column.masked_fill(~is_here, 0), is_here


def _fields(mapping: LogitsMap) -> tuple[int, int, float, float]:
    """Return the fields of `LogitsJob` that describe the mapping."""
    return (
        mapping.num_real,
        mapping.first,
        mapping.temperature,
        mapping.softcap or 0.0,
    )


def _kernel(logits: Tensor) -> kernels.Kernels | None:
    fits = logits.dtype in _TYPES and logits.is_contiguous()
    if not fits:
        return None
    return kernels.for_device(logits.device)


def _check(logits: Tensor, labels: Tensor, mapping: LogitsMap) -> None:
    """Raise if logits or labels do not fit: the kernels read raw memory."""
    num_real = mapping.num_real
    is_matrix = logits.dim() == 2
    if not is_matrix or not 0 <= num_real <= logits.shape[1]:
        raise ValueError(f"logits: expected [T, {num_real} or more], got {list(logits.shape)}")
    num_tokens = len(logits)
    device = logits.device
    is_index = labels.dtype == torch.int64
    fits = labels.shape == (num_tokens,) and labels.device == device
    if not is_index or not fits:
        got = f"{labels.dtype} {list(labels.shape)} on {labels.device}"
        raise ValueError(f"logits: labels must be torch.int64 [{num_tokens}] on {device}, got {got}")
