"""Responses to learn: where they end, and what is left out for its length."""

from __future__ import annotations

import json

import pytest

from realrl.api.data import DataConfig
from realrl.datasets.demonstrations import load_demonstrations
from realrl.datasets.pairs import load_pairs
from realrl.recipes.sft import SFTConfig
from tests.tiny import tiny_llama, tiny_tokenizer

LOADERS = (load_demonstrations, load_pairs)


def load(loader, tmp_path, *responses: str, tokenizer=None, **settings):
    """Rows whose responses are these, the rejected ones short."""
    rows = [{"prompt": "1+1=", "response": text, "chosen": text, "rejected": "3"} for text in responses]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = SFTConfig(data=DataConfig(path=str(tmp_path / "rows.jsonl"), **settings))
    return loader(config, tokenizer or tiny_tokenizer())[0]


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("written", ["2", "2<eos>", "2<eos>\n", "2<eos><eos> "])
def test_a_response_ends_once(tmp_path, loader, written):
    """Also where a chat template has put the end's text, and a line's end, behind it."""
    dataset = load(loader, tmp_path, written)
    text = tiny_tokenizer().decode(dataset.tensors(0)["input_ids"])
    assert text.startswith("1+1=2<eos>") and text.removeprefix("1+1=2<eos>") in ("", "1+1=3<eos>")
    assert not dataset.notes


def test_an_end_within_a_response_is_counted(tmp_path):
    dataset = load(load_demonstrations, tmp_path, "2", "2<eos>3")
    assert "1 of 2 responses have the end-of-sequence token before their end" in dataset.notes[0]


@pytest.mark.parametrize("loader", LOADERS)
def test_long_responses_are_dropped_if_asked_for_and_counted(tmp_path, loader):
    responses = ("2", "2" * 9, "2" * 10, "2" * 30)
    dataset = load(loader, tmp_path, *responses, max_response_tokens=10, drop_long=True)
    assert len(dataset) == 2 and dataset.place(1).endswith("rows.jsonl:2")
    (note,) = dataset.notes
    assert note.startswith("dropped 2 of 4 rows, whose response has more than data.max_response_tokens=10")
    message = r"rows\.jsonl:3: the response has 11 tokens, but .* is 10; so have 2 of 4 rows; raise that"
    with pytest.raises(ValueError, match=message):
        load(loader, tmp_path, *responses, max_response_tokens=10)


@pytest.mark.parametrize("loader", LOADERS)
def test_a_row_has_the_models_context(tmp_path, loader):
    """Without a limit of one's own: 4 tokens of prompt, and the response with its end."""
    from transformers import AutoTokenizer

    directory = tiny_llama(tmp_path / "model", max_position=32)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    responses = ("2" * 27, "2" * 28)
    dataset = load(loader, tmp_path, *responses, tokenizer=tokenizer, drop_long=True)
    assert len(dataset) == 1 and "more than the model's context=32 tokens" in dataset.notes[0]
    message = (
        r"rows\.jsonl:2: the prompt with its response has 33 tokens, but the model's context is 32; leave"
    )
    with pytest.raises(ValueError, match=message):
        load(loader, tmp_path, *responses, tokenizer=tokenizer)
