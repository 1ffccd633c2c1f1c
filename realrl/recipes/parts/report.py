"""What a step reports of its responses and of its update."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from realrl.algorithms.normalise import Reduce
from realrl.algorithms.presets import Correction
from realrl.api.batch import PackedBatch
from realrl.api.recipe import Mean, Metrics, Peak
from realrl.rewards.verdict import Verdict


def mean_of(values: Tensor) -> Mean:
    """Return the mean of what each response token has, `[R]`."""
    return Mean(values.detach().double().sum(), len(values))


def mean_over(values: Tensor, batch: PackedBatch) -> Mean:
    """Return the mean over the response tokens of what each token has, `[T]`."""
    tokens = batch["loss_mask"] if batch.responses is None else batch.responses
    return mean_of(values[tokens])


def share_of(loss: Tensor, num_tokens: float, micro: PackedBatch) -> Mean:
    """Return a micro-batch's share of the loss: joined over all of them, it is the mini-batch's loss."""
    return Mean(
        loss.detach().double() * num_tokens,
        len(responses_of(micro)),
    )


def responses_of(micro: PackedBatch) -> Tensor:
    """Return the places of a micro-batch's response tokens: int64 `[R]`."""
    assert micro.responses is not None, "an engine gives micro-batches their response tokens"
    return micro.responses


def named(prefix: str, metrics: Metrics) -> Metrics:
    """Return the same metrics under longer names."""
    return {prefix + name: metric for name, metric in metrics.items()}


def response_metrics(batch: PackedBatch, texts: Sequence[str]) -> dict[str, Mean]:
    """Return the length of this rank's responses, and how many did not end by themselves or say nothing."""
    is_empty = [not text.strip() for text in texts]
    return {
        "response_tokens": _mean(_lengths(batch)),
        "truncated": _share((~batch["ended"]).tolist()),
        "empty": _share(is_empty),
    }


def verdict_metrics(verdicts: Sequence[Verdict], batch: PackedBatch, *, accuracy: str) -> dict[str, Mean]:
    """Return this rank's share of right responses, the lengths of right and of wrong ones, and of verdicts.

    `accuracy` is the name of the share of right responses.
    """
    is_right = [verdict is Verdict.CORRECT for verdict in verdicts]
    right: list[float] = []
    wrong: list[float] = []
    for length, counts_as_right in zip(_lengths(batch), is_right):
        target = right if counts_as_right else wrong
        target.append(length)
    found = {
        accuracy: _share(is_right),
        "response_tokens_right": _mean(right),
        "response_tokens_wrong": _mean(wrong),
    }
    for other in (Verdict.NO_ANSWER, Verdict.TIMEOUT, Verdict.ERROR):
        found[f"verdict_{other.value}"] = _share([verdict is other for verdict in verdicts])
    return found


def group_metrics(
    groups: Tensor, verdicts: Sequence[Verdict], num_groups: int, reduce: Reduce
) -> dict[str, Mean]:
    """Return the share of prompts with a right answer among their samples, with right ones alone, with none.

    Collective: over the ranks of `reduce`, which may each hold a part of a group.
    """
    is_right = [verdict is Verdict.CORRECT for verdict in verdicts]
    right = torch.tensor(is_right, dtype=torch.double)
    pairs = torch.stack((right, torch.ones_like(right)), dim=1)
    nothing = torch.zeros(num_groups, 2, dtype=torch.double)
    of_groups = reduce(nothing.index_add(0, groups, pairs))
    # Prompts that are resampled come without the others.
    of_groups = of_groups[of_groups[:, 1] > 0]
    num_right = of_groups[:, 0]
    number = of_groups[:, 1]
    return {
        "pass_at_group": _share((num_right > 0).tolist()),
        "groups_all_right": _share((num_right == number).tolist()),
        "groups_all_wrong": _share((num_right == 0).tolist()),
    }


def staleness_metrics(step: int, batch: PackedBatch) -> dict[str, Mean | Peak]:
    """Return the training steps between the weights that drew a token and those that are trained on it."""
    staleness = (step - batch["policy_versions"]) * batch["loss_mask"]
    return {"staleness": mean_over(staleness, batch), "staleness_max": _peak(staleness)}


class Drift:
    """How far the trainer's log-probabilities are from the rollout's, noted micro-batch by micro-batch.

    By rounding alone where the weights that drew a token are the trainer's, those of step `version`.
    """

    def __init__(self, version: int) -> None:
        self._version = version
        self._noted: list[Tensor] = []
        """Of each micro-batch `[7]`, on its device. Sums over response tokens: of 1, w, w^2, w - 1 - d, where
        d is the difference and w = exp(d); of |d| and of 1 where tokens are fresh; then the largest such |d|.
        """

    def add(self, logprobs: Tensor, micro: PackedBatch) -> None:
        """Note the differences of one micro-batch; `logprobs` are the trainer's, `[T]`."""
        responses = responses_of(micro)
        if not len(responses):
            return
        difference = (logprobs.detach() - micro["logprobs"])[responses].double()
        is_fresh = micro["policy_versions"][responses] == self._version
        fresh = torch.where(is_fresh, difference.abs(), 0.0)
        sums = [
            torch.ones_like(difference).sum(),
            difference.exp().sum(),
            (2 * difference).exp().sum(),
            (difference.expm1() - difference).sum(),
            fresh.sum(),
            is_fresh.double().sum(),
        ]
        self._noted.append(torch.stack([*sums, fresh.max()]))

    def metrics(self, reduce: Reduce) -> dict[str, Mean | Peak]:
        """Return the mean and the largest difference of fresh tokens here, and two numbers of all tokens.

        Over the ranks of `reduce`, these are KL(rollout || trainer) by the k3 estimator, and the effective
        sample size as a share: (sum of w)^2 / (n * sum of w^2).

        Collective: over these ranks.
        """
        noted = torch.zeros(1, 7, dtype=torch.double)
        if self._noted:
            noted = torch.stack(self._noted).cpu()
        of_fresh = noted[:, 4:6].sum(0)
        difference, num_fresh = of_fresh.tolist()
        found: dict[str, Mean | Peak] = {}
        if num_fresh:
            largest = float(noted[:, 6].max())
            found["logprob_diff"] = Mean(difference, num_fresh)
            found["logprob_diff_max"] = Peak(largest)
        of_all = noted[:, :4].sum(0)
        number, weight, square, kl = reduce(of_all).tolist()
        if not number:
            return found
        sample_size = weight**2 / (number * square)
        found["mismatch_kl"] = Mean(kl / number, 1.0)
        found["effective_sample_size"] = Mean(sample_size, 1.0)
        return found


def correction_metrics(correction: Correction, micro: PackedBatch) -> dict[str, Mean]:
    """Return the mean of what tokens' losses are multiplied with, and the share that was cut or left out."""
    factors = micro["correction"][responses_of(micro)]
    # What is left out has the factor 0.
    is_cut = factors.where(factors != 0, correction.cap) >= correction.cap
    return {
        "importance": mean_of(factors),
        "importance_capped": mean_of(is_cut),
    }


def _lengths(batch: PackedBatch) -> list[float]:
    return [float(mask.sum()) for mask in batch.unpacked("loss_mask")]


def _mean(values: Sequence[float]) -> Mean:
    return Mean(sum(values), len(values))


def _share(which: Sequence[bool]) -> Mean:
    return Mean(sum(which), len(which))


def _peak(values: Tensor) -> Peak:
    return Peak(float(values.max()) if len(values) else 0.0)
