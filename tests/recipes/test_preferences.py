"""Reward models and direct preference optimisation against transformers and torch.optim, on several
layouts."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModel, AutoModelForCausalLM

from realrl.api.batch import PackedBatch, Sample, pack
from realrl.api.config import OptimizerConfig
from realrl.api.data import DataConfig
from realrl.api.mesh import DeviceMesh, ParallelLayout, Placement
from realrl.datasets.pairs import PairDataset, load_pairs, sequences_of
from realrl.engines.decoder_engine import DecoderEngine
from realrl.engines.options import EngineOptions
from realrl.models.registry import read_decoder_config
from realrl.parallel.groups import Groups, create_groups, local_groups
from realrl.recipes import dpo, rw
from tests.engines.test_engine import check_weights
from tests.tiny import tiny_llama, tiny_tokenizer
from tests.world import run_world

ALONE = Placement(DeviceMesh((0,)), ParallelLayout())
LAYOUTS = [ParallelLayout(dp=2), ParallelLayout(pp=2), ParallelLayout(tp=2)]
PAIRS = [("what is 1+1?", "2", "it is 3"), ("a", "long response", "b"), ("1+2=", "3", "4"), ("hi", "ho", "")]
OPTIMIZER = OptimizerConfig(lr=1e-2, eps=1e-4, clip_grad_norm=0.0)
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


def engine_of(folder: Path, head: str, groups: Groups, *, trained: bool) -> DecoderEngine:
    engine = DecoderEngine(
        read_decoder_config(folder / "model"),
        head,
        groups,
        EngineOptions(
            dtype=torch.float32,
            device="cpu",
            max_tokens_per_microbatch=30,
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
    return SimpleNamespace(config=config, engine=engine, step=0, reduce=groups.reduce)


def trained_by_dpo(folder: Path, groups: Groups) -> tuple[DecoderEngine, dict]:
    """One step, whose reference is the model with one matrix changed."""
    config = dpo.DPOConfig(optimizer=OPTIMIZER, beta=0.5, num_steps=1)
    batch = share(folder, groups)
    ref = engine_of(folder, "lm", groups, trained=False)
    for name, weight in ref.local_tensors().items():
        if name.endswith("mlp_down"):
            weight.mul_(1.3)
    found = dpo.ref_inf(context(config, ref, groups), batch).batch
    if found is None:
        found = batch.with_keys(tokens={"ref_logprobs": torch.zeros(batch.num_tokens)})
    engine = engine_of(folder, "lm", groups, trained=True)
    return engine, dpo.train(context(config, engine, groups), found).metrics


def sequences(folder: Path) -> list[tuple[Tensor, int]]:
    """Each sequence's ids, chosen and rejected by turns, and its prompt's length; from the texts alone."""
    tokenizer = tiny_tokenizer()
    encode = lambda text: tokenizer.encode(text, add_special_tokens=False)  # noqa: E731
    return [
        (torch.tensor([*encode(prompt), *encode(response), tokenizer.eos_token_id]), len(encode(prompt)))
        for prompt, *responses in PAIRS
        for response in responses
    ]


def reference_by_dpo(folder: Path) -> tuple[dict[str, Tensor], float]:
    """The weights after the same step in transformers, and the loss before it."""
    model, ref = (AutoModelForCausalLM.from_pretrained(folder / "model") for _ in range(2))
    for name, weight in ref.named_parameters():
        if "down_proj" in name:
            weight.data.mul_(1.3)

    def total(model, ids: Tensor, prompt: int) -> Tensor:
        logprobs = model(ids[None]).logits[0].log_softmax(-1)
        return logprobs[prompt - 1 : -1].gather(-1, ids[prompt:, None]).sum()

    scores = [0.5 * (total(model, *s) - total(ref, *s).detach()) for s in sequences(folder)]
    loss = torch.stack([-F.logsigmoid(a - b) for a, b in zip(scores[0::2], scores[1::2])]).mean()
    return stepped(model, loss), float(loss.detach())


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


def test_dpo_is_that_of_transformers(folder):
    """In micro-batches that are too small for all pairs, but hold each whole."""
    engine, metrics = trained_by_dpo(folder, local_groups(ALONE))
    expected, loss = reference_by_dpo(folder)
    check_weights(engine, expected)
    assert metrics["loss"].total / metrics["loss"].weight == pytest.approx(loss, rel=1e-5)
    assert metrics["accuracy"].weight == len(PAIRS)


def test_a_reward_models_step_is_that_of_transformers(folder):
    """Scores are the head's at each sequence's end."""
    groups = local_groups(ALONE)
    config = rw.RewardModelConfig(optimizer=OPTIMIZER, num_steps=1)
    engine = engine_of(folder, "scalar", groups, trained=True)
    metrics = rw.train(context(config, engine, groups), share(folder, groups)).metrics
    body = AutoModel.from_pretrained(folder / "model")
    scores = [(body(ids[None]).last_hidden_state[0, -1] @ HEAD[0]) for ids, _ in sequences(folder)]
    loss = torch.stack([-F.logsigmoid(a - b) for a, b in zip(scores[0::2], scores[1::2])]).mean()
    weights = {f"model.{name}": weight for name, weight in stepped(body, loss).items()}
    ours = {s.box.tensor: s.local for s in engine.layout.shards(0)}
    check_weights(engine, weights | {"score.weight": engine.local_tensors()[ours["score.weight"]]})
    assert metrics["loss"].total / metrics["loss"].weight == pytest.approx(float(loss.detach()), rel=1e-5)


@pytest.mark.slow
def test_layouts_do_not_matter(folder):
    run_world(_check_layouts, 2, folder)


def _check_layouts(rank: int, folder: Path) -> None:
    expected, _ = reference_by_dpo(folder)
    placements = [Placement(DeviceMesh((0, 1)), layout) for layout in LAYOUTS]
    for _, groups in sorted(create_groups(placements, rank).items()):
        check_weights(trained_by_dpo(folder, groups)[0], expected)


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
