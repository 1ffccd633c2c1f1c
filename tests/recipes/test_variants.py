"""Every algorithm's update is the same however its batch is cut: micro-batches, data, pipeline, order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from realrl.api.batch import PackedBatch, Sample, pack
from realrl.api.config import ModelConfig, OptimizerConfig, TrainedModelConfig
from realrl.api.device_metrics import read
from realrl.api.mesh import DeviceMesh, ParallelLayout, Placement
from realrl.api.metrics import Metrics
from realrl.api.recipe import Recipe
from realrl.engines.decoder_engine import DecoderEngine
from realrl.engines.options import EngineOptions
from realrl.models.registry import read_decoder_config
from realrl.parallel.groups import Groups, create_groups, local_groups
from realrl.recipes import RECIPES
from realrl.recipes.grpo import GRPO, GRPOConfig, GRPOSettings
from realrl.recipes.parts.config import AdvantageConfig
from realrl.recipes.parts.settings import CorrectionConfig
from realrl.recipes.ppo_math import PPO_MATH, PPOMathConfig, PPOMathSettings, graph
from tests.engines.test_engine import check_weights
from tests.tiny import tiny_llama
from tests.world import run_world

ALONE = Placement(DeviceMesh((0,)), ParallelLayout())
LAYOUTS = [ParallelLayout(dp=3), ParallelLayout(pp=2), ParallelLayout(pp=2, dp=2), ParallelLayout(tp=2)]
NUM_PROMPTS, GROUP_SIZE = 3, 4
LENGTHS = [3, 9, 5, 1, 7, 2, 4, 6, 3, 3, 8, 5]
PROMPT = 4
EVERY = range(len(LENGTHS))

DECOUPLED = PPOMathSettings(
    old="trainer", correction=CorrectionConfig(weight="token", cap=1.05), num_minibatches=2
)
MASKED = PPOMathSettings(
    old="trainer",
    correction=CorrectionConfig(weight="token", mask="token", high=1.05),
    num_minibatches=2,
)
BESIDES = {
    "entropy": {"entropy_coef": 0.1},
    "entropy target": {"entropy_target": 9.0, "entropy_coef": 0.1},
    "right answers": {"positive_nll": 0.5},
    "clip-cov": {"covariance": "clip", "covariance_share": 0.2},
    "kl-cov": {"covariance": "kl", "covariance_share": 0.2, "num_minibatches": 2},
    "batch's std": {"advantage_scale": "batch_std", "std": "sample", "clip_advantages": 1.0},
    "top entropy": {"top_entropy": 0.3, "old": "trainer"},
    "mean over prompts": {"aggregation": "prompt"},
    "off-policy mask": {"off_policy_mask": 1e-3, "num_minibatches": 2},
    **{
        name: {"old": "trainer", "correction": CorrectionConfig(name=name)}
        for name in ("icepop", "kpop", "sequence-mis")
    },
    "seq-mask-tis": {
        "old": "trainer",
        "correction": CorrectionConfig(name="seq-mask-tis", low=0.9, high=1.1),
    },
}
"""Terms and masks that any algorithm may have besides, on GRPO without a reference."""
DISTANCES = {
    "k3+": {"kl_estimator": "k3+"},
    "weighted KL": {"kl_weighted": True, "num_minibatches": 2},
    "clipped KL": {"kl_clip": 0.05},
    "adapted KL": {"kl_target": 0.1, "kl_horizon": 100},
}
"""Kinds of GRPO's KL in the loss."""
EARLY = PPOMathSettings(num_minibatches=4, early_stop_kl=1e-2, old="trainer", kl_coef=0.0)
VARIANTS: dict[str, Recipe] = {
    **{
        name: r
        for name, r in RECIPES.items()
        if isinstance(r.default_config, AdvantageConfig) and not r.default_config.has_critic
    },
    "decoupled": replace(PPO_MATH, default_config=PPOMathConfig(ppo=DECOUPLED)),
    "masked": replace(PPO_MATH, default_config=PPOMathConfig(ppo=MASKED)),
    "recomputed": replace(PPO_MATH, default_config=PPOMathConfig(ppo=replace(EARLY, early_stop_kl=0.0))),
    "early stop": replace(PPO_MATH, default_config=PPOMathConfig(ppo=EARLY)),
    **{
        name: replace(GRPO, default_config=GRPOConfig(ppo=GRPOSettings(kl_coef=0.0, **settings)))
        for name, settings in BESIDES.items()
    },
    **{
        name: replace(GRPO, default_config=GRPOConfig(ppo=GRPOSettings(**settings)))
        for name, settings in DISTANCES.items()
    },
}


def config_of(name: str, model: Path) -> AdvantageConfig:
    """As published, but for the sizes; Adam's eps is large, so that rounding stays small."""
    config = VARIANTS[name].default_config
    optimizer = OptimizerConfig(lr=1e-2, eps=1e-3, clip_grad_norm=0.0)
    return replace(
        config,
        batch_size=NUM_PROMPTS,
        actor=TrainedModelConfig(model=ModelConfig(path=str(model)), optimizer=optimizer),
        ppo=replace(config.ppo, group_size=GROUP_SIZE, num_minibatches=min(config.ppo.num_minibatches, 3)),
    )


def rollouts(model: Path) -> PackedBatch:
    """Of a policy a little away from the model, with a reference further away; one sample is not graded."""
    generator = torch.Generator().manual_seed(0)
    samples = [Sample(i, i // GROUP_SIZE) for i in range(len(LENGTHS))]
    prompts = torch.randint(3, 60, (NUM_PROMPTS, PROMPT), generator=generator)
    ids = [
        torch.cat((prompts[s.row], torch.randint(3, 60, (n,), generator=generator)))
        for s, n in zip(samples, LENGTHS)
    ]
    masks = [torch.arange(len(x)) >= PROMPT for x in ids]
    batch = pack(samples, {"input_ids": ids, "loss_mask": masks})
    own = engine_of(model, local_groups(ALONE), 1000).logprobs(batch, temperature=1.0)
    noise = torch.randn(2, len(own), generator=generator)
    return batch.with_keys(
        tokens={
            "logprobs": own + 0.1 * noise[0],
            "ref_logprobs": own + 0.3 * noise[1],
            "prox_logprobs": own,
            "prox_entropies": noise[1].abs(),
            "policy_versions": torch.zeros(len(own), dtype=torch.long),
        },
        per_sample={
            "rewards": torch.randint(0, 2, (len(LENGTHS),), generator=generator).float(),
            "ended": torch.arange(len(LENGTHS)) % 5 != 0,
            "is_graded": torch.arange(len(LENGTHS)) != 6,
        },
    )


def engine_of(
    model: Path, groups: Groups, max_tokens: int, optimizer: OptimizerConfig | None = None
) -> DecoderEngine:
    engine = DecoderEngine(
        read_decoder_config(model),
        "lm",
        groups,
        EngineOptions(
            dtype=torch.float32, device="cpu", max_tokens_per_microbatch=max_tokens, optimizer=optimizer
        ),
    )
    engine.load(model)
    return engine


def updated(
    recipe: Recipe,
    config: AdvantageConfig,
    model: Path,
    groups: Groups,
    batch: PackedBatch,
    max_tokens: int,
    order: Sequence[int],
) -> tuple[DecoderEngine, Metrics]:
    """The model after a step on this rank's share of the samples, in some order."""
    engine = engine_of(model, groups, max_tokens, config.actor.optimizer)
    mine = [i for i in order if i % groups.placement.layout.dp == groups.place.dp_rank]
    ctx = SimpleNamespace(
        config=config, step=0, engine=engine, reduce=groups.reduce, reduce_mesh=groups.reduce_mesh, memory={}
    )
    estimated = recipe.bodies["advantages"](ctx, batch.select(mine)).batch
    return engine, recipe.bodies["actor_train"](ctx, estimated).metrics


def weights_of(engine: DecoderEngine) -> dict[str, Tensor]:
    """Whole tensors of an engine that is alone."""
    found = {name: torch.zeros(shape) for name, shape in engine.layout.extents().items()}
    for shard in engine.layout.shards(0):
        box = tuple(map(slice, shard.box.start, shard.box.stop))
        local = tuple(slice(o, o + n) for o, n in zip(shard.offset, shard.box.shape))
        found[shard.box.tensor][box] = engine.local_tensors()[shard.local][local]
    return found


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny"))


@pytest.mark.parametrize("name", VARIANTS)
def test_micro_batches_and_order_do_not_matter(name, model):
    """All at once, two at a time, one at a time, backwards."""
    config, batch = config_of(name, model), rollouts(model)
    engine, metrics = updated(
        VARIANTS[name], config, model, local_groups(ALONE), batch, 1000, range(len(LENGTHS))
    )
    expected = weights_of(engine)
    before = weights_of(engine_of(model, local_groups(ALONE), 1000))
    assert all((expected[key] - before[key]).abs().max() > 1e-4 for key in before), (
        "the step must do something"
    )
    for max_tokens, order in ((20, range(len(LENGTHS))), (13, range(len(LENGTHS) - 1, -1, -1))):
        engine, found = updated(VARIANTS[name], config, model, local_groups(ALONE), batch, max_tokens, order)
        check_weights(engine, expected)
        assert_same_metrics(found, metrics)


def assert_same_metrics(found: Metrics, expected: Metrics) -> None:
    assert found.keys() == expected.keys()
    found, expected = read(found), read(expected)
    for key, metric in expected.items():
        values = [m.total / m.weight if hasattr(m, "total") else m.largest for m in (found[key], metric)]
        assert values[0] == pytest.approx(values[1], rel=1e-4, abs=1e-6), key


def test_the_update_can_be_ended_early(model):
    """Before the step of the first mini-batch that finds the policy too far from the old one: the weights are
    those after the steps before it."""
    config, batch = config_of("early stop", model), rollouts(model)
    alone = local_groups(ALONE), batch, 1000
    _, metrics = updated(PPO_MATH, config, model, *alone, range(len(LENGTHS)))
    assert metrics["actor_updates"].total == metrics["actor_lr"].weight == 1
    patient = replace(config, ppo=replace(config.ppo, early_stop_kl=0.0))
    _, metrics = updated(PPO_MATH, patient, model, *alone, range(len(LENGTHS)))
    assert metrics["actor_updates"].total == metrics["actor_lr"].weight == 3
    # A stale rollout is already too far, so that no step is made at all.
    stale = replace(config, ppo=replace(config.ppo, old="rollout", early_stop_kl=1e-4))
    engine, metrics = updated(PPO_MATH, stale, model, *alone, range(len(LENGTHS)))
    assert metrics["actor_updates"].total == 0 and "actor_lr" not in metrics
    check_weights(engine, weights_of(engine_of(model, local_groups(ALONE), 1000)))


def test_the_old_policy_may_be_the_trainers(model):
    """Without weights, the update is that of rollouts which had recorded the trainer's own log-probabilities;
    what they did record has no say."""
    config, batch = config_of("recomputed", model), rollouts(model)
    recorded = replace(config, ppo=replace(config.ppo, old="rollout"))
    assert "prox_inf" in graph(config).calls and "prox_inf" not in graph(recorded).calls
    alone = model, local_groups(ALONE)
    found, _ = updated(PPO_MATH, config, *alone, batch, 1000, EVERY)
    own = batch.with_keys(tokens={"logprobs": batch["prox_logprobs"]})
    expected, _ = updated(PPO_MATH, recorded, *alone, own, 1000, range(len(LENGTHS)))
    check_weights(found, weights_of(expected))
    others, _ = updated(PPO_MATH, recorded, *alone, batch, 1000, EVERY)
    name = "layers.0.qkv"
    assert (others.local_tensors()[name] - found.local_tensors()[name]).abs().max() > 1e-4


def test_a_mini_batch_of_nothing_takes_no_step(model):
    """None of its samples were graded: moments and decay of the others' steps must not move the weights."""
    config = config_of("recomputed", model)
    decaying = replace(config.actor.optimizer, weight_decay=0.5)
    config = replace(config, actor=replace(config.actor, optimizer=decaying))
    batch = rollouts(model)
    is_graded = torch.arange(len(LENGTHS)) < GROUP_SIZE
    batch = batch.with_keys(per_sample={"is_graded": is_graded})
    found, metrics = updated(PPO_MATH, config, model, local_groups(ALONE), batch, 1000, EVERY)
    assert metrics["actor_updates"].total == metrics["actor_lr"].weight == 1
    once = replace(config, batch_size=1, ppo=replace(config.ppo, num_minibatches=1))
    first = batch.select(range(GROUP_SIZE))
    expected, _ = updated(PPO_MATH, once, model, local_groups(ALONE), first, 1000, range(GROUP_SIZE))
    check_weights(found, weights_of(expected))
    nothing = batch.with_keys(per_sample={"is_graded": torch.zeros_like(is_graded)})
    engine, metrics = updated(
        PPO_MATH, config, model, local_groups(ALONE), nothing, 1000, range(len(LENGTHS))
    )
    assert metrics["actor_updates"].total == 0
    check_weights(engine, weights_of(engine_of(model, local_groups(ALONE), 1000)))


@pytest.mark.slow
def test_layouts_do_not_matter(model, tmp_path):
    """Data parallel with groups spread over ranks, pipelines, both, tensor parallel."""
    batch = rollouts(model)
    expected = {}
    for name in VARIANTS:
        engine, _ = updated(
            VARIANTS[name],
            config_of(name, model),
            model,
            local_groups(ALONE),
            batch,
            1000,
            range(len(LENGTHS)),
        )
        expected[name] = weights_of(engine)
    torch.save((batch, expected), tmp_path / "expected")
    run_world(_check_layouts, 4, model, tmp_path / "expected")


def _check_layouts(rank: int, model: Path, path: Path) -> None:
    batch, expected = torch.load(path, weights_only=False)
    placements = [Placement(DeviceMesh(tuple(range(layout.size))), layout) for layout in LAYOUTS]
    for _, groups in sorted(create_groups(placements, rank).items()):
        for name, weights in expected.items():
            engine, _ = updated(
                VARIANTS[name], config_of(name, model), model, groups, batch, 30, range(len(LENGTHS))
            )
            check_weights(engine, weights)
