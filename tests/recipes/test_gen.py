"""What `gen` makes of a batch, and what it refuses."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from realrl.api.batch import PackedBatch, Sample, pack
from realrl.api.config import GenerationConfig
from realrl.api.configure import build_config
from realrl.api.mesh import DeviceMesh, ExecutionPlan, ParallelLayout, Placement
from realrl.base.progress import no_progress
from realrl.program.jobs import compile_run
from realrl.recipes.gen import GEN, GenConfig, generate, grade
from tests.tiny import tiny_tokenizer

SOLUTIONS = {3: ["7"], 4: []}


class Engine:
    """Answers with what it was asked: a token for greedy or not, and one for the sample's id."""

    def generate(self, batch: PackedBatch, config, **options) -> PackedBatch:
        ids = [torch.tensor([30, int(config.temperature == 0), s.id]) for s in batch.samples]
        masks = [torch.tensor([False, True, True]) for _ in ids]
        return pack(batch.samples, {"input_ids": ids, "loss_mask": masks})


@pytest.mark.parametrize(("greedy", "num_samples"), [(True, 2), (True, 0), (False, 3)])
def test_a_rows_first_answer_is_greedy_where_one_is(greedy, num_samples):
    """Each sample is made once, by its own id."""
    config = GenConfig(greedy=greedy, num_samples=num_samples)
    samples = [Sample(i, i // config.samples_per_row) for i in range(6, 6 + 2 * config.samples_per_row)]
    prompts = pack(samples, {"prompts": [torch.tensor([30]) for _ in samples]})
    ctx = SimpleNamespace(config=config, engine=Engine(), tokenizer=tiny_tokenizer(), preemption=None)
    found = generate(ctx, prompts).batch
    answers = {s.id: ids.tolist()[1:] for s, ids in zip(found.samples, found.unpacked("input_ids"))}
    assert answers == {s.id: [int(greedy and s.id % config.samples_per_row == 0), s.id] for s in samples}


def graded(responses: list[str], first_row: int = 3):
    """Three answers to each of two rows, the first of each greedy."""
    config, tokenizer = GenConfig(greedy=True, num_samples=2), tiny_tokenizer()
    ids = [torch.tensor(tokenizer.encode("3+4=" + text)) for text in responses]
    batch = pack(
        [Sample(3 * first_row + i, first_row + i // 3) for i in range(len(ids))],
        {"input_ids": ids, "loss_mask": [torch.arange(len(x)) >= 4 for x in ids]},
        {"ended": [torch.tensor([i != 1]) for i in range(len(ids))]},
    )
    dataset = SimpleNamespace(
        query_id=lambda row: f"q{row}",
        prompt=lambda row: "3+4=",
        solutions=lambda row: SOLUTIONS.get(row, []),
    )
    return grade(
        SimpleNamespace(config=config, tokenizer=tokenizer, dataset=dataset, progress=no_progress), batch
    )


def test_answers_to_some_rows_are_written_token_by_token():
    """To the same rows however the pass is cut into batches."""
    records = graded(["7", "so 8", "none", "7", "so 8", ""], first_row=15).records
    assert [r.get("tokens") for r in records] == [None, None, None, ["7"], list("so 8"), []]


def test_what_is_written_of_an_answer():
    """All that one may want to know of it; no verdict where there is no solution."""
    records = graded(["7", "so 8", "none", "7", "8", ""]).records
    assert [(r["row"], r["sample"], r["greedy"]) for r in records] == [
        *((3, 0, True), (3, 1, False), (3, 2, False), (4, 0, True), (4, 1, False), (4, 2, False)),
    ]
    assert records[1] == {
        "query_id": "q3",
        "row": 3,
        "sample": 1,
        "greedy": False,
        "prompt": "3+4=",
        "response": "so 8",
        "solutions": ["7"],
        "num_tokens": 4,
        "ended": False,
        "verdict": "wrong",
        "answer": "8",
    }
    assert [r.get("verdict") for r in records] == ["correct", "wrong", "no_answer", None, None, None]


def test_answers_without_solutions_say_nothing_of_accuracy():
    """Greedy and sampled answers are told apart."""
    metrics = graded(["7", "so 8", "7", "7", "8", ""]).metrics
    assert metrics["greedy_accuracy"] == (1, 1) and metrics["accuracy"] == (1, 2)
    assert metrics["truncated"] == (1, 6)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["num_samples=0"], "num_samples must be at least 1, or 0 with greedy: true, got 0"),
        (["num_samples=2", "generation.temperature=0"], "num_samples: with generation.temperature=0 all"),
        (["data.eval_path=x.jsonl"], "data.eval_path: nothing is trained here; give the file as data.path"),
        (["generation.interruptible=true"], "generation.interruptible: nothing is trained here"),
        (["num_steps=3"], "num_steps: unknown key"),
        (["save_every=3"], "save_every: unknown key"),
    ],
)
def test_what_would_do_nothing_is_refused(overrides, message):
    with pytest.raises(ValueError, match=message):
        build_config(GEN.default_config, None, overrides)


def test_weights_are_brought_once():
    """To another engine, and to ranks away from where they lie: a pass changes none, so none is dropped."""
    config = GenConfig(generation=GenerationConfig(engine="vllm"))
    place = Placement(DeviceMesh((0, 1)), ParallelLayout(dp=2))
    nodes = compile_run(GEN, config, ExecutionPlan({"generate": place, "grade": place})).step.instructions
    assert [type(node).__name__ for node in nodes] == ["Reallocate", "RunCall", "Move", "RunCall", "Forget"]
