"""What is written of a sample besides its texts: its place in the step, its tokens, its advantage."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from realrl.api.batch import PackedBatch, Sample

MOST_WITH_TOKENS = 8
"""Samples of a step whose tokens are written one by one: enough to see a group of a prompt, little beside the
texts of all."""
MOST_TOKENS = 2048
"""Of such a sample."""
_ROUNDING, _SMALL = 1e-3, 1e-2


def place_of(sample: Sample, samples_per_row: int) -> dict[str, int]:
    """What tells a sample from all others of its step, whichever call says something of it."""
    group, number = divmod(sample.id, samples_per_row)
    return {"row": sample.row, "group": group, "sample": number}


def with_tokens(sample: Sample, batch_samples: int) -> bool:
    """Whether the sample's tokens are written: it is among the first of its batch of `batch_samples`."""
    return sample.id % batch_samples < MOST_WITH_TOKENS


def token_texts(tokenizer: Any, ids: Tensor) -> list[str]:
    """Each token as text, special ones too."""
    known: dict[int, str] = {}
    for token in (shown := ids[:MOST_TOKENS].tolist()):
        if token not in known:
            known[token] = tokenizer.decode([token])
    return [known[token] for token in shown]


def advantage_records(batch: PackedBatch, samples_per_row: int, batch_samples: int) -> list[dict[str, Any]]:
    """Of each sample that is trained on, the mean advantage of its response; of some, those of its tokens.

    `batch` has `advantages`, `logprobs` and `loss_mask`.
    """
    keys = ("loss_mask", "advantages", "logprobs")
    records = []
    for sample, mask, advantages, logprobs in zip(batch.samples, *map(batch.unpacked, keys)):
        advantages = advantages[mask]
        if not len(advantages):
            continue
        record: dict[str, Any] = dict(place_of(sample, samples_per_row))
        record["advantage"] = float(advantages.mean())
        if with_tokens(sample, batch_samples):
            record["logprobs"] = _short(logprobs[mask])
            if _differ(advantages):
                record["advantages"] = _short(advantages)
        records.append(record)
    return records


def _differ(values: Tensor) -> bool:
    """Whether values differ by more than rounding, which is not the same on every plan."""
    spread = float(values.max() - values.min())
    largest = float(values.abs().max())
    return spread > _ROUNDING * max(_SMALL, largest)


def _short(values: Tensor) -> list[float]:
    """To four digits, which is more than anybody reads."""
    return [float(f"{value:.4g}") for value in values[:MOST_TOKENS].tolist()]
