"""Prompts as text and as messages, in the tokenizer's chat template or in a named one."""

from __future__ import annotations

import json
from typing import get_args

import pytest

from realrl.api.data import DataConfig
from realrl.api.prompt_keys import Template
from realrl.datasets.prompts import load_prompts
from realrl.datasets.templates import TEMPLATES
from tests.tiny import tiny_tokenizer

CHAT = (
    "{% for m in messages %}[{{ m.role }}:{{ m.content }}]{% endfor %}"
    "{% if add_generation_prompt %}={% endif %}"
)
TURNS = [{"role": "system", "content": "add."}, {"role": "user", "content": "1+1?"}]
R1_ZERO = (
    "a conversation between user and assistant. the user asks a question, and the assistant solves it. the"
    " assistant first thinks about the reasoning process in the mind and then provides the user with the"
    " answer. the reasoning process and answer are enclosed within <think> </think> and <answer> </answer>"
    " tags, respectively, i.e., <think> reasoning process here </think> <answer> answer here </answer>."
)
ASKED = "please reason step by step, and put your final answer within \\boxed{}."
EXPECTED = {
    "plain": "1+1?",
    "r1-distill": f"<｜User｜>1+1?\n{ASKED}<｜Assistant｜><think>\n",
    "r1-zero": f"{R1_ZERO} user: 1+1?\nassistant:",
    "orz": f"{R1_ZERO} user: you must put your answer inside <answer> </answer> tags, i.e., <answer> answer"
    " here </answer>. and your final answer will be extracted automatically by the \\boxed{} tag. 1+1?\n"
    "assistant: <think>",
    "qwen-boxed": f"<|im_start|>system\n{ASKED}<|im_end|>\n<|im_start|>user\n1+1?<|im_end|>\n"
    "<|im_start|>assistant\n",
}


def asked(tmp_path, prompt, template, *, chat_template=None):
    """One problem, and the text of its tokens."""
    path, tokenizer = tmp_path / "d.jsonl", tiny_tokenizer()
    tokens = {token for form in TEMPLATES.values() for token in form.tokens} | {"<", ">", "|"}
    tokenizer.add_tokens(sorted(tokens), special_tokens=True)
    tokenizer.chat_template = chat_template
    path.write_text(json.dumps({"prompt": prompt, "solutions": ["2"]}))
    data = DataConfig(path=str(path), template=template, max_prompt_tokens=1000)
    dataset, _ = load_prompts(data, tokenizer)
    return dataset, tokenizer.decode(dataset.tensors(0)["prompts"])


def test_each_name_stands_for_its_published_text(tmp_path):
    """Written out here once more; the tiny tokenizer knows lower case alone."""
    assert set(get_args(Template)) == {"chat", *TEMPLATES} == {"chat", *EXPECTED}
    for name, expected in EXPECTED.items():
        assert asked(tmp_path, "1+1?", name)[1] == expected


def test_messages_go_through_the_chat_template(tmp_path):
    """And text is one of a user; rewards see what is said, whoever says it."""
    dataset, text = asked(tmp_path, TURNS, "chat", chat_template=CHAT)
    assert text == "[system:add.][user:1+1?]=" and dataset.prompt(0) == "add.\n\n1+1?"
    dataset, text = asked(tmp_path, "1+1?", "chat", chat_template=CHAT)
    assert text == "[user:1+1?]=" and dataset.prompt(0) == "1+1?"


def test_one_message_of_a_user_is_as_good_as_text(tmp_path):
    """Where there are no turns to put it into."""
    for name in ("chat", *EXPECTED):
        assert asked(tmp_path, TURNS[1:], name)[1] == EXPECTED.get(name, "1+1?")


@pytest.mark.parametrize("template", ["chat", "orz"])
def test_other_messages_need_a_chat_template(tmp_path, template):
    message = rf"d\.jsonl:1: data\.template={template} takes .*got messages of system, user"
    with pytest.raises(ValueError, match=message):
        asked(tmp_path, TURNS, template)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [([], "length >= 1"), ([{"role": "user"}], "missing required field `content`"), ([1], "got `int`")],
)
def test_messages_that_are_none(tmp_path, prompt, message):
    with pytest.raises(ValueError, match=rf"d\.jsonl:1: .*{message}"):
        asked(tmp_path, prompt, "chat", chat_template=CHAT)


def test_a_template_of_another_models_tokens_is_refused(tmp_path):
    (tmp_path / "d.jsonl").write_text(json.dumps({"prompt": "1+1?", "solutions": ["2"]}))
    data = DataConfig(path=str(tmp_path / "d.jsonl"), template="qwen-boxed")
    with pytest.raises(ValueError, match=r"data\.template: qwen-boxed .*the token <\|im_start\|>"):
        load_prompts(data, tiny_tokenizer())
