"""Earlier turns of the assistant are learned as they would have been generated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import AddedToken

from realrl.api.data import DataConfig
from realrl.datasets.demonstrations import DemonstrationDataset, load_demonstrations
from realrl.recipes.sft import SFTConfig
from tests.datasets.test_chat_prompts import published, tokenizer_of

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA_2 = (
    "{% for m in messages %}{% if m.role == 'assistant' %} {{ m.content.strip() }} <eos>"
    "{% else %}[{{ m.content }}]{% endif %}{% endfor %}"
)
SPECIAL = ("<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


CONVERSATION = [
    turn("system", "Add."),
    turn("assistant", "Hello."),
    turn("user", "1+1?"),
    turn("assistant", "two"),
    turn("user", "1+2?"),
    turn("assistant", "three"),
    turn("user", "1+3?"),
    turn("assistant", "four"),
]


def load(tmp_path: Path, template: str, *rows: dict, turns: str = "all", **data):
    tokenizer = tokenizer_of(template)
    tokenizer.bos_token = "<eos>"
    tokenizer.add_tokens([AddedToken(token, special=True) for token in SPECIAL])
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = SFTConfig(data=DataConfig(path=str(path), **data), turns=turns)
    found, _ = load_demonstrations(config, tokenizer)
    return found, tokenizer


def learned(found: DemonstrationDataset, tokenizer, row: int = 0) -> list[str]:
    """The spans of a row's tokens that are learned."""
    tensors = found.tensors(row)
    spans: list[list[int]] = []
    was_learned = False
    for token, is_learned in zip(tensors["input_ids"].tolist(), tensors["loss_mask"].tolist()):
        if is_learned and not was_learned:
            spans.append([])
        if is_learned:
            spans[-1].append(token)
        was_learned = is_learned
    return [tokenizer.decode(span) for span in spans]


def test_all_answers_are_learned_with_their_ends(tmp_path):
    """What the assistant says before a question is no answer."""
    short = [turn("user", "2+2?"), turn("assistant", "4")]
    conversations = (CONVERSATION[:1] + CONVERSATION[2:], CONVERSATION, short)
    rows = [{"messages": messages} for messages in conversations]
    found, tokenizer = load(tmp_path, CHATML, *rows)
    assert learned(found, tokenizer) == ["two<|im_end|>", "three<|im_end|>", "four<|im_end|>"]
    assert learned(found, tokenizer, 1) == learned(found, tokenizer)
    assert learned(found, tokenizer, 2) == ["4<|im_end|>"]
    last, _ = load(tmp_path, CHATML, *rows, turns="last")
    assert learned(last, tokenizer) == ["four<|im_end|>"]
    assert all(last.tensors(row)["input_ids"].equal(found.tensors(row)["input_ids"]) for row in range(3))


def test_a_prompt_and_a_response_are_one_conversation(tmp_path):
    row = {"prompt": CONVERSATION[2:5], "response": "three"}
    found, tokenizer = load(tmp_path, CHATML, row, system="Add.")
    assert learned(found, tokenizer) == ["two<|im_end|>", "three<|im_end|>"]


@pytest.mark.parametrize(
    ("name", "end"), [("qwen2_5", "<|im_end|>"), ("qwen3", "<|im_end|>"), ("llama3", "<|eot_id|>")]
)
def test_published_templates_keep_answers(tmp_path, name, end):
    found, tokenizer = load(tmp_path, published(name), {"messages": CONVERSATION[:1] + CONVERSATION[2:]})
    assert learned(found, tokenizer) == [f"two{end}", f"three{end}", f"four{end}"]


def test_blanks_of_the_template_are_learned_with_an_answer(tmp_path):
    found, tokenizer = load(tmp_path, LLAMA_2, {"messages": CONVERSATION[2:]})
    assert learned(found, tokenizer)[:2] == [" two <eos>", " three <eos>"]


def test_an_answer_that_the_template_changes_is_refused(tmp_path):
    """As its reasoning, or by what is put around the last question alone."""
    thought = [*CONVERSATION[2:3], turn("assistant", "<think>\nhm\n</think>\n\ntwo"), *CONVERSATION[4:]]
    message = "rows.jsonl:1: turns=all: .* does not keep the earlier answer '.*two' .* set turns=last"
    with pytest.raises(ValueError, match=message):
        load(tmp_path, published("qwen3"), {"messages": thought})
    with pytest.raises(ValueError, match=message):
        load(tmp_path, CHATML, {"messages": CONVERSATION[2:]}, suffix=" Answer:")
