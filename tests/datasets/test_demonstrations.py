from __future__ import annotations

import json
import re

import pytest

from realrl.api.data import DataConfig
from realrl.datasets.demonstrations import load_demonstrations
from realrl.recipes.sft import SFTConfig
from tests.tiny import tiny_tokenizer


def load(path, eval_path=None, **settings):
    tokenizer = tiny_tokenizer()
    data = DataConfig(path=str(path), eval_path=eval_path, max_prompt_tokens=64)
    config = SFTConfig(data=data, **settings)
    return *load_demonstrations(config, tokenizer), tokenizer


def test_the_mask_marks_the_response_and_its_end(tmp_path):
    (tmp_path / "d.jsonl").write_text(json.dumps({"prompt": "3+4=", "response": "7!"}))
    train, held_out, tokenizer = load(tmp_path / "d.jsonl")
    row = train.tensors(0)
    ids, mask = row["input_ids"], row["loss_mask"]
    assert held_out is None and train.place(0) == f"{tmp_path / 'd.jsonl'}:1"
    assert train.length(0) == len(ids) == len(mask)
    assert tokenizer.decode(ids[~mask]) == "3+4=" and tokenizer.decode(ids[mask]) == "7!<eos>"


def test_a_problem_is_a_demonstration_of_its_first_solution(tmp_path):
    (tmp_path / "d.jsonl").write_text(
        json.dumps({"query_id": "1", "prompt": "3+4=", "solutions": ["7", "vii"]})
    )
    train, _, tokenizer = load(tmp_path / "d.jsonl")
    assert tokenizer.decode(train.tensors(0)["input_ids"]) == r"3+4=\boxed{7}<eos>"


GENERATED = [
    {"response": "7", "verdict": "correct", "ended": True},
    {"response": "8", "verdict": "wrong", "ended": True},
    {"response": "9", "verdict": "timeout", "ended": True},
    {"response": "7 or", "verdict": "correct", "ended": False},
    {"response": "by hand"},
    {"response": "unchecked", "ended": True},
]
"""As `gen` writes them, but for the fifth."""


@pytest.mark.parametrize(
    ("settings", "learned", "notes"),
    [
        (
            {},
            ["7<eos>", "by hand<eos>", "unchecked<eos>"],
            ["2 of 6 responses, whose", "1 of 4 responses, which"],
        ),
        (
            {"truncated": "learn"},
            ["7<eos>", "7 or", "by hand<eos>", "unchecked<eos>"],
            ["2 of 6 responses, whose"],
        ),
        (
            {"verdicts": ("correct", "timeout")},
            ["7<eos>", "9<eos>", "by hand<eos>", "unchecked<eos>"],
            ["1 of 6 responses, whose `verdict` is not correct or timeout", "1 of 5 responses, which"],
        ),
        (
            {"verdicts": (), "truncated": "learn"},
            ["7<eos>", "8<eos>", "9<eos>", "7 or", "by hand<eos>", "unchecked<eos>"],
            [],
        ),
    ],
    ids=str,
)
def test_of_generated_responses_the_right_ones_are_learned(tmp_path, settings, learned, notes):
    """What is wrong or cut off is dropped and counted, unless it is asked for; and what was cut off does not
    end where it was."""
    lines = [json.dumps({"prompt": "3+4=", "solutions": ["7"], **row}) + "\n" for row in GENERATED]
    (tmp_path / "generations.jsonl").write_text("".join(lines))
    train, _, tokenizer = load(tmp_path / "generations.jsonl", **settings)
    texts = []
    for row in range(len(train)):
        tensors = train.tensors(row)
        texts.append(tokenizer.decode(tensors["input_ids"][tensors["loss_mask"]]))
    assert texts == learned
    assert len(train.notes) == len(notes)
    assert all(f"dropped {note}" in found for note, found in zip(notes, train.notes))


def test_nothing_right_to_learn_from_is_refused(tmp_path):
    """With the setting that left it out."""
    (tmp_path / "wrong.jsonl").write_text(json.dumps({"prompt": "3+4=", **GENERATED[1]}))
    with pytest.raises(ValueError, match=r"no rows are left; dropped 1 of 1 .* not correct \(verdicts\)"):
        load(tmp_path / "wrong.jsonl")


def test_sums_have_a_training_and_a_held_out_side():
    train, held_out, tokenizer = load("sums")
    assert len(train) > len(held_out) > 20
    for dataset in (train, held_out):
        text = tokenizer.decode(dataset.tensors(0)["input_ids"], skip_special_tokens=True)
        *addends, answer = map(int, re.findall(r"\d+", text))
        assert len(addends) == 2 and sum(addends) == answer


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "x"}', "neither `response` nor `solutions`"),
        ('{"prompt": "x", "response": 1}', "Expected `str`"),
    ],
)
def test_a_bad_line_is_named_by_file_and_number(tmp_path, line, message):
    (tmp_path / "bad.jsonl").write_text(line)
    with pytest.raises(ValueError, match=rf"bad\.jsonl:1: .*{message}"):
        load(tmp_path / "bad.jsonl")
