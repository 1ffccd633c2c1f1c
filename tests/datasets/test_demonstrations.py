from __future__ import annotations

import json
import re
from types import SimpleNamespace

import pytest

from realrl.api.data import DataConfig
from realrl.datasets.demonstrations import load_demonstrations
from tests.tiny import tiny_tokenizer


def load(path, eval_path=None):
    tokenizer = tiny_tokenizer()
    config = SimpleNamespace(data=DataConfig(path=str(path), eval_path=eval_path, max_prompt_tokens=64))
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
