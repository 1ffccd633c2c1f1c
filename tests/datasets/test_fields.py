"""Gold answers, messages and names of fields in the forms that other trainers and datasets have."""

from __future__ import annotations

import json

import pytest

from realrl.api.data import DataConfig
from realrl.datasets.demonstrations import load_demonstrations
from realrl.datasets.prompts import load_problems, load_prompts
from realrl.recipes.sft import SFTConfig
from realrl.rewards.math import grade
from tests.tiny import tiny_tokenizer

ASK = {"role": "user", "content": "1+1?"}
SAY = {"role": "assistant", "content": "2"}
CHAT = "{% for m in messages %}[{{ m.role }}{{ m.name }}:{{ m.content }}]{% endfor %}"


def problems(tmp_path, *lines: str | dict, **settings):
    """Rows and notes of a file of these lines."""
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return load_problems(DataConfig(path=str(file), **settings), held_out=False)


def learned(tmp_path, row: dict) -> tuple[str, list[str]]:
    """The text of the only demonstration of a file, and the notes of the dataset."""
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    tokenizer = tiny_tokenizer()
    config = SFTConfig(data=DataConfig(path=str(tmp_path / "rows.jsonl")))
    train, _ = load_demonstrations(config, tokenizer)
    return tokenizer.decode(train.tensors(0)["input_ids"]), train.notes


@pytest.mark.parametrize(
    ("written", "answer"),
    [
        ("0.00001", "0.00001"),
        ("1e-5", "0.00001"),
        ("1.10", "1.10"),
        ("1.0", "1.0"),
        ("2.5e3", "2500"),
        ("1E+20", "100000000000000000000"),
        ("-0", "0"),
        ("-0.0", "0.0"),
        ("0.12345678901234567890123", "0.12345678901234567890123"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("1e400", "1" + "0" * 400),
        ("-7", "-7"),
        ("true", "True"),
    ],
)
def test_numbers_are_the_answers_that_they_are(tmp_path, written, answer):
    """With their digits as written, and without an exponent, which mathematics reads otherwise."""
    for text in (written, f"[{written}]"):
        (row,), _ = problems(tmp_path, f'{{"prompt": "x", "solutions": {text}}}')
        assert row.solutions == [answer]
    assert grade(f"\\boxed{{{answer}}}", row.solutions) == "correct"


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ('""', r"no response can match the `solutions` \[''\]"),
        ('[" \\n"]', "no response can match the `solutions`"),
        ("[]", "`solutions` is empty"),
        ("NaN", "no response can match the `solutions`"),
        ("[null]", "no response can match the `solutions`"),
        ('"$$"', "no response can match the `solutions`"),
        ('"#### "', "no response can match the `solutions`"),
        ('"\\\\boxed{ }"', "no response can match the `solutions`"),
        ("1e99999", "1E[+]99999 is a number of more than 1000 digits; give it as text"),
    ],
)
def test_answers_that_nothing_matches_are_refused(tmp_path, written, message):
    good = {"prompt": "x", "solutions": "1"}
    with pytest.raises(ValueError, match=rf"rows\.jsonl:2: {message}"):
        problems(tmp_path, good, f'{{"prompt": "x", "solutions": {written}}}')


def test_rows_without_an_answer_are_counted(tmp_path):
    empty = {"prompt": "x", "solutions": ""}
    with pytest.raises(ValueError, match=r"rows\.jsonl:2: .*\(so are 2 of 3 rows\)"):
        problems(tmp_path, {**empty, "solutions": "1"}, empty, empty)


def test_empty_answers_beside_others_are_dropped_and_counted(tmp_path):
    rows, (note,) = problems(
        tmp_path, {"prompt": "x", "solutions": "1"}, {"prompt": "y", "solutions": ["", "2"]}
    )
    assert [row.solutions for row in rows] == [["1"], ["2"]]
    assert note.startswith("dropped empty `solutions` of 1 of 2 rows") and note.endswith("rows.jsonl:2")


ASKED = {"question": "1+1?", "answer": "2"}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([ASKED, {**ASKED, "answer": None}], "rows.jsonl:2: `answer` is null;"),
        ([{**ASKED, "answer": None}, ASKED], "rows.jsonl:1: `answer` is null;"),
        ([{"prompt": "x", "solutions": None}], "rows.jsonl:1: `solutions` is null;"),
        ([ASKED, {**ASKED, "question": None}], "missing required field `prompt`, as `question` is null;"),
        ([{"prompt": "x"}], "rows.jsonl:1: no `solutions`, here or in data.solutions_path;"),
        ([{"prompt": "", "solutions": "2"}], "rows.jsonl:1: the prompt has no tokens; give a question there"),
        (['{"prompt": "x"'], "rows.jsonl:1: Input data was truncated"),
    ],
)
@pytest.mark.parametrize("held_out", [False, True])
def test_a_bad_row_is_named_by_key_and_place_with_what_is_null_there(tmp_path, rows, said, held_out):
    """The key is that of the side that the row is of."""
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    (tmp_path / "good.jsonl").write_text(json.dumps(ASKED))
    files = [str(tmp_path / name) for name in ("rows.jsonl", "good.jsonl")]
    path, eval_path = files[::-1] if held_out else files
    with pytest.raises(ValueError) as refused:
        load_prompts(DataConfig(path=path, eval_path=eval_path), tiny_tokenizer())
    key = "data.eval_path" if held_out else "data.path"
    assert str(refused.value).startswith(f"{key}: {files[0]}:") and said in str(refused.value)


@pytest.mark.parametrize("value", ["NaN", "Infinity", '"hard"', "[1]"])
def test_a_difficulty_that_is_no_number_is_named_where_it_counts(tmp_path, value):
    line = f'{{"prompt": "x", "solutions": "1", "difficulty": {value}}}'
    problems(tmp_path, line)
    data = DataConfig(path=str(tmp_path / "rows.jsonl"), order="rising")
    with pytest.raises(ValueError, match=r"rows\.jsonl:1: `difficulty` must be a number"):
        load_prompts(data, tiny_tokenizer())


@pytest.mark.parametrize(
    "content",
    [
        "1+1?",
        [{"type": "text", "text": "1+1?"}],
        [{"type": "text", "text": "1+", "image": None}, {"text": "1?"}],
        ["1+", "1?"],
    ],
)
def test_messages_in_parts(tmp_path, content):
    (row,), _ = problems(tmp_path, {"prompt": [{**ASK, "content": content}], "solutions": "2"})
    assert row.prompt[0].content.replace("\n", "") == "1+1?"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": "a"}]},
            "a part of type 'image_url'",
        ),
        ({"role": "user", "content": [{"type": "text"}]}, "has a part without text"),
        ({"role": "assistant", "content": None}, "has no text: its `content` is null"),
        ({**SAY, "content": None, "tool_calls": [{"id": "1"}]}, "calls tools, which are not read yet"),
        ({**SAY, "function_call": {"name": "f"}}, "calls tools, which are not read yet"),
    ],
)
def test_messages_that_are_no_text_are_named(tmp_path, message, expected):
    with pytest.raises(ValueError, match=rf"rows\.jsonl:1: `prompt\[1\]` {expected}|{expected}"):
        problems(tmp_path, {"prompt": [ASK, message], "solutions": "2"})


def test_what_else_a_message_says_reaches_the_template(tmp_path):
    """Nulls, which tables have in place of nothing, do not."""
    turns = [{**ASK, "name": "ada", "tool_calls": None}, {**SAY, "tool_calls": []}]
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": turns, "solutions": "2"}))
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = CHAT
    dataset, _ = load_prompts(DataConfig(path=str(tmp_path / "rows.jsonl"), template="chat"), tokenizer)
    assert tokenizer.decode(dataset.tensors(0)["prompts"]) == "[userada:1+1?][assistant:2]"


def test_conversations_of_other_names(tmp_path):
    """ShareGPT's, and OpenAI's under its own name; the last message is what is learned."""
    shared = [{"from": "human", "value": "1+1?"}, {"from": "gpt", "value": "2"}]
    for name, turns in (("conversations", shared), ("messages", [ASK, SAY])):
        text, (note,) = learned(tmp_path, {name: turns, "source": "x"})
        assert text == "1+1?2<eos>" and f"takes `{name}` as `response`" in note
    with pytest.raises(ValueError, match="the last message of `response` is of user, not of the assistant"):
        learned(tmp_path, {"response": [SAY, ASK]})
    with pytest.raises(ValueError, match="no `prompt`, but `messages`; say which"):
        learned(tmp_path, {"messages": [SAY, ASK]})


def test_conversations_that_are_prompts(tmp_path):
    """Where they end by a question."""
    for name, last in (("messages", ASK), ("conversations", {"from": "human", "value": "1+1?"})):
        (row,), (note,) = problems(tmp_path, {name: [SAY, last], "answer": 2})
        assert [message.role for message in row.prompt] == ["assistant", "user"]
        assert f"`{name}` as `prompt`, `answer` as `solutions`" in note
    with pytest.raises(ValueError, match="no `prompt`, but `messages`, `answer`; say which"):
        problems(tmp_path, {"messages": [ASK, SAY], "answer": 2})


@pytest.mark.parametrize(
    ("row", "fields"),
    [
        ({"question": "1+1?", "answer": "2"}, {"prompt": "question", "solutions": "answer"}),
        ({"problem": "1+1?", "solution": "so 2", "answer": 2}, {"prompt": "problem", "solutions": "answer"}),
        ({"problem": "1+1?", "solution": "2"}, {"prompt": "problem", "solutions": "solution"}),
        (
            {"prompt": "1+1?", "reward_model": {"ground_truth": "2"}},
            {"solutions": "reward_model.ground_truth"},
        ),
    ],
)
def test_names_of_known_datasets_are_recognised(tmp_path, row, fields):
    """And said, as the setting that says the same; what a person sets is not guessed at."""
    (found,), (note,) = problems(tmp_path, row)
    assert (found.prompt, found.solutions) == ("1+1?", ["2"])
    said = ", ".join(f"{ours}: {theirs}" for ours, theirs in fields.items())
    assert f"data.fields={{{said}}}" in note
    assert problems(tmp_path, row, fields=fields)[1] == []


def test_solutions_of_their_own_file_are_not_guessed(tmp_path):
    (tmp_path / "info.json").write_text('{"1": {"solutions": ["2"]}}')
    (row,), _ = problems(
        tmp_path, {"prompt": "1+1?", "answer": "3"}, solutions_path=str(tmp_path / "info.json")
    )
    assert row.solutions == ["2"]


def test_half_of_a_question_is_not_guessed(tmp_path):
    """Alpaca's rows have a question in two fields."""
    row = {"instruction": "Add.", "input": "1+1", "output": "2"}
    with pytest.raises(ValueError, match="no `prompt`, but `instruction`, `input`, `output`; say which"):
        problems(tmp_path, row)
    assert learned(tmp_path, {**row, "input": ""})[0] == "add.2<eos>"


def test_other_names_are_listed(tmp_path):
    with pytest.raises(
        ValueError, match=r"rows\.jsonl:1: no `prompt`, but `q`, `a`; say .*data\.fields={prompt"
    ):
        problems(tmp_path, {"q": "1+1?", "a": "2"})
