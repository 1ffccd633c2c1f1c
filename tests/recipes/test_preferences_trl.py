"""Losses of pairs through their recipes against TRL's trainer, given the same log-probabilities of tokens."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch

from realrl.api.batch import Sample, pack
from realrl.recipes import dpo, ipo
from realrl.recipes.parts.pairs import responses_of

trainer_class = pytest.importorskip("trl.trainer.dpo_trainer").DPOTrainer

CHOSEN_LENGTHS, REJECTED_LENGTHS = [4, 4, 4], [2, 5, 1]
PROMPT, LONGEST = 2, 5
CASES = {
    "dpo": (dpo, dpo.DPOConfig(beta=0.3), {"sigmoid": 1.0}),
    "by length": (dpo, dpo.DPOConfig(beta=5.0, length_normalised=True), {"sigmoid_norm": 1.0}),
    # TRL's mean over the batch's tokens is that over pairs, as all chosen responses have one length.
    "rpo": (dpo, dpo.DPOConfig(beta=0.3, sft_coef=0.7), {"sigmoid": 1.0, "sft": 0.7}),
    "ipo": (ipo, ipo.IPOConfig(beta=0.3), {"ipo": 1.0}),
}
"""A recipe's module, its config, and the weights of TRL's losses."""


def theirs(beta: float, losses: dict[str, float], logprobs, ref, mask) -> torch.Tensor:
    """TRL's loss of padded log-probabilities `[R, T]`, those of chosen responses first."""

    def model(**_: object) -> SimpleNamespace:
        flags = torch.zeros_like(mask)
        return SimpleNamespace(log_probs=logprobs, entropy=logprobs, mean_logits=logprobs, is_top1=flags)

    chosen_ref, rejected_ref = (ref * mask).sum(dim=1).chunk(2)
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=False),
        accelerator=SimpleNamespace(device="cpu", gather=lambda x: x, gather_for_metrics=lambda x: x),
        aux_loss_enabled=False,
        precompute_ref_logps=True,
        ld_alpha=None,
        f_divergence_type="reverse_kl",
        use_weighting=False,
        beta=beta,
        label_smoothing=0.0,
        loss_types=list(losses),
        loss_weights=list(losses.values()),
        _metrics={"eval": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
    )
    before = torch.zeros(len(mask), 1, dtype=torch.bool)
    completion_mask = torch.cat((before, mask), dim=1).long()
    inputs = {
        "input_ids": torch.zeros_like(completion_mask),
        "attention_mask": torch.ones_like(completion_mask),
        "completion_mask": completion_mask,
        "ref_chosen_logps": chosen_ref,
        "ref_rejected_logps": rejected_ref,
    }
    return trainer_class._compute_loss(trainer, model, inputs, False)


@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients_are_trls(case):
    """On one batch: padded for TRL, and packed for us with a prompt before each response."""
    module, config, losses = CASES[case]
    generator = torch.Generator().manual_seed(0)
    lengths = CHOSEN_LENGTHS + REJECTED_LENGTHS
    mask = torch.arange(LONGEST) < torch.tensor(lengths)[:, None]
    own, ref = -3 * torch.rand(2, *mask.shape, generator=generator, dtype=torch.float64)
    own = (own * mask).requires_grad_()
    expected = theirs(config.beta, losses, own, ref, mask)
    expected.backward()

    packed = own.detach().clone().requires_grad_()
    in_pairs = [row for pair in zip(range(3), range(3, 6)) for row in pair]
    prompt = torch.zeros(PROMPT, dtype=torch.float64)
    tokens = {
        "loss_mask": [torch.arange(PROMPT + lengths[row]) >= PROMPT for row in in_pairs],
        "ref_logprobs": [torch.cat((prompt, ref[row, : lengths[row]])) for row in in_pairs],
    }
    sequences = pack([Sample(place, place // 2) for place in range(6)], tokens)
    logprobs = torch.cat([part for row in in_pairs for part in (prompt, packed[row, : lengths[row]])])
    found = module.losses(config, responses_of(logprobs, sequences))
    loss = found.losses.mean()
    loss.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(packed.grad, own.grad * mask)
    assert packed.grad.abs().max() > 0
