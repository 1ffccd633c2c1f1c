"""Learning from pairs, by reward models and by policies, against transformers and torch.optim, on several
layouts."""

from __future__ import annotations

import json
import statistics
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModel, AutoModelForCausalLM

from realrl.api.batch import PackedBatch, Sample, pack
from realrl.api.config import OptimizerConfig
from realrl.api.configure import build_config
from realrl.api.data import DataConfig
from realrl.api.mesh import DeviceMesh, ParallelLayout, Placement
from realrl.api.metrics import Metric
from realrl.datasets.pairs import PairDataset, load_pairs, sequences_of
from realrl.engines.decoder_engine import DecoderEngine
from realrl.engines.options import EngineOptions
from realrl.models.registry import read_decoder_config
from realrl.parallel.groups import Groups, create_groups, local_groups
from realrl.recipes import RECIPES, dpo, ipo, orpo, rw, simpo
from tests.engines.test_engine import check_weights
from tests.tiny import tiny_llama, tiny_tokenizer
from tests.world import run_world

ALONE = Placement(DeviceMesh((0,)), ParallelLayout())
LAYOUTS = [ParallelLayout(dp=2), ParallelLayout(pp=2), ParallelLayout(tp=2)]
PAIRS = [("what is 1+1?", "2", "it is 3"), ("a", "long response", "b"), ("1+2=", "3", "4"), ("hi", "ho", "")]
OPTIMIZER = OptimizerConfig(lr=1e-2, eps=1e-3, clip_grad_norm=0.0)
HEAD = torch.linspace(-1, 1, 32)[None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model, and pairs."""
    folder = tmp_path_factory.mktemp("pairs")
    tiny_llama(folder / "model")
    rows = [dict(zip(("prompt", "chosen", "rejected"), pair)) for pair in PAIRS]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def dataset(folder: Path) -> PairDataset:
    data = DataConfig(path=str(folder / "pairs.jsonl"), template="plain")
    found, held_out = load_pairs(SimpleNamespace(data=data), tiny_tokenizer())
    assert held_out is None
    return found


def share(folder: Path, groups: Groups) -> PackedBatch:
    """This data-parallel rank's pairs."""
    rows = dataset(folder)
    mine = range(groups.place.dp_rank, len(PAIRS), groups.placement.layout.dp)
    tensors = {row: rows.tensors(row) for row in mine}
    tokens = {key: [tensors[row][key] for row in mine] for key in ("input_ids", "loss_mask")}
    return pack(
        [Sample(row, row) for row in mine],
        tokens,
        {"chosen_tokens": [tensors[r]["chosen_tokens"] for r in mine]},
    )


def engine_of(
    folder: Path, head: str, groups: Groups, *, trained: bool, max_tokens: int = 30
) -> DecoderEngine:
    engine = DecoderEngine(
        read_decoder_config(folder / "model"),
        head,
        groups,
        EngineOptions(
            dtype=torch.float32,
            device="cpu",
            max_tokens_per_microbatch=max_tokens,
            optimizer=OPTIMIZER if trained else None,
        ),
    )
    engine.load(folder / "model")
    if head == "scalar" and "head" in engine.local_tensors():
        with torch.no_grad():
            engine.local_tensors()["head"].copy_(HEAD)
        engine.adopt(version=0)
    return engine


def context(config, engine: DecoderEngine, groups: Groups) -> SimpleNamespace:
    return SimpleNamespace(
        config=config,
        engine=engine,
        step=0,
        reduce=groups.reduce,
        reduce_mesh=groups.reduce_mesh,
        memory={},
    )


def trained(
    name: str, folder: Path, groups: Groups, max_tokens: int = 30
) -> tuple[DecoderEngine, dict[str, Metric]]:
    """One step of a case; a reference is the model with one matrix changed."""
    config, _ = CASES[name]
    config = replace(config, optimizer=OPTIMIZER, num_steps=1)
    recipe = RECIPES[config.experiment]
    batch = share(folder, groups)
    if "ref_inf" in recipe.graph(config).calls:
        ref = engine_of(folder, "lm", groups, trained=False)
        for weight_name, weight in ref.local_tensors().items():
            if weight_name.endswith("mlp_down"):
                weight.mul_(1.3)
        found = recipe.bodies["ref_inf"](context(config, ref, groups), batch).batch
        batch = found or batch.with_keys(tokens={"ref_logprobs": torch.zeros(batch.num_tokens)})
    engine = engine_of(folder, "lm", groups, trained=True, max_tokens=max_tokens)
    metrics = recipe.bodies["train"](context(config, engine, groups), batch).metrics
    return engine, dict(metrics)


def sequences(folder: Path) -> list[tuple[Tensor, int]]:
    """Each sequence's ids, chosen and rejected by turns, and its prompt's length; from the texts alone."""
    tokenizer = tiny_tokenizer()
    encode = lambda text: tokenizer.encode(text, add_special_tokens=False)  # noqa: E731
    return [
        (torch.tensor([*encode(prompt), *encode(response), tokenizer.eos_token_id]), len(encode(prompt)))
        for prompt, *responses in PAIRS
        for response in responses
    ]


class Logprobs(NamedTuple):
    """Log-probabilities of the tokens of one response."""

    own: Tensor
    ref: Tensor

    @property
    def ratio(self) -> Tensor:
        return (self.own - self.ref).sum()

    @property
    def mean_ratio(self) -> Tensor:
        return (self.own - self.ref).mean()


def dpo_loss(chosen: Logprobs, rejected: Logprobs) -> Tensor:
    return -F.logsigmoid(0.5 * (chosen.ratio - rejected.ratio))


def by_length(chosen: Logprobs, rejected: Logprobs) -> Tensor:
    """By token, with a share of wrong labels and the chosen response learned besides."""
    difference = 5 * (chosen.mean_ratio - rejected.mean_ratio)
    preferred = -0.9 * F.logsigmoid(difference) - 0.1 * F.logsigmoid(-difference)
    return preferred - 0.3 * chosen.own.mean()


def ipo_loss(chosen: Logprobs, rejected: Logprobs) -> Tensor:
    return (chosen.mean_ratio - rejected.mean_ratio - 1 / (2 * 0.25)) ** 2


def simpo_loss(chosen: Logprobs, rejected: Logprobs) -> Tensor:
    return -F.logsigmoid(2.5 * chosen.own.mean() - 2.5 * rejected.own.mean() - 1.4)


def orpo_loss(chosen: Logprobs, rejected: Logprobs) -> Tensor:
    likely = [response.own.mean().exp() for response in (chosen, rejected)]
    odds = [p / (1 - p) for p in likely]
    return -chosen.own.mean() - 0.2 * F.logsigmoid((odds[0] / odds[1]).log())


CASES = {
    "dpo": (dpo.DPOConfig(beta=0.5), dpo_loss),
    "dpo, by length, smooth, with SFT": (
        dpo.DPOConfig(beta=5.0, length_normalised=True, smoothing=0.1, sft_coef=0.3),
        by_length,
    ),
    "ipo": (ipo.IPOConfig(beta=0.25), ipo_loss),
    "simpo": (simpo.SimPOConfig(beta=2.5, margin=1.4), simpo_loss),
    "orpo": (orpo.ORPOConfig(odds_ratio_coef=0.2), orpo_loss),
}
"""Configs of recipes, each with the loss of one pair as its paper writes it."""


def reference(name: str, folder: Path) -> tuple[dict[str, Tensor], float]:
    """The weights after the same step in transformers, in float64, and the loss before it."""
    _, formula = CASES[name]
    model, ref = (AutoModelForCausalLM.from_pretrained(folder / "model").double() for _ in range(2))
    for weight_name, weight in ref.named_parameters():
        if "down_proj" in weight_name:
            weight.data.mul_(1.3)

    def logprobs(model, ids: Tensor, prompt: int) -> Tensor:
        of_all = model(ids[None]).logits[0].log_softmax(-1)
        return of_all[prompt - 1 : -1].gather(-1, ids[prompt:, None])[:, 0]

    responses = [Logprobs(logprobs(model, *s), logprobs(ref, *s).detach()) for s in sequences(folder)]
    losses = [formula(*pair) for pair in zip(responses[0::2], responses[1::2])]
    loss = torch.stack(losses).mean()
    weights = {key: weight.float() for key, weight in stepped(model, loss).items()}
    return weights, float(loss.detach())


def stepped(model, loss: Tensor) -> dict[str, Tensor]:
    adamw = torch.optim.AdamW(
        model.parameters(),
        lr=OPTIMIZER.lr,
        betas=(OPTIMIZER.beta1, OPTIMIZER.beta2),
        eps=OPTIMIZER.eps,
        weight_decay=0,
    )
    loss.backward()
    adamw.step()
    return model.state_dict()


@pytest.mark.parametrize("name", CASES)
def test_a_step_is_that_of_transformers(name, folder):
    """In micro-batches that are too small for all pairs, but hold each whole; and in one for all."""
    expected, loss = reference(name, folder)
    for max_tokens in (30, 1000):
        engine, metrics = trained(name, folder, local_groups(ALONE), max_tokens)
        check_weights(engine, expected)
        assert metrics["loss"].total / metrics["loss"].weight == pytest.approx(loss, rel=1e-5)
        assert metrics["accuracy"].weight == len(PAIRS)


def test_terms_of_a_loss_are_reported(folder):
    """Together they are the loss."""
    _, metrics = trained("orpo", folder, local_groups(ALONE))
    means = {
        name: float(metrics[name].total) / len(PAIRS) for name in ("loss", "chosen_nll", "odds_ratio_loss")
    }
    assert means["loss"] == pytest.approx(means["chosen_nll"] + 0.2 * means["odds_ratio_loss"])


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        (dpo.DPOConfig, {"beta": 0.0}, "^beta must be positive, got 0"),
        (dpo.DPOConfig, {"smoothing": 0.5}, "^smoothing must be from 0 to below 0.5, got 0.5; .*data.fields"),
        (dpo.DPOConfig, {"sft_coef": -1.0}, "^sft_coef must not be negative"),
        (ipo.IPOConfig, {"beta": -1.0}, "^beta must be positive"),
        (simpo.SimPOConfig, {"beta": 0.0}, "^beta must be positive"),
        (simpo.SimPOConfig, {"margin": -1.0}, "^margin must not be negative"),
        (orpo.ORPOConfig, {"odds_ratio_coef": 0.0}, "^odds_ratio_coef must be positive"),
    ],
)
def test_values_that_are_no_algorithm_are_refused(config, settings, message):
    with pytest.raises(ValueError, match=message):
        config(**settings)


def test_recipes_without_a_reference_have_none():
    """Neither its model nor its key."""
    for name in ("simpo", "orpo"):
        recipe = RECIPES[name]
        assert set(recipe.models(recipe.default_config)) == {"model"}
        with pytest.raises(ValueError, match="ref"):
            build_config(recipe.default_config, None, ["ref.path=m"])


MARGINS = [0.5, 0.0, -0.25, 2.0]


@pytest.mark.parametrize(("centring_coef", "has_margins"), [(0.0, False), (0.02, True)])
def test_a_reward_models_step_is_that_of_transformers(folder, centring_coef, has_margins):
    """Scores are the head's at each sequence's end; pairs may have margins, and scores may be centred."""
    groups = local_groups(ALONE)
    config = rw.RewardModelConfig(optimizer=OPTIMIZER, num_steps=1, centring_coef=centring_coef)
    engine = engine_of(folder, "scalar", groups, trained=True)
    margins = MARGINS if has_margins else [0.0] * len(PAIRS)
    batch = share(folder, groups).with_keys(per_sample={"margin": torch.tensor(margins)})
    metrics = rw.train(context(config, engine, groups), batch).metrics
    body = AutoModel.from_pretrained(folder / "model")
    scores = [(body(ids[None]).last_hidden_state[0, -1] @ HEAD[0]) for ids, _ in sequences(folder)]
    losses = []
    for chosen, rejected, margin in zip(scores[0::2], scores[1::2], margins):
        centring = (chosen + rejected) ** 2
        losses.append(-F.logsigmoid(chosen - rejected - margin) + centring_coef * centring)
    loss = torch.stack(losses).mean()
    weights = {f"model.{name}": weight for name, weight in stepped(body, loss).items()}
    ours = {s.box.tensor: s.local for s in engine.layout.shards(0)}
    check_weights(engine, weights | {"score.weight": engine.local_tensors()[ours["score.weight"]]})
    assert metrics["loss"].total / metrics["loss"].weight == pytest.approx(float(loss.detach()), rel=1e-5)
    assert ("centring_loss" in metrics) == bool(centring_coef)
    values = [float(score.detach()) for score in scores]
    assert metrics["score_mean"].total == pytest.approx(statistics.fmean(values), rel=1e-4)
    assert metrics["score_std"].total == pytest.approx(statistics.pstdev(values), rel=1e-4)


def test_margins_are_read_for_reward_models(tmp_path):
    """Other recipes may have a field of that name with another meaning."""
    rows = [{"prompt": "a", "chosen": "b", "rejected": "c", "margin": m} for m in (2, 0.5, None)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = SimpleNamespace(data=DataConfig(path=str(path), template="plain"))
    found, _ = load_pairs(config, tiny_tokenizer(), has_margins=True)
    assert [found.tensors(row)["margin"].tolist() for row in range(3)] == [[2.0], [0.5], [0.0]]
    path.write_text(json.dumps({**rows[0], "margin": "slightly better"}))
    with pytest.raises(ValueError, match=r"rows.jsonl:1: `margin` must be a number.* got 'slightly better'"):
        load_pairs(config, tiny_tokenizer(), has_margins=True)
    assert load_pairs(config, tiny_tokenizer())[0].tensors(0)["margin"].tolist() == [0.0]


@pytest.mark.slow
def test_layouts_do_not_matter(folder):
    run_world(_check_layouts, 2, folder)


def _check_layouts(rank: int, folder: Path) -> None:
    expected = {name: reference(name, folder)[0] for name in CASES}
    placements = [Placement(DeviceMesh((0, 1)), layout) for layout in LAYOUTS]
    alone = scale_of_scores(folder, local_groups(ALONE))
    for _, groups in sorted(create_groups(placements, rank).items()):
        for name, weights in expected.items():
            check_weights(trained(name, folder, groups)[0], weights)
        assert scale_of_scores(folder, groups) == pytest.approx(alone, rel=1e-4)


def scale_of_scores(folder: Path, groups: Groups) -> list[float]:
    """The mean and the standard deviation of a reward model's scores, as each rank finds them."""
    config = rw.RewardModelConfig(optimizer=OPTIMIZER, num_steps=1)
    engine = engine_of(folder, "scalar", groups, trained=True)
    batch = share(folder, groups)
    batch = batch.with_keys(per_sample={"margin": torch.zeros(len(batch))})
    metrics = rw.train(context(config, engine, groups), batch).metrics
    return [metrics[name].total for name in ("score_mean", "score_std")]


def test_pairs_are_taken_apart_as_they_were_put_together(folder):
    """Prompt, response, end: with the prompt masked, and token by token in the pairs' order."""
    batch = share(folder, local_groups(ALONE))
    found = sequences_of(batch)
    expected = sequences(folder)
    assert [s.row for s in found.samples] == [0, 0, 1, 1, 2, 2, 3, 3]
    for ids, mask, (theirs, prompt) in zip(
        found.unpacked("input_ids"), found.unpacked("loss_mask"), expected
    ):
        assert torch.equal(ids, theirs) and mask.tolist() == [False] * prompt + [True] * (len(ids) - prompt)
    assert torch.equal(found["input_ids"], batch["input_ids"])
    rows = dataset(folder)
    assert rows.longest_sequence(0) == len(expected[1][0]) and rows.length(0) == sum(
        len(x) for x, _ in expected[:2]
    )
    assert rows.place(3) == f"{folder / 'pairs.jsonl'}:4"


def test_held_out_sums_are_not_those_of_training():
    data = DataConfig(path="sums", template="plain")
    train, held_out = load_pairs(SimpleNamespace(data=data), tiny_tokenizer())
    texts = [{tuple(d.tensors(i)["input_ids"].tolist()) for i in range(len(d))} for d in (train, held_out)]
    assert len(texts[0]) == len(train) and texts[0].isdisjoint(texts[1])
