from __future__ import annotations

import gzip
import json

import pytest
import torch

from realrl.api.data import DataConfig
from realrl.datasets.prompts import load_prompts
from realrl.runtime.model_directories import resolve_model
from tests.tiny import tiny_tokenizer

GOOD = {"query_id": "q", "prompt": "what is 3+4?", "solutions": ["7"], "task": "math"}


def write(path, *lines) -> str:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return str(path)


def load(path, *, tokenizer=None, eval=False, **settings):
    """The training rows, or the held-out ones."""
    settings = {"path": path, "eval_path": path, "max_prompt_tokens": 64, **settings}
    if eval and path != "sums":
        settings["path"] = "sums"
    return load_prompts(DataConfig(**settings), tokenizer or tiny_tokenizer())[eval]


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


def test_a_row_is_known_by_its_id_or_else_by_its_number(tmp_path):
    """Which it keeps where others are dropped."""
    bare = {"prompt": "1+1", "solutions": ["2"]}
    long = {"prompt": "1+" * 40, "solutions": ["2"]}
    path = write(tmp_path / "d.jsonl", GOOD, long, "", bare, {**bare, "query_id": 7})
    dataset = load(path, drop_long=True)
    assert [dataset.query_id(row) for row in range(3)] == ["q", "3", "7"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [("7", ["7"]), (7, ["7"]), (0.5, ["0.5"]), (["7", 8], ["7", "8"])],
)
def test_solutions_in_every_spelling(tmp_path, given, expected):
    path = write(tmp_path / "d.jsonl", {**GOOD, "solutions": given})
    assert load(path).solutions(0) == expected


def test_the_chat_template_is_used_only_where_asked_for_and_there(tmp_path):
    path, tokenizer = write(tmp_path / "d.jsonl", GOOD), tiny_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m.content }}]{% endfor %}{% if add_generation_prompt %}:{% endif %}"
    )
    for template, expected in (("chat", "[what is 3+4?]:"), ("plain", "what is 3+4?")):
        dataset = load(path, tokenizer=tokenizer, template=template)
        assert tokenizer.decode(dataset.tensors(0)["prompts"]) == expected


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
        (
            '{"query_id": "1", "prompt": 7, "solutions": ["7"]}',
            r"Expected `str \| array`, got `int` - at `\$.prompt`",
        ),
        (
            '{"query_id": "1", "prompt": "x", "solutions": {"7": 7}}',
            r"Expected `array \| null`, got `object` - at `\$.solutions`",
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
    with pytest.raises(ValueError, match="cannot read this dataset .*give `sums` or a JSONL file"):
        load(str(tmp_path / "none.jsonl"))
    with pytest.raises(ValueError, match="is a folder: give a file of rows, or hf:"):
        load(str(tmp_path))
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


def test_solutions_may_be_in_a_file_of_their_own(tmp_path):
    """As AReaL first published them; a line's own go before."""
    info = {"q": {"solutions": ["7", "seven"], "task": "math"}, "r": {"solutions": ["8"]}}
    (tmp_path / "id2info.json").write_text(json.dumps(info))
    bare = [{"query_id": name, "prompt": "3+4", "task": "math"} for name in "qr"]
    path = write(tmp_path / "d.jsonl", *bare, {**GOOD, "solutions": ["own"]})
    found = load(path, solutions_path=str(tmp_path / "id2info.json"))
    assert [found.solutions(row) for row in range(3)] == [["7", "seven"], ["8"], ["own"]]
    with pytest.raises(ValueError, match=r"d\.jsonl:1: no `solutions`, here or in data.solutions_path"):
        load(path)
    write(tmp_path / "d.jsonl", *bare, {"query_id": "s", "prompt": "3"})
    with pytest.raises(ValueError, match=r"d\.jsonl:3: no `solutions`"):
        load(path, solutions_path=str(tmp_path / "id2info.json"))


def test_files_of_solutions_in_the_forms_of_data(tmp_path):
    info = '{"q": {"solutions": 1e-5, "rate": NaN}, "other": {"solutions": ["1"]}}'
    (tmp_path / "info.json").write_bytes(gzip.compress(info.encode()))
    path = write(tmp_path / "d.jsonl", {"query_id": "q", "prompt": "1"})
    assert load(path, solutions_path=str(tmp_path / "info.json")).solutions(0) == ["0.00001"]


@pytest.mark.parametrize("text", [None, "[]", "{", '{"q": ["7"]}', '{"q": {}}', '{"a":' * 100_000])
def test_bad_files_of_solutions(tmp_path, text):
    path = tmp_path / "info.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=r"data\.solutions_path: '.*info\.json': cannot read solutions"):
        load(write(tmp_path / "d.jsonl", GOOD), solutions_path=str(path))


def test_long_prompts_are_dropped_if_asked_for_and_counted(tmp_path):
    path = write(
        tmp_path / "d.jsonl",
        GOOD,
        {**GOOD, "prompt": "1+" * 40, "query_id": "r"},
        {**GOOD, "prompt": "1", "query_id": "s"},
        {**GOOD, "prompt": "2" * 70, "query_id": "t"},
    )
    found = load(path, drop_long=True)
    assert [found.prompt(row) for row in range(len(found))] == [GOOD["prompt"], "1"]
    assert found.place(1) == f"{path}:3" and found.length(1) == 1
    (note,) = found.notes
    assert (
        note.startswith("dropped 2 of 4 rows, whose prompt has more than") and "max_prompt_tokens=64" in note
    )
    assert note.endswith(f"the first is {path}:2")
    assert not load(path, drop_long=True, max_prompt_tokens=80).notes
    with pytest.raises(
        ValueError, match=r"d\.jsonl:2: .* is 64; so have 2 of 4 rows; raise that, leave such"
    ):
        load(path)
    with pytest.raises(ValueError, match="data: no rows are left; dropped 1 of 1 rows"):
        load(write(tmp_path / "d.jsonl", {**GOOD, "prompt": "1+" * 40}), drop_long=True)
