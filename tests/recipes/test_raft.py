"""Rejection sampling: which responses are learned, and the step on them, whatever the layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from realrl.api.batch import PackedBatch
from realrl.api.config import ModelConfig, OptimizerConfig, TrainedModelConfig
from realrl.api.configure import build_config
from realrl.api.mesh import DeviceMesh, Placement
from realrl.api.metrics import Metrics
from realrl.engines.decoder_engine import DecoderEngine
from realrl.parallel.groups import Groups, create_groups, local_groups
from realrl.recipes.parts.config import ScoreConfig
from realrl.recipes.raft import RAFTConfig, RAFTSettings, actor_train
from tests.engines.test_engine import check_weights
from tests.recipes.test_variants import (
    ALONE,
    EVERY,
    GROUP_SIZE,
    LAYOUTS,
    NUM_PROMPTS,
    PROMPT,
    engine_of,
    rollouts,
    weights_of,
)
from tests.tiny import tiny_llama
from tests.world import run_world

OPTIMIZER = OptimizerConfig(lr=1e-2, eps=1e-3, clip_grad_norm=0.0)
REWARDS = [0.0, 1.0, 0.5, 1.0, 0.0, 0.7, 1.0, 0.2, -1.0, 0.3, 0.9, 0.3]
"""The responses 0, 5 and 10 were cut off, and 6 was not graded."""
CASES = {
    "all right": ({}, [1, 3]),
    "from a reward": ({"least_reward": 0.3}, [1, 2, 3, 9, 11]),
    "best": ({"keep": "best"}, [1, 7, 9]),
    "best from a reward": ({"keep": "best", "least_reward": 0.25}, [1, 9]),
}
"""Settings, and the responses that are learned."""


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny"))


def rewarded(model: Path) -> PackedBatch:
    return rollouts(model).with_keys(per_sample={"rewards": torch.tensor(REWARDS)})


def updated(
    case: str, model: Path, groups: Groups, batch: PackedBatch, max_tokens: int, order: Sequence[int]
) -> tuple[DecoderEngine, Metrics]:
    settings, _ = CASES[case]
    config = RAFTConfig(
        batch_size=NUM_PROMPTS,
        num_steps=1,
        actor=TrainedModelConfig(model=ModelConfig(path=str(model)), optimizer=OPTIMIZER),
        ppo=RAFTSettings(group_size=GROUP_SIZE),
        **settings,
    )
    engine = engine_of(model, groups, max_tokens, OPTIMIZER)
    mine = [i for i in order if i % groups.placement.layout.dp == groups.place.dp_rank]
    ctx: SimpleNamespace = SimpleNamespace(config=config, step=0, engine=engine, reduce=groups.reduce)
    return engine, actor_train(ctx, batch.select(mine)).metrics


def expected_weights(case: str, model: Path, batch: PackedBatch) -> tuple[dict[str, Tensor], float]:
    """The weights after a step of transformers on the responses to learn, in float64, and the loss."""
    _, learned = CASES[case]
    reference = AutoModelForCausalLM.from_pretrained(model).double()
    ids = batch.unpacked("input_ids")
    tokens = []
    for place in learned:
        logprobs = reference(ids[place][None]).logits[0].log_softmax(-1)
        response = ids[place][PROMPT:]
        tokens += list(logprobs[PROMPT - 1 : -1].gather(-1, response[:, None])[:, 0])
    loss = -torch.stack(tokens).mean()
    adamw = torch.optim.AdamW(
        reference.parameters(),
        lr=OPTIMIZER.lr,
        betas=(OPTIMIZER.beta1, OPTIMIZER.beta2),
        eps=OPTIMIZER.eps,
        weight_decay=0,
    )
    loss.backward()
    adamw.step()
    return {name: weight.float() for name, weight in reference.state_dict().items()}, float(loss.detach())


@pytest.mark.parametrize("case", CASES)
def test_a_step_is_that_of_transformers_on_what_is_kept(case, model):
    """All responses at once, some at a time, and backwards."""
    batch = rewarded(model)
    expected, loss = expected_weights(case, model, batch)
    for max_tokens, order in ((1000, EVERY), (20, EVERY), (13, EVERY[::-1])):
        engine, metrics = updated(case, model, local_groups(ALONE), batch, max_tokens, order)
        check_weights(engine, expected)
        assert float(metrics["loss"].total) / metrics["loss"].weight == pytest.approx(loss, rel=1e-5)
        assert metrics["accepted"] == (len(CASES[case][1]), len(batch))


@pytest.mark.slow
def test_layouts_do_not_matter(model, tmp_path):
    """Groups may be spread over ranks."""
    batch = rewarded(model)
    expected = {case: expected_weights(case, model, batch)[0] for case in CASES}
    torch.save((batch, expected), tmp_path / "expected")
    run_world(_check_layouts, 4, model, tmp_path / "expected")


def _check_layouts(rank: int, model: Path, path: Path) -> None:
    batch, expected = torch.load(path, weights_only=False)
    placements = [Placement(DeviceMesh(tuple(range(layout.size))), layout) for layout in LAYOUTS]
    for _, groups in sorted(create_groups(placements, rank).items()):
        for case, weights in expected.items():
            engine, _ = updated(case, model, groups, batch, 30, EVERY)
            check_weights(engine, weights)


def test_where_nothing_is_good_no_step_is_made(model):
    batch = rewarded(model).with_keys(per_sample={"rewards": torch.zeros(len(REWARDS))})
    engine, metrics = updated("all right", model, local_groups(ALONE), batch, 1000, EVERY)
    assert metrics == {"accepted": (0, len(batch))}
    check_weights(engine, weights_of(engine_of(model, local_groups(ALONE), 1000)))


def test_a_right_answers_reward_is_the_least_one():
    """As `scores` shapes it."""
    config = RAFTConfig(scores=ScoreConfig(correct=2.0, bias=-0.5, scale=4.0))
    assert config.lower_bound == 6.0 and replace(config, keep="best").lower_bound == -torch.inf
    assert replace(config, scores=replace(config.scores, clip=5.0)).lower_bound == 5.0
    assert replace(config, keep="best", least_reward=0.1).lower_bound == 0.1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("ppo.num_minibatches=2", "ppo.num_minibatches: .*; raft makes one optimizer step"),
        ("ppo.kl_coef=0.1", "ppo.kl_coef: .*; grpo has a KL in the loss"),
        ("advantage=rloo", "advantage: .* recipes that learn from advantages"),
        ("loss=own.py:f", "loss: .* recipes that learn from advantages"),
    ],
)
def test_what_raft_has_no_use_for_is_refused(override, message):
    """An option that does nothing would be taken for one that does."""
    with pytest.raises(ValueError, match=f"^{message}"):
        build_config(RAFTConfig(), None, [override], recipe="raft")
