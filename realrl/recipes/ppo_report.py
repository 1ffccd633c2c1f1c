"""What a step reports of its responses and of its update."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from realrl.algorithms.normalise import Reduce
from realrl.api.batch import PackedBatch
from realrl.api.recipe import Mean, Metrics, Peak
from realrl.recipes.ppo_config import PPOConfig
from realrl.rewards.verdict import Verdict


def mean_of(values: Tensor) -> Mean:
    """Of what each response token has, `[R]`."""
    return Mean(values.detach().double().sum(), len(values))


def mean_over(values: Tensor, batch: PackedBatch) -> Mean:
    """Over the response tokens of `[T]`."""
    tokens = batch["loss_mask"] if batch.responses is None else batch.responses
    return mean_of(values[tokens])


def share_of(loss: Tensor, num_tokens: float, micro: PackedBatch) -> Mean:
    """A micro-batch's share of the loss: over all of them, the sum comes out as the mean."""
    return Mean(loss.detach().double() * num_tokens, len(micro.responses))


def named(prefix: str, metrics: Metrics) -> Metrics:
    """The same metrics under longer names."""
    return {prefix + name: metric for name, metric in metrics.items()}


def response_metrics(batch: PackedBatch, texts: Sequence[str]) -> dict[str, Mean]:
    """The length of this rank's responses, and how many did not end by themselves or say nothing."""
    return {
        "response_tokens": _mean(_lengths(batch)),
        "truncated": _share((~batch["ended"]).tolist()),
        "empty": _share([not text.strip() for text in texts]),
    }


def verdict_metrics(verdicts: Sequence[Verdict], batch: PackedBatch, *, evaluating: bool) -> dict[str, Mean]:
    """Accuracy of this rank's responses, the lengths of right and of wrong ones, and how many had which
    verdict.
    """
    lengths = _lengths(batch)
    right = [verdict is Verdict.CORRECT for verdict in verdicts]
    found = {
        "greedy_accuracy" if evaluating else "accuracy": _share(right),
        "response_tokens_right": _mean([n for n, is_right in zip(lengths, right) if is_right]),
        "response_tokens_wrong": _mean([n for n, is_right in zip(lengths, right) if not is_right]),
    }
    others = (Verdict.NO_ANSWER, Verdict.TIMEOUT, Verdict.ERROR)
    return found | {f"verdict_{v.value}": _share([verdict is v for verdict in verdicts]) for v in others}


def group_metrics(
    groups: Tensor, verdicts: Sequence[Verdict], num_groups: int, reduce: Reduce
) -> dict[str, Mean]:
    """Of prompts: those with a right answer among their samples, with right ones alone, and with none.

    Collective: over the ranks of `reduce`, which may each hold a part of a group.
    """
    right = torch.tensor([verdict is Verdict.CORRECT for verdict in verdicts], dtype=torch.double)
    pairs = torch.stack((right, torch.ones_like(right)), dim=1)
    num_right, number = reduce(torch.zeros(num_groups, 2, dtype=torch.double).index_add(0, groups, pairs)).T
    # Prompts that are drawn again come without the others.
    num_right, number = num_right[number > 0], number[number > 0]
    return {
        "pass_at_group": _share((num_right > 0).tolist()),
        "groups_all_right": _share((num_right == number).tolist()),
        "groups_all_wrong": _share((num_right == 0).tolist()),
    }


def staleness_metrics(step: int, batch: PackedBatch) -> dict[str, Mean | Peak]:
    """Training steps between the weights that drew a token and those that are trained on it."""
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
        responses = micro.responses
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
        """The mean and the largest difference of fresh tokens on this rank; and of all tokens of the ranks of
        `reduce`: KL(rollout || trainer) by the k3 estimator, and the effective sample size, as a share: (sum
        of w)^2 / (n * sum of w^2).

        Collective: over these ranks.
        """
        noted = torch.stack(self._noted).cpu() if self._noted else torch.zeros(1, 7, dtype=torch.double)
        difference, num_fresh = noted[:, 4:6].sum(0).tolist()
        found = {}
        if num_fresh:
            largest = float(noted[:, 6].max())
            found = {"logprob_diff": Mean(difference, num_fresh), "logprob_diff_max": Peak(largest)}
        number, weight, square, kl = reduce(noted[:, :4].sum(0)).tolist()
        if not number:
            return found
        return found | {
            "mismatch_kl": Mean(kl / number, 1.0),
            "effective_sample_size": Mean(weight**2 / (number * square), 1.0),
        }


def importance_metrics(ppo: PPOConfig, micro: PackedBatch) -> dict[str, Mean]:
    """The mean importance weight, and the share of tokens whose weight was above the cap."""
    weights = micro["importance"][micro.responses]
    above = weights >= ppo.importance_cap if ppo.importance == "truncate" else weights == 0
    return {"importance": mean_of(weights), "importance_capped": mean_of(above)}


def _lengths(batch: PackedBatch) -> list[float]:
    return [float(mask.sum()) for mask in batch.unpacked("loss_mask")]


def _mean(values: Sequence[float]) -> Mean:
    return Mean(sum(values), len(values))


def _share(which: Sequence[bool]) -> Mean:
    return Mean(sum(which), len(which))


def _peak(values: Tensor) -> Peak:
    return Peak(float(values.max()) if len(values) else 0.0)
