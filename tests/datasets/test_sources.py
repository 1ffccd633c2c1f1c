"""Rows of every source: JSON, Parquet, Hugging Face datasets; their fields by other names."""

from __future__ import annotations

import json
import sys

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from realrl.api.data import DataConfig
from realrl.datasets.demonstrations import load_demonstrations
from realrl.datasets.pairs import load_pairs
from realrl.datasets.prompts import load_problems, load_prompts
from realrl.recipes.sft import SFTConfig
from realrl.rewards.math import grade
from tests.tiny import tiny_tokenizer

ROWS = [
    {"id": 3 + a, "extra": [1.5], "ask": {"text": f"{a}+1?"}, "meta": {"answer": str(a + 1), "level": a / 4}}
    for a in range(5)
]
FIELDS = {"query_id": "id", "prompt": "ask.text", "solutions": "meta.answer", "difficulty": "meta.level"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))


def write(folder, kind: str, rows: list[dict]) -> str:
    """The path of these rows in a file or folder of some kind."""
    folder.mkdir(exist_ok=True)
    file = str(folder / f"rows.{kind}")
    if kind == "jsonl":
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == "json":
        (folder / "rows.json").write_text(json.dumps(rows, indent=1))
    elif kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    elif kind == "saved":
        datasets.DatasetDict({"train": datasets.Dataset.from_list(rows)}).save_to_disk(folder / "saved")
        return f"hf:{folder / 'saved'}"
    else:
        (folder / "data").mkdir()
        return f"hf:{folder / 'data'}" if write(folder / "data", "jsonl", rows) else ""
    return file


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        ("jsonl", "rows.jsonl:2"),
        ("json", "rows.json: row 2"),
        ("parquet", "rows.parquet: row 2"),
        ("saved", "saved[train]: row 2"),
        ("folder", "data[train]: row 2"),
    ],
)
def test_every_source_gives_the_same_rows(tmp_path, kind, place):
    """With their fields under other names, some in the depth."""
    rows, _ = load_problems(DataConfig(path=write(tmp_path, kind, ROWS), fields=FIELDS), held_out=False)
    found = [(row.query_id, row.prompt, row.solutions, row.difficulty) for row in rows]
    assert found == [(str(3 + a), f"{a}+1?", [str(a + 1)], a / 4) for a in range(5)]
    assert rows[1].place.endswith(place)


def test_held_out_rows_have_a_split_and_names_of_their_own(tmp_path):
    other = [{"question": "2+2?", "solutions": 4}]
    sides = {"train": datasets.Dataset.from_list(ROWS), "dev": datasets.Dataset.from_list(other)}
    datasets.DatasetDict(sides).save_to_disk(tmp_path / "both")
    names = {"fields": FIELDS, "eval_fields": {"prompt": "question"}}
    data = DataConfig(path=f"hf:{tmp_path / 'both'}", eval_split="dev", template="plain", **names)
    train, held_out = load_prompts(data, tiny_tokenizer())
    assert len(train) == 5 and held_out.prompt(0) == "2+2?" and held_out.solutions(0) == ["4"]
    assert DataConfig(path="hf:a/b").held_out_path == ""


def test_prompts_and_answers_as_other_trainers_publish_them(tmp_path):
    """Messages and an answer in the depth, as verl has them; GSM8K's text with its answer at the end."""
    rows = [{"prompt": [{"role": "user", "content": "1+1?"}], "reward_model": {"ground_truth": "2"}}]
    data = DataConfig(
        path=write(tmp_path, "parquet", rows), fields={"solutions": "reward_model.ground_truth"}
    )
    dataset, _ = load_prompts(data, tiny_tokenizer())
    assert dataset.prompt(0) == "1+1?" and dataset.solutions(0) == ["2"]
    rows = [
        {"question": "eggs?", "answer": "She sells 16 - 3 - 4 = <<16-3-4=9>>9 eggs, 9 * 2 = 18.\n#### 18"}
    ]
    data = DataConfig(
        path=write(tmp_path, "json", rows), fields={"prompt": "question", "solutions": "answer"}
    )
    (problem,), _ = load_problems(data, held_out=False)
    assert [grade(f"The answer is {n}.", problem.solutions) for n in (18, 9)] == ["correct", "wrong"]


ASKED = {"role": "user", "content": "1+1?"}


@pytest.mark.parametrize("prompt", [{"prompt": "1+1?"}, {}])
def test_responses_may_be_conversations(tmp_path, prompt):
    """Their last message counts; those before it are the prompt where there is no other."""
    good, bad = ([ASKED, {"role": "assistant", "content": text}] for text in ("2", "3"))
    path = write(tmp_path, "parquet", [{**prompt, "chosen": good, "rejected": bad, "messages": good}])
    config = SFTConfig(data=DataConfig(path=path, fields={"response": "messages"}))
    tokenizer = tiny_tokenizer()
    for load, expected in ((load_pairs, "1+1?2<eos>1+1?3<eos>"), (load_demonstrations, "1+1?2<eos>")):
        dataset, _ = load(config, tokenizer)
        assert tokenizer.decode(dataset.tensors(0)["input_ids"]) == expected


def test_a_pair_without_a_prompt_begins_alike(tmp_path):
    row = {"chosen": [ASKED, ASKED], "rejected": [{**ASKED, "content": "1"}, ASKED]}
    config = SFTConfig(data=DataConfig(path=write(tmp_path, "jsonl", [row])))
    with pytest.raises(ValueError, match=r"rows\.jsonl:1: `chosen` and `rejected` must begin with the same"):
        load_pairs(config, tiny_tokenizer())


def test_rows_are_chosen_by_their_difficulty(tmp_path):
    """In training alone; those left out are counted."""
    path = write(tmp_path, "jsonl", ROWS)
    (tmp_path / "held-out.jsonl").write_text(json.dumps(ROWS[0]))
    options = {"path": path, "eval_path": str(tmp_path / "held-out.jsonl"), "fields": FIELDS}
    train, held_out = load_prompts(DataConfig(**options, difficulty=(0.25, 0.75)), tiny_tokenizer())
    assert [train.prompt(row) for row in range(len(train))] == ["1+1?", "2+1?", "3+1?"]
    assert train.notes == [
        "dropped 2 of 5 rows, whose difficulty is not from 0.25 to 0.75 (data.difficulty); the first is"
        f" {path}:1"
    ]
    assert len(held_out) == 1 and not held_out.levels and not train.levels
    with pytest.raises(ValueError, match="data: no rows are left; dropped 5 of 5 rows"):
        load_prompts(DataConfig(**options, difficulty=(2, 3)), tiny_tokenizer())


def test_rising_rows_have_levels(tmp_path):
    """By which the run orders them."""
    data = DataConfig(path=write(tmp_path, "jsonl", ROWS[::-1]), fields=FIELDS, order="rising")
    train, _ = load_prompts(data, tiny_tokenizer())
    assert train.levels == [1.0, 0.75, 0.5, 0.25, 0.0]


@pytest.mark.parametrize("settings", [{"difficulty": (0, 1)}, {"order": "rising"}])
def test_a_row_without_difficulty_where_it_counts(tmp_path, settings):
    path = write(tmp_path, "jsonl", [{"prompt": "1", "solutions": "1", "difficulty": None}])
    with pytest.raises(ValueError, match=r"rows\.jsonl:1: the row has no `difficulty`, a number"):
        load_prompts(DataConfig(path=path, **settings), tiny_tokenizer())


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        ("parquet", {"prompt": "asks"}, r"rows\.parquet: row 1: no field 'asks'; data\.fields\.prompt must"),
        ("jsonl", {"prompt": "ask.words"}, r"rows\.jsonl:1: no field 'ask\.words'; .* one of id, extra, ask"),
        ("saved", {"prompt": "id"}, r"saved\[train\]: row 1: Expected `str \| array`, got `int`"),
        ("json", {"prompt": "ask.text"}, r"rows\.json: row 1: no `solutions`"),
    ],
)
def test_a_bad_row_is_named_by_its_place(tmp_path, kind, fields, message):
    with pytest.raises(ValueError, match=message):
        load_problems(DataConfig(path=write(tmp_path, kind, ROWS), fields=fields), held_out=False)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("none.parquet", r"data\.path: '.*none\.parquet': cannot read this Parquet file \(.*No such file"),
        ("text.parquet", r"data\.path: '.*text\.parquet': cannot read this Parquet file \("),
        ("text.json", r"text\.json: .*; expected a list of rows like"),
        ("hf:saved", r"data\.path: hf:saved: cannot read the split 'dev' of it"),
        ("hf:empty", r"data\.path: hf:empty: cannot read the split 'dev' of it"),
    ],
)
def test_sources_that_cannot_be_read(tmp_path, monkeypatch, path, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "saved", ROWS)
    (tmp_path / "empty").mkdir()
    for name in ("text.parquet", "text.json"):
        (tmp_path / name).write_text("[1, 2]")
    with pytest.raises(ValueError, match=message):
        load_problems(DataConfig(path=path, split="dev"), held_out=False)


@pytest.mark.parametrize(("path", "module"), [("a.parquet", "pyarrow.parquet"), ("hf:a/b", "datasets")])
def test_a_missing_package_is_named(monkeypatch, path, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=rf"^data\.path: .*package {module.split('.')[0]}; .*realrl\[data\]"):
        load_problems(DataConfig(path=path), held_out=False)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fields": {"promt": "x"}}, "fields: unknown name 'promt'; expected some of query_id, prompt"),
        ({"difficulty": (2, 1)}, "difficulty must be the least and the greatest, got 2 and 1"),
    ],
)
def test_settings_that_do_not_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        DataConfig(**settings)
