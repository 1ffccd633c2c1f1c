"""What is put around a question: system messages, prefixes, examples, templates of files, their arguments."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from realrl.api.data import DataConfig, DataSetConfig
from realrl.datasets.demonstrations import load_demonstrations
from realrl.datasets.end_tokens import end_of_response
from realrl.datasets.form import form_of_prompts
from realrl.datasets.prompts import load_prompts
from realrl.recipes.sft import SFTConfig
from tests.tiny import SPECIAL

CHAT = (
    "{% for m in messages %}[{{ m.role }}:{{ m.content }}]{% endfor %}"
    "{% if add_generation_prompt %}{{ '=' if loud is not defined else loud }}{% endif %}"
)
NO_SYSTEM = CHAT.replace("{% for m in messages %}", "{% for m in messages if m.role != 'system' %}")
ROWS = (
    {"prompt": "1+1?", "solutions": ["2"]},
    {
        "prompt": [{"role": "system", "content": "add."}, {"role": "user", "content": "1+2?"}],
        "solutions": ["3"],
    },
)


def tokenizer_of(chat_template: str | None) -> PreTrainedTokenizerFast:
    """A token is a byte, so that every text comes back as it was."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {word: number for number, word in enumerate([*SPECIAL, *alphabet])}
    backend = Tokenizer(models.BPE(vocab, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<eos>", pad_token="<pad>", unk_token="<unk>"
    )
    tokenizer.chat_template = chat_template
    return tokenizer


def write(path: Path, *rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def prompts_of(tmp_path, *rows, chat_template: str | None = CHAT, **settings) -> list[str]:
    """The text of each row's prompt."""
    tokenizer = tokenizer_of(chat_template)
    path = write(tmp_path / "rows.jsonl", *(rows or ROWS))
    data = DataConfig(path=path, max_prompt_tokens=10**6, **settings)
    dataset, _ = load_prompts(data, tokenizer)
    return [tokenizer.decode(prompt) for prompt in dataset.prompts]


def published(name: str) -> str:
    """A model's chat template, as TRL has it."""
    trl = pytest.importorskip("trl")
    file = Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja"
    if not file.is_file():
        pytest.skip(f"this TRL has no chat template {name}")
    return file.read_text()


def test_a_system_message_replaces_a_rows_own(tmp_path):
    """Left out, the rows keep theirs; an empty one is one, too."""
    assert prompts_of(tmp_path) == ["[user:1+1?]=", "[system:add.][user:1+2?]="]
    assert prompts_of(tmp_path, system="Be brief.") == [
        "[system:Be brief.][user:1+1?]=",
        "[system:Be brief.][user:1+2?]=",
    ]
    assert prompts_of(tmp_path, system="")[0] == "[system:][user:1+1?]="


def test_a_prefix_and_a_suffix_are_in_the_message_of_the_question(tmp_path):
    """Braces and blanks stay as they are, with every kind of template; reward functions see the question."""
    around = {"prefix": "Q: ", "suffix": " \\boxed{}"}
    assert prompts_of(tmp_path, **around) == [
        "[user:Q: 1+1? \\boxed{}]=",
        "[system:add.][user:Q: 1+2? \\boxed{}]=",
    ]
    assert prompts_of(tmp_path, ROWS[0], template="plain", **around) == ["Q: 1+1? \\boxed{}"]
    (wrapped,) = prompts_of(tmp_path, ROWS[0], template="r1-zero", **around)
    assert wrapped.endswith("User: Q: 1+1? \\boxed{}\nAssistant:")
    data = DataConfig(path=write(tmp_path / "rows.jsonl", ROWS[0]), **around)
    assert load_prompts(data, tokenizer_of(CHAT))[0].prompt(0) == "1+1?"


def test_a_prefix_needs_a_question_of_the_user(tmp_path):
    turns = [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "It is"}]
    with pytest.raises(ValueError, match=r"rows\.jsonl:1: the last message is of assistant, and"):
        prompts_of(tmp_path, {"prompt": turns, "solutions": ["2"]}, prefix="Q: ")


@pytest.mark.parametrize("key", ["system", "prefix", "suffix"])
@pytest.mark.parametrize("place", ["{question}", "{{ prompt }}", "{input}"])
def test_texts_have_no_places_for_the_question(key, place):
    """As other trainers' templates have; a box in braces is none."""
    with pytest.raises(ValueError, match=rf"^{key}: the text is taken as it is written, and has no places"):
        DataConfig(path="x", **{key: f"Solve {place}."})
    DataConfig(path="x", **{key: "Put it within \\boxed{} or {x} or \\text{input}."})


def test_the_template_of_a_file(tmp_path):
    """Whatever the tokenizer has of its own; it is given the special tokens, as every other one."""
    file = tmp_path / "mine.jinja"
    file.write_text("{% for m in messages %}<{{ m.content }}>{% endfor %}{{ eos_token }}")
    for own in (CHAT, None):
        found = prompts_of(tmp_path, chat_template=own, template=str(file))
        assert found == ["<1+1?><eos>", "<add.><1+2?><eos>"]


def test_responses_end_as_the_template_of_a_file_ends_turns(tmp_path):
    tokenizer = tokenizer_of(CHAT)
    tokenizer.add_tokens(["<|end|>"], special_tokens=True)
    file = tmp_path / "mine.jinja"
    file.write_text("{% for m in messages %}{{ m.content }}<|end|>{% endfor %}")
    assert end_of_response(tokenizer, str(file)) == tokenizer.convert_tokens_to_ids("<|end|>")
    assert end_of_response(tokenizer, "chat") == tokenizer.eos_token_id


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{% for m in messages %}{{ m.content }}", r"mine\.jinja, line 1: .*'endfor'.*; mend it"),
        ("{{ messages[0].content }}{{ sysmessage }}", r"mine\.jinja: 'sysmessage' is undefined; give it in"),
        ("{% for m in messages %}{{ m.contents }}{% endfor %}", r"mine\.jinja: .*no attribute 'contents'"),
        ("{% for m in messages %}{{ m.role }}{% endfor %}", r"mine\.jinja: it leaves out the question"),
        ("{{ raise_exception('never') }}", r"mine\.jinja: it fails \(never\); mend it"),
        ("{{ messages[0].content + 1 }}", r"mine\.jinja: it fails \(can only concatenate"),
        (" \n", r"mine\.jinja is empty"),
        ("{{ messages[2].content }}{{ messages[0].content }}", r"mine\.jinja: .*no element 2"),
    ],
)
def test_a_file_that_is_no_template(tmp_path, text, message):
    file = tmp_path / "mine.jinja"
    file.write_text(text)
    with pytest.raises(ValueError, match=rf"^data\.template: .*{message}"):
        prompts_of(tmp_path, template=str(file))


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match=r"^data\.template: cannot read .*none\.jinja \(No such file"):
        prompts_of(tmp_path, template=str(tmp_path / "none.jinja"))
    (tmp_path / "binary.jinja").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"^data\.template: cannot read .*binary\.jinja"):
        prompts_of(tmp_path, template=str(tmp_path / "binary.jinja"))


def test_a_template_that_drops_the_system_message_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"^data\.template: .*rows\.jsonl:1: the tokenizer's chat template leaves out"
    ):
        prompts_of(tmp_path, chat_template=NO_SYSTEM, system="Be brief.")
    assert prompts_of(tmp_path, ROWS[0], chat_template=NO_SYSTEM) == ["[user:1+1?]="]


def test_a_template_argument_is_one_that_the_template_reads(tmp_path):
    assert prompts_of(tmp_path, ROWS[0], template_arguments={"loud": "!"}) == ["[user:1+1?]!"]
    with pytest.raises(
        ValueError, match=r"^data\.template_arguments\.lodu: .*reads no such variable; it reads loud; did you"
    ):
        prompts_of(tmp_path, template_arguments={"lodu": "!"})
    own = "{% set loud = loud if loud is defined else '=' %}{{ messages[0].content }}{{ loud }}"
    assert prompts_of(tmp_path, ROWS[0], chat_template=own, template_arguments={"loud": "!"}) == ["1+1?!"]
    with pytest.raises(ValueError, match=r"^data\.template_arguments\.tools: .*reads no such variable"):
        prompts_of(tmp_path, template_arguments={"tools": []})
    inner = "{% for m in messages %}{% set text = m.content %}{{ text }}{% endfor %}"
    with pytest.raises(ValueError, match=r"^data\.template_arguments\.text: .*such variable; it reads none"):
        prompts_of(tmp_path, chat_template=inner, template_arguments={"text": "x"})
    with pytest.raises(ValueError, match=r"^data\.template_arguments\.tokenize: the program gives this one"):
        prompts_of(tmp_path, template_arguments={"tokenize": True})


@pytest.mark.parametrize("key", ["template_arguments", "system"])
def test_what_only_chat_templates_take(tmp_path, key):
    """It is refused for other templates, and where the tokenizer has none."""
    value = {"loud": 1} if key == "template_arguments" else "x"
    with pytest.raises(ValueError, match=rf"^{key} is for chat templates, and template is plain"):
        DataConfig(path="x", template="plain", **{key: value})
    with pytest.raises(ValueError, match=rf"^data\.{key}: the tokenizer has no chat template; give a file"):
        prompts_of(tmp_path, ROWS[0], chat_template=None, **{key: value})


SHOTS = ({"prompt": "2+2?", "response": "It is 4."}, {"prompt": "3+3?", "solutions": ["6"]})


def test_examples_come_before_the_question(tmp_path):
    """As earlier turns, after the system message, with the same text around; a solution is put into a box."""
    examples = write(tmp_path / "shots.jsonl", *SHOTS)
    assert prompts_of(tmp_path, examples=examples, suffix="!") == [
        "[user:2+2?!][assistant:It is 4.][user:3+3?!][assistant:\\boxed{6}][user:1+1?!]=",
        "[system:add.][user:2+2?!][assistant:It is 4.][user:3+3?!][assistant:\\boxed{6}][user:1+2?!]=",
    ]
    (first, _) = prompts_of(tmp_path, examples=examples, num_examples=1)
    assert first == "[user:2+2?][assistant:It is 4.][user:1+1?]="


def test_examples_of_a_base_model(tmp_path):
    """Each one and an empty line after it."""
    examples = write(tmp_path / "shots.jsonl", *SHOTS)
    around = {"prefix": "Q: ", "suffix": "\nA: "}
    for template in ("plain", "chat"):
        (found,) = prompts_of(
            tmp_path, ROWS[0], template=template, chat_template=None, examples=examples, **around
        )
        assert found == "Q: 2+2?\nA: It is 4.\n\nQ: 3+3?\nA: \\boxed{6}\n\nQ: 1+1?\nA: "


def test_rows_that_are_examples(tmp_path):
    """Their answers are in the prompts: in training they are dropped, held out they are an error."""
    examples = write(tmp_path / "shots.jsonl", *SHOTS)
    tokenizer = tokenizer_of(CHAT)
    path = write(tmp_path / "train.jsonl", *ROWS, {"prompt": "2+2? ", "solutions": ["4"]})
    data = DataConfig(path=path, examples=examples)
    rows, _ = load_prompts(data, tokenizer)
    assert len(rows) == 2
    assert rows.notes == [
        f"dropped 1 of 3 rows, which are among data.examples; the first is {tmp_path}/train.jsonl:3"
    ]
    held_out = write(tmp_path / "eval.jsonl", {"prompt": "3+3?", "solutions": ["6"]})
    with pytest.raises(
        ValueError, match=r"^data\.examples: .*shots\.jsonl:2 is among the held-out rows, at .*eval\.jsonl:1"
    ):
        load_prompts(DataConfig(path=path, eval_path=held_out, examples=examples), tokenizer)
    of_a_set = DataConfig(
        sets={"a": DataSetConfig(path=path, examples=examples, num_examples=2)}, eval_path=held_out
    )
    with pytest.raises(ValueError, match=r"^data\.sets\.a\.examples: .*shots\.jsonl:2 is among the held-out"):
        load_prompts(of_a_set, tokenizer)
    first_only = DataConfig(path=path, eval_path=held_out, examples=examples, num_examples=1)
    assert load_prompts(first_only, tokenizer)[1] is not None


def test_examples_that_cannot_be(tmp_path):
    examples = write(tmp_path / "shots.jsonl", *SHOTS)
    with pytest.raises(ValueError, match=r"^data\.num_examples: 3 are wanted, and .* has 2; give fewer"):
        prompts_of(tmp_path, examples=examples, num_examples=3)
    with pytest.raises(ValueError, match=r"^num_examples: there are no examples"):
        DataConfig(path="x", num_examples=1)
    with pytest.raises(ValueError, match=r"^examples: the template orz has one question alone"):
        DataConfig(path="x", template="orz", examples="y")
    bare = write(tmp_path / "bare.jsonl", {"prompt": "2+2?"})
    with pytest.raises(ValueError, match=r"bare\.jsonl:1: neither `response` nor `solutions`"):
        prompts_of(tmp_path, examples=bare)
    with pytest.raises(ValueError, match=r"^data\.examples: .*none\.jsonl"):
        prompts_of(tmp_path, examples=str(tmp_path / "none.jsonl"))


def test_a_template_that_takes_no_earlier_turns_takes_no_examples(tmp_path):
    examples = write(tmp_path / "shots.jsonl", *SHOTS)
    last_only = "{{ messages[-1].content }}"
    with pytest.raises(ValueError, match=r"^data\.template: .*rows\.jsonl:1: .* leaves out the examples"):
        prompts_of(tmp_path, ROWS[0], chat_template=last_only, examples=examples)
    own_system = [{"role": "system", "content": "s"}, {"role": "user", "content": "2+2?"}]
    examples = write(tmp_path / "shots.jsonl", {"prompt": own_system, "response": "4"})
    with pytest.raises(ValueError, match=r"shots\.jsonl:1: an example has no system message of its own"):
        prompts_of(tmp_path, ROWS[0], examples=examples)


def test_demonstrations_have_the_same_prompts(tmp_path):
    """What a model learns from is what it is asked with later."""
    path = write(tmp_path / "rows.jsonl", {"prompt": "1+1?", "response": "2"})
    examples = write(tmp_path / "shots.jsonl", SHOTS[0])
    data = DataConfig(path=path, examples=examples, system="s", suffix="!")
    tokenizer = tokenizer_of(CHAT)
    rows, _ = load_demonstrations(SFTConfig(data=data), tokenizer)
    text = tokenizer.decode(rows.tensors(0)["input_ids"])
    assert text == "[system:s][user:2+2?!][assistant:It is 4.][user:1+1?!]=2<eos>"


def test_the_form_of_prompts_names_arguments_and_examples(tmp_path):
    path = write(tmp_path / "rows.jsonl", ROWS[0])
    data = DataConfig(path=path, template_arguments={"loud": False}, examples="shots.jsonl")
    sets = DataConfig(sets={"a": DataSetConfig(path=path, template="plain")})
    tokenizer = tokenizer_of(CHAT)
    ids = tokenizer("1+1?", return_tensors="pt")["input_ids"][0]
    assert form_of_prompts(data.whole, tokenizer, ids) == (
        "form of prompts: the tokenizer's chat template, loud=false, examples of shots.jsonl; the first one"
        " has 4 tokens: '1+1?'"
    )
    (part,) = sets.parts()
    assert form_of_prompts(part, tokenizer, ids).startswith(
        "form of prompts of data.sets.a: data.sets.a.template=plain; the first one"
    )


def test_qwen3_without_thinking(tmp_path):
    """Its template writes an empty thought only where `enable_thinking` is false."""
    template = published("qwen3")
    (thinking,) = prompts_of(tmp_path, ROWS[0], chat_template=template)
    (not_thinking,) = prompts_of(
        tmp_path, ROWS[0], chat_template=template, template_arguments={"enable_thinking": False}
    )
    assert thinking == "<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n"
    assert not_thinking == f"{thinking}<think>\n\n</think>\n\n"
    with pytest.raises(ValueError, match=r"enable_thinkng: .*; it reads enable_thinking; did you mean"):
        prompts_of(tmp_path, chat_template=template, template_arguments={"enable_thinkng": False})


def test_qwen2_5_has_a_system_message_of_its_own(tmp_path):
    """Which another one replaces, also an empty one; as a file, the template gives the same."""
    template = published("qwen2_5")
    (found,) = prompts_of(tmp_path, ROWS[0], chat_template=template, system="")
    assert found.startswith("<|im_start|>system\n<|im_end|>\n<|im_start|>user\n1+1?")
    (usual,) = prompts_of(tmp_path, ROWS[0], chat_template=template)
    assert usual.startswith("<|im_start|>system\nYou are Qwen, created by Alibaba Cloud.")
    (tmp_path / "qwen.jinja").write_text(template)
    assert prompts_of(tmp_path, ROWS[0], template=str(tmp_path / "qwen.jinja")) == [usual]


def test_gemma_refuses_system_messages_and_gemma_3_takes_them(tmp_path):
    """The one says so itself; the other puts them into the question, where they are found."""
    with pytest.raises(ValueError, match=r"^data\.template: .*template fails \(System role not supported"):
        prompts_of(tmp_path, ROWS[0], chat_template=published("gemma"), system="Be brief.")
    (found,) = prompts_of(tmp_path, ROWS[0], chat_template=published("gemma3"), system="Be brief.")
    assert "<start_of_turn>user\nBe brief.\n\n1+1?<end_of_turn>" in found


@pytest.mark.parametrize("name", ["qwen3", "qwen3_6", "llama3_2", "glm4moe", "gemma3", "gptoss", "phi3"])
def test_published_templates_are_good_as_files(tmp_path, name):
    """They set variables in some branches, and test others for being given: no check may stumble over it."""
    (tmp_path / "own.jinja").write_text(published(name))
    (as_file,) = prompts_of(
        tmp_path, ROWS[0], chat_template=None, template=str(tmp_path / "own.jinja"), date="2026-01-31"
    )
    (as_own,) = prompts_of(tmp_path, ROWS[0], chat_template=published(name), date="2026-01-31")
    assert as_file == as_own and "1+1?" in as_file


def test_deepscalers_prompt(tmp_path):
    """The text that its data preparation puts behind a problem, one blank between (deepscaler_dataset.py)."""
    suffix = " Let's think step by step and output the final answer within \\boxed{}."
    (found,) = prompts_of(tmp_path, ROWS[0], chat_template=published("deepseek_r1_distill"), suffix=suffix)
    question = "1+1? Let's think step by step and output the final answer within \\boxed{}."
    assert found.endswith(f"<｜User｜>{question}<｜Assistant｜><think>\n")


def test_dapos_prompt(tmp_path):
    """Its data set has whole messages; a file of bare problems, as AIME, gets the same by keys."""
    before = (
        "Solve the following math problem step by step. The last line of your response should be of the form"
        " Answer: $Answer (without quotes) where $Answer is the answer to the problem.\n\n"
    )
    after = '\n\nRemember to put your answer on its own line after "Answer:".'
    in_messages = {"prompt": [{"role": "user", "content": f"{before}1+1?{after}"}], "solutions": ["2"]}
    template = published("qwen2_5")
    as_published = prompts_of(tmp_path, in_messages, chat_template=template)
    assert prompts_of(tmp_path, ROWS[0], chat_template=template, prefix=before, suffix=after) == as_published


def test_a_prompt_of_a_base_model_of_ones_own(tmp_path):
    """As Open-Reasoner-Zero's code words it otherwise than its paper: by a file, or by two texts."""
    before = "The User asks a question, and the Assistant solves it. User: This is the problem:\n"
    after = "\nAssistant: <think>"
    (tmp_path / "own.jinja").write_text(f"{before}{{{{ messages[0].content }}}}{after}")
    by_file = prompts_of(tmp_path, ROWS[0], chat_template=None, template=str(tmp_path / "own.jinja"))
    by_texts = prompts_of(tmp_path, ROWS[0], template="plain", prefix=before, suffix=after)
    assert by_file == by_texts == [f"{before}1+1?{after}"]
