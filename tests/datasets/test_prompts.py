from __future__ import annotations

import json

import pytest
import torch

from realrl.datasets.demo import resolve_model
from realrl.datasets.prompts import load_prompts
from tests.tiny import tiny_tokenizer

GOOD = {"query_id": "q", "prompt": "what is 3+4?", "solutions": ["7"], "task": "math"}


def write(path, *lines) -> str:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return str(path)


def load(path, *, max_prompt_tokens=64, chat=True, tokenizer=None, eval=False):
    tokenizer = tokenizer or tiny_tokenizer()
    return load_prompts(path, tokenizer, max_prompt_tokens=max_prompt_tokens, chat=chat, eval=eval)


def test_a_row_gives_its_prompt_its_tokens_and_its_solutions(tmp_path):
    second = {**GOOD, "prompt": "1+1", "solutions": ["2", "two"], "more": 1}
    del second["task"]
    tokenizer = tiny_tokenizer()
    dataset = load(write(tmp_path / "d.jsonl", GOOD, "", second), tokenizer=tokenizer)
    assert len(dataset) == 2
    assert dataset.prompt(1) == "1+1" and dataset.solutions(1) == ["2", "two"]
    ids = dataset.tensors(0)["prompts"]
    assert ids.dtype == torch.int64 and ids.ndim == 1 and len(ids) == dataset.length(0)
    assert tokenizer.decode(ids) == "what is 3+4?"
    assert dataset.place(1) == f"{tmp_path / 'd.jsonl'}:3"


def test_the_chat_template_is_used_only_where_asked_for_and_there(tmp_path):
    path, tokenizer = write(tmp_path / "d.jsonl", GOOD), tiny_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m.content }}]{% endfor %}{% if add_generation_prompt %}:{% endif %}"
    )
    assert tokenizer.decode(load(path, tokenizer=tokenizer).tensors(0)["prompts"]) == "[what is 3+4?]:"
    assert (
        tokenizer.decode(load(path, tokenizer=tokenizer, chat=False).tensors(0)["prompts"]) == "what is 3+4?"
    )


def test_sums_need_no_file():
    train, held_out = load("sums"), load("sums", eval=True)
    assert len(train) > len(held_out) > 20 and train.length(0) > 0
    assert not {train.prompt(i) for i in range(len(train))} & {
        held_out.prompt(i) for i in range(len(held_out))
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"query_id": "1", "prompt": ', "truncated"),
        ("not json", "malformed"),
        ("[1, 2]", "Expected `object`, got `array`"),
        ('{"query_id": "1", "solutions": ["7"]}', "missing required field `prompt`"),
        ('{"query_id": "1", "prompt": 7, "solutions": ["7"]}', r"Expected `str`, got `int` - at `\$.prompt`"),
        (
            '{"query_id": "1", "prompt": "x", "solutions": "7"}',
            r"Expected `array`, got `str` - at `\$.solutions`",
        ),
        ('{"query_id": "1", "prompt": "x", "solutions": []}', "`solutions` is empty"),
        ('{"query_id": "1", "prompt": "", "solutions": ["7"]}', "no tokens"),
        (json.dumps({**GOOD, "prompt": "1+" * 40}), "80 tokens, but data.max_prompt_tokens is 64"),
    ],
)
def test_a_bad_line_is_named_by_file_and_number(tmp_path, line, message):
    path = write(tmp_path / "bad.jsonl", GOOD, "", line)
    with pytest.raises(ValueError, match=rf"bad\.jsonl:3: .*{message}"):
        load(path)


def test_bytes_that_are_no_text_are_a_bad_line(tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b'{"query_id": "1", "prompt": "\xff", "solutions": ["7"]}\n')
    with pytest.raises(ValueError, match=r"bad\.jsonl:1: "):
        load(str(path))


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_an_empty_dataset_is_refused(tmp_path, text):
    (tmp_path / "empty.jsonl").write_text(text)
    with pytest.raises(ValueError, match=r"^data\.path: .*empty\.jsonl: the dataset is empty"):
        load(str(tmp_path / "empty.jsonl"))


def test_a_missing_dataset_says_what_would_do(tmp_path):
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(ValueError, match="cannot read this dataset .*give `sums` or a JSONL file"):
            load(str(path))
    with pytest.raises(ValueError, match="^data.eval_path: "):
        load(str(tmp_path / "none.jsonl"), eval=True)


def test_a_path_without_a_model_says_what_would_do(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(
            ValueError, match="expected a Hugging Face model directory.*smollm2-135m-instruct"
        ):
            resolve_model(str(path))
    (tmp_path / "config.json").write_text("{}")
    assert resolve_model(str(tmp_path)) == tmp_path
