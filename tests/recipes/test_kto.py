"""KTO's step against transformers in float64, on several layouts, and its loss against TRL's trainer."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from realrl.algorithms.preference import kto_loss
from realrl.api.batch import PackedBatch, Sample, pack
from realrl.api.data import DataConfig
from realrl.api.mesh import DeviceMesh, Placement
from realrl.api.metrics import Metrics
from realrl.datasets.labelled import LabelledDataset, load_labelled
from realrl.engines.decoder_engine import DecoderEngine
from realrl.parallel.groups import Groups, create_groups, local_groups
from realrl.recipes import kto
from tests.engines.test_engine import check_weights
from tests.recipes.test_preferences import ALONE, LAYOUTS, OPTIMIZER, context, engine_of, stepped
from tests.tiny import tiny_llama, tiny_tokenizer
from tests.world import run_world

ROWS = [
    ("what is 1+1?", "2", True),
    ("a", "long response", False),
    ("a", "b", True),
    ("1+2=", "4", False),
    ("hi", "ho", True),
]
OTHERS = [4, 0, 0, 2, 3]
"""The row whose response is put to each row's prompt."""
CONFIG = kto.KTOConfig(
    optimizer=OPTIMIZER, num_steps=1, beta=0.5, desirable_weight=1.5, undesirable_weight=0.7
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model, and labelled responses."""
    folder = tmp_path_factory.mktemp("labelled")
    tiny_llama(folder / "model")
    rows = [dict(zip(("prompt", "response", "label"), row)) for row in ROWS]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def dataset(folder: Path) -> LabelledDataset:
    data = DataConfig(path=str(folder / "rows.jsonl"), template="plain")
    found, held_out = load_labelled(SimpleNamespace(data=data), tiny_tokenizer())
    assert held_out is None
    return found


def share(folder: Path, groups: Groups) -> PackedBatch:
    """This data-parallel rank's rows."""
    rows = dataset(folder)
    mine = range(groups.place.dp_rank, len(ROWS), groups.placement.layout.dp)
    tensors = {row: rows.tensors(row) for row in mine}
    columns = {key: [tensors[row][key] for row in mine] for key in kto.LABELLED}
    per_sample = {key: columns.pop(key) for key in ("own_tokens", "is_desirable")}
    return pack([Sample(row, row) for row in mine], columns, per_sample)


def trained(
    folder: Path, groups: Groups, max_tokens: int = 30, weight: float = 1.3
) -> tuple[DecoderEngine, Metrics]:
    """One step; the reference is the model with one matrix changed."""
    batch = share(folder, groups)
    ref = engine_of(folder, "lm", groups, trained=False)
    for name, matrix in ref.local_tensors().items():
        if name.endswith("mlp_down"):
            matrix.mul_(weight)
    engine = engine_of(folder, "lm", groups, trained=True, max_tokens=max_tokens)
    found = kto.ref_inf(context(CONFIG, ref, groups), batch).batch
    measured = None if found is None else kto.kl_inf(context(CONFIG, engine, groups), found).batch
    if measured is None:
        # A pipeline's earlier stages take part in the call, and have none of its results.
        kto.kl_inf(context(CONFIG, engine, groups), batch)
        nothing = torch.zeros(batch.num_tokens)
        measured = batch.with_keys(
            tokens={"ref_logprobs": nothing}, per_sample={"kl_log_ratios": torch.zeros(len(batch))}
        )
    return engine, kto.train(context(CONFIG, engine, groups), measured).metrics


def reference(folder: Path, weight: float = 1.3) -> tuple[dict[str, Tensor], float, float]:
    """The weights after the same step in transformers, the loss before it, and the distance."""
    tokenizer = tiny_tokenizer()
    model, ref = (AutoModelForCausalLM.from_pretrained(folder / "model").double() for _ in range(2))
    for name, matrix in ref.named_parameters():
        if "down_proj" in name:
            matrix.data.mul_(weight)

    def total(model, prompt: str, response: str) -> Tensor:
        before = tokenizer.encode(prompt, add_special_tokens=False)
        after = [*tokenizer.encode(response, add_special_tokens=False), tokenizer.eos_token_id]
        ids = torch.tensor(before + after)
        logprobs = model(ids[None]).logits[0].log_softmax(-1)
        return logprobs[len(before) - 1 : -1].gather(-1, ids[len(before) :, None]).sum()

    def ratio(prompt: str, response: str) -> Tensor:
        return total(model, prompt, response) - total(ref, prompt, response).detach()

    elsewhere = [ratio(row[0], ROWS[other][1]).detach() for row, other in zip(ROWS, OTHERS)]
    kl = max(float(torch.stack(elsewhere).mean()), 0.0)
    losses = []
    for prompt, response, label in ROWS:
        gain = 0.5 * (ratio(prompt, response) - kl)
        losses.append(1.5 * (1 - gain.sigmoid()) if label else 0.7 * (1 - (-gain).sigmoid()))
    loss = torch.stack(losses).mean()
    weights = {name: matrix.float() for name, matrix in stepped(model, loss).items()}
    return weights, float(loss.detach()), kl


@pytest.mark.parametrize("weight", [1.3, 0.8])
def test_a_step_is_that_of_transformers(folder, weight):
    """In micro-batches of one response or two, and in one for all; the distance is above 0 or cut to it."""
    expected, loss, kl = reference(folder, weight)
    for max_tokens in (30, 1000):
        engine, metrics = trained(folder, local_groups(ALONE), max_tokens, weight)
        check_weights(engine, expected)
        assert float(metrics["loss"].total) / metrics["loss"].weight == pytest.approx(loss, rel=1e-5)
        assert metrics["kl"].total == pytest.approx(kl, rel=1e-4, abs=1e-6)
        assert [metrics[f"{kind}desirable_reward"].weight for kind in ("", "un")] == [3, 2]


def test_the_distance_is_above_0_and_cut_to_it(folder):
    """So that the test above has both cases."""
    distances = [reference(folder, weight)[2] for weight in (1.3, 0.8)]
    assert min(distances) == 0 < max(distances)


@pytest.mark.slow
def test_layouts_do_not_matter(folder):
    run_world(_check_layouts, 2, folder)


def _check_layouts(rank: int, folder: Path) -> None:
    expected, _, _ = reference(folder)
    placements = [Placement(DeviceMesh((0, 1)), layout) for layout in LAYOUTS]
    for _, groups in sorted(create_groups(placements, rank).items()):
        check_weights(trained(folder, groups)[0], expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta": 0.0}, "^beta must be positive"),
        ({"desirable_weight": -1.0}, "^desirable_weight must not be negative"),
        ({"desirable_weight": 0.0, "undesirable_weight": 0.0}, "are both 0: nothing would be learned"),
    ],
)
def test_values_that_are_no_algorithm_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        kto.KTOConfig(**settings)


def test_the_loss_is_trls():
    """Its trainer's own function, given a model that says certain log-probabilities."""
    trainer_class = pytest.importorskip("trl.trainer.kto_trainer").KTOTrainer
    generator = torch.Generator().manual_seed(0)
    own, ref, own_elsewhere, ref_elsewhere = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    own_elsewhere = own_elsewhere + 1
    own.requires_grad_()
    labels = torch.tensor([True, False, False, True, True, False])
    kl = float((own_elsewhere - ref_elsewhere).mean().clamp(min=0))
    assert kl > 0

    def model(**_: object) -> SimpleNamespace:
        per_token = torch.stack((own, torch.zeros_like(own)), dim=1)
        return SimpleNamespace(log_probs=per_token, entropy=per_token, mean_logits=per_token)

    trainer = SimpleNamespace(
        model=SimpleNamespace(training=False),
        accelerator=SimpleNamespace(device="cpu", gather_for_metrics=lambda x: x),
        aux_loss_enabled=False,
        precompute_ref_logps=True,
        calculate_KL=True,
        loss_type="kto",
        beta=0.3,
        desirable_weight=1.5,
        undesirable_weight=0.7,
        _metrics={"eval": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
        _compute_kl_logps=lambda model, batch: own_elsewhere,
    )
    inputs = {
        "input_ids": torch.zeros(6, 3, dtype=torch.long),
        "attention_mask": torch.ones(6, 3, dtype=torch.long),
        "completion_mask": torch.tensor([0, 1, 1]).expand(6, 3),
        "label": labels,
        "ref_logps": ref,
        "ref_KL_logps": ref_elsewhere,
    }
    theirs = trainer_class._compute_loss(trainer, model, inputs, False)
    weights = torch.where(labels, 1.5, 0.7)
    ours = (weights * kto_loss(own - ref, labels, kl, beta=0.3)).mean()
    torch.testing.assert_close(ours, theirs)
