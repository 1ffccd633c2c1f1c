"""A reward model's scores are normalised by what was found when it was trained."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from realrl.api.batch import Sample, pack
from realrl.api.config import ModelConfig
from realrl.recipes.grpo import GRPOConfig
from realrl.recipes.parts.config import ScoreConfig
from realrl.recipes.parts.policy_recipe import take_scores, validate
from realrl.recipes.parts.score_scale import file_of, remember


def config_of(directory: Path, **scores) -> GRPOConfig:
    return GRPOConfig(
        reward="model", reward_model=ModelConfig(path=str(directory)), scores=ScoreConfig(**scores)
    )


def test_late_scores_count_most():
    """As in a loop, in which each step fades by a hundredth."""
    ctx: SimpleNamespace = SimpleNamespace(memory={}, reduce_mesh=lambda x: x)
    generator = torch.Generator().manual_seed(0)
    steps = [5 + 2 * torch.randn(size, generator=generator) for size in (4, 6, 4)]
    for step in steps:
        found = remember(ctx, step)
    weights = [0.99**age / len(step) for age, step in zip((2, 1, 0), steps)]
    total = sum(weight * len(step) for weight, step in zip(weights, steps))
    mean = sum(weight * float(step.sum()) for weight, step in zip(weights, steps)) / total
    square = sum(weight * float(step.square().sum()) for weight, step in zip(weights, steps)) / total
    assert found["score_mean"].total == pytest.approx(mean, rel=1e-6)
    assert found["score_std"].total == pytest.approx((square - mean**2) ** 0.5, rel=1e-5)


def test_scores_are_taken_in_units_of_their_scale(tmp_path):
    """That is in the file that is written next to the weights; in an evaluation too."""
    (name, text), *others = file_of({"loss": 1.0, "score_mean": 1.5, "score_std": 0.5}).items()
    assert name == "model/scores.json" and not others and file_of({"loss": 1.0}) == {}
    (tmp_path / "scores.json").write_text(text)
    values = torch.tensor([9.0, 2.0, 9.0, 1.0])
    batch = pack([Sample(0, 0), Sample(1, 1)], {"input_ids": [torch.zeros(2).long()] * 2})
    engine = SimpleNamespace(values=lambda batch: values)
    for normalise, expected in ((False, [2.0, 1.0]), (True, [1.0, -1.0])):
        config = config_of(tmp_path, normalise=normalise)
        ctx: SimpleNamespace = SimpleNamespace(config=config, engine=engine)
        validate(config, {})
        assert take_scores(ctx, batch).batch["scores"].tolist() == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"cannot read .*scores.json \(No such file.*; give a checkpoint of `rw`"),
        ("[]", "it has no numbers `mean` and `std`"),
        ('{"mean": "much", "std": 1}', "it has no numbers `mean` and `std`"),
        ('{"mean": 0.5, "std": 0.0}', "expected a finite mean and a std above 0, got 0.5 and 0.0"),
        ('{"mean": NaN, "std": 1.0}', "expected a finite mean"),
    ],
)
def test_a_scale_that_is_none_is_refused_at_the_start(tmp_path, text, message):
    if text is not None:
        (tmp_path / "scores.json").write_text(text)
    with pytest.raises(ValueError, match=f"^scores.normalise: .*{message}"):
        validate(config_of(tmp_path, normalise=True), {})
    validate(config_of(tmp_path), {})


def test_it_needs_a_reward_model():
    with pytest.raises(ValueError, match="^scores.normalise: it is for the scores of a reward model"):
        GRPOConfig(scores=ScoreConfig(normalise=True))


def test_the_spread_of_the_file_is_that_of_scores(tmp_path):
    """So that normalised scores of the last steps have a mean near 0 and a spread near 1."""
    ctx: SimpleNamespace = SimpleNamespace(memory={}, reduce_mesh=lambda x: x)
    scores = (3 + 2 * torch.randn(512, generator=torch.Generator().manual_seed(0))).tolist()
    metrics = {name: metric.total for name, metric in remember(ctx, torch.tensor(scores)).items()}
    found = json.loads(file_of(metrics)["model/scores.json"])
    assert found["mean"] == pytest.approx(statistics.fmean(scores), rel=1e-5)
    assert found["std"] == pytest.approx(statistics.pstdev(scores), rel=1e-5)
