"""The losses that TRL has too, number by number: its own code, given the same log-probabilities."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from realrl.algorithms.aggregate import token_weights
from realrl.algorithms.correction import stale_and_bad
from realrl.algorithms.kl import kl_in_loss
from realrl.algorithms.policy import ResponseTokens, cispo_loss, gspo_loss, ppo_loss, sapo_loss
from realrl.api.batch import cu_seqlens_of

GRPOTrainer = pytest.importorskip("trl.trainer.grpo_trainer").GRPOTrainer

MAX_NEW_TOKENS = 12
LENGTHS = [12, 3, 7, 1]
BOUNDS = {"clip_low": 0.2, "clip_high": 0.28}
CASES = {
    "grpo": ({"loss_type": "grpo"}, "sequence", partial(ppo_loss, **BOUNDS), 0.0),
    "grpo with KL": ({"loss_type": "grpo", "beta": 0.04}, "sequence", partial(ppo_loss, **BOUNDS), 0.04),
    "dr_grpo": ({"loss_type": "dr_grpo"}, "constant", partial(ppo_loss, **BOUNDS), 0.0),
    "dapo": ({"loss_type": "dapo"}, "token", partial(ppo_loss, **BOUNDS), 0.0),
    "dual clip": (
        {"loss_type": "dapo", "delta": 1.5},
        "token",
        partial(ppo_loss, **BOUNDS, dual_clip=1.5),
        0.0,
    ),
    "gspo": (
        {"loss_type": "grpo", "importance_sampling_level": "sequence"},
        "sequence",
        partial(gspo_loss, **BOUNDS),
        0.0,
    ),
    "unbiased KL": (
        {"loss_type": "grpo", "beta": 0.04, "use_bias_correction_kl": True},
        "sequence",
        partial(ppo_loss, **BOUNDS),
        0.04,
    ),
    "off-policy mask": (
        {"loss_type": "dapo", "off_policy_mask_threshold": 0.0},
        "token",
        partial(ppo_loss, **BOUNDS),
        0.0,
    ),
    "sapo": (
        {"loss_type": "sapo", "sapo_temperature_pos": 1.0, "sapo_temperature_neg": 1.05},
        "sequence",
        partial(sapo_loss, tau_positive=1.0, tau_negative=1.05),
        0.0,
    ),
    # TRL's bound of CISPO is the largest ratio itself, and it has none below.
    "cispo": (
        {"loss_type": "cispo", "epsilon_high": 1.28},
        "token",
        partial(cispo_loss, clip_low=1.0, clip_high=0.28),
        0.0,
    ),
}


ARGUMENTS = ("delta", "use_bias_correction_kl", "sapo_temperature_pos", "sapo_temperature_neg")
"""Those that the loss takes from TRL's arguments, and not from its trainer."""


class Stub(SimpleNamespace):
    """Of a trainer, what the loss looks at; what is not set is off."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


def theirs(options: dict, logprobs, old, ref, advantages, mask) -> torch.Tensor:
    options = {"beta": 0.0, "epsilon_high": 0.28, "importance_sampling_level": "token", **options}
    trainer = Stub(
        **options,
        epsilon_low=0.2,
        top_entropy_quantile=1.0,
        max_completion_length=MAX_NEW_TOKENS,
        current_gradient_accumulation_steps=1,
        model=SimpleNamespace(training=False),
        args=Stub(steps_per_generation=1, **{key: options.get(key) for key in ARGUMENTS}),
        get_off_policy_mask=GRPOTrainer.get_off_policy_mask,
        accelerator=SimpleNamespace(
            num_processes=1,
            gather=lambda x: x,
            reduce=lambda x, reduction: x,
            gather_for_metrics=lambda x: x,
            sync_gradients=True,
        ),
        _metrics={"eval": defaultdict(list)},
        _get_per_token_logps_and_entropies=lambda *_, **__: (logprobs, torch.zeros_like(logprobs), None),
    )
    inputs = {
        "prompt_ids": torch.zeros(len(mask), 1, dtype=torch.long),
        "prompt_mask": torch.ones(len(mask), 1),
        "completion_ids": torch.zeros(mask.shape, dtype=torch.long),
        "completion_mask": mask.int(),
        "advantages": advantages,
        "old_per_token_logps": old,
        "ref_per_token_logps": ref,
        "num_items_in_batch": mask.sum(),
    }
    return GRPOTrainer._compute_loss(trainer, None, inputs)


@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients_are_trls(case):
    """On one batch, padded for TRL and packed for us."""
    options, aggregation, ours, kl_coef = CASES[case]
    generator = torch.Generator().manual_seed(0)
    mask = torch.arange(MAX_NEW_TOKENS) < torch.tensor(LENGTHS)[:, None]
    new, noise, ref = torch.randn(3, *mask.shape, generator=generator, dtype=torch.float64)
    advantages = torch.randn(len(LENGTHS), generator=generator, dtype=torch.float64)
    old = new + 0.4 * noise
    padded = new.clone().requires_grad_()
    expected = theirs(options, padded, old, ref, advantages, mask)
    expected.backward()

    packed, own_mask = new[mask].clone().requires_grad_(), torch.ones(sum(LENGTHS), dtype=torch.bool)
    cu_seqlens = cu_seqlens_of(LENGTHS)
    weights = token_weights(
        own_mask,
        cu_seqlens,
        lambda x: x,
        aggregation=aggregation,
        max_new_tokens=MAX_NEW_TOKENS,
        groups=torch.arange(len(LENGTHS)),
        num_groups=len(LENGTHS),
    )
    tokens = ResponseTokens(
        packed,
        old[mask],
        advantages.repeat_interleave(torch.tensor(LENGTHS)),
        weights.double(),
        torch.arange(sum(LENGTHS)),
        cu_seqlens,
    )
    log_ratio = tokens.log_ratio if "use_bias_correction_kl" in options else None
    kl = kl_in_loss(packed, ref[mask], "k3", log_ratio=log_ratio)
    if "off_policy_mask_threshold" in options:
        left_out = stale_and_bad(tokens, old[mask], limit=0.0)
        assert 0 < left_out.sum() < len(left_out)
        tokens = replace(tokens, weights=tokens.weights.where(~left_out, 0.0))
    loss = ours(tokens).loss + kl_coef * (kl * weights).sum()
    loss.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(packed.grad, padded.grad[mask], rtol=1e-6, atol=1e-9)
    assert packed.grad.abs().min() < packed.grad.abs().max()
