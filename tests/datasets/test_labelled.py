"""Responses with labels: their forms in files, and the responses that are put to other prompts."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realrl.api.data import DataConfig
from realrl.datasets.labelled import Labelled, LabelledDataset, load_labelled
from realrl.recipes.kto import KTOConfig
from tests.tiny import tiny_llama, tiny_tokenizer


def load(folder: Path, rows: list[dict], **data) -> LabelledDataset:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = KTOConfig(data=DataConfig(path=str(path), template="plain", **data))
    found, held_out = load_labelled(config, tiny_tokenizer())
    assert held_out is None
    return found


def texts(rows: LabelledDataset) -> list[tuple[str, str, bool]]:
    """Both sequences of each row, and its label."""
    found = []
    for row in range(len(rows)):
        tensors = rows.tensors(row)
        ids, cut = tensors["input_ids"], int(tensors["own_tokens"])
        both = [tiny_tokenizer().decode(part) for part in (ids[:cut], ids[cut:])]
        learned = tiny_tokenizer().decode(ids[:cut][tensors["loss_mask"][:cut]])
        assert both[0].endswith(learned)
        assert rows.length(row) == len(ids) and rows.longest_sequence(row) == max(cut, len(ids) - cut)
        found.append((*both, bool(tensors["is_desirable"])))
    return found


def test_a_row_has_its_response_and_that_of_another_prompt(tmp_path):
    """Labels may be numbers or words; those of other names are named."""
    rows = [
        {"prompt": "a", "completion": "1", "thumbs": True},
        {"prompt": "b", "completion": "2", "thumbs": 0},
        {"prompt": "b", "completion": "3", "thumbs": "True"},
    ]
    names = {"prompt": "prompt", "response": "completion", "label": "thumbs"}
    found = load(tmp_path, rows, fields=names)
    assert texts(found) == [
        ("a1<eos>", "a3<eos>", True),
        ("b2<eos>", "b1<eos>", False),
        ("b3<eos>", "b1<eos>", True),
    ]
    assert found.place(2).endswith("rows.jsonl:3")


def test_a_pair_is_two_rows(tmp_path):
    """Unless it has a label, which is the response's."""
    rows = [{"prompt": "a", "chosen": "1", "rejected": "2"}, {"prompt": "b", "response": "3", "label": False}]
    found = texts(load(tmp_path, rows))
    assert [(own, label) for own, _, label in found] == [
        ("a1<eos>", True),
        ("a2<eos>", False),
        ("b3<eos>", False),
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"response": "1"},
            "rows.jsonl:2: no `label`, and not both `chosen` and `rejected`; .*data.fields.label",
        ),
        ({"chosen": "1"}, "rows.jsonl:2: no `label`"),
        ({"response": "1", "label": "good"}, "rows.jsonl:2: `label` must be true .* got 'good'"),
        ({"response": "1", "label": 2}, "rows.jsonl:2: `label` must be true .* got 2"),
    ],
)
def test_what_is_no_label_is_refused(tmp_path, row, message):
    first = {"prompt": "a", "response": "1", "label": True}
    with pytest.raises(ValueError, match=message):
        load(tmp_path, [first, {"prompt": "b", **row}])


def test_one_prompt_alone_is_refused(tmp_path):
    rows = [{"prompt": "a", "response": str(number), "label": True} for number in range(3)]
    with pytest.raises(ValueError, match="all rows have one prompt, .* give rows with at least two prompts"):
        load(tmp_path, rows)


def test_a_response_of_another_prompt_is_cut_to_the_context(tmp_path):
    """A long prompt may get a long response, which it would not have had."""
    model = tiny_llama(tmp_path / "model", max_position=16)
    tokenizer = tiny_tokenizer()
    tokenizer.name_or_path = str(model)
    rows = [
        {"prompt": "a" * 10, "response": "1", "label": True},
        {"prompt": "b", "response": "2" * 10, "label": True},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = KTOConfig(data=DataConfig(path=str(tmp_path / "rows.jsonl"), template="plain"))
    found, _ = load_labelled(config, tokenizer)
    assert found.longest_sequence(0) == 16 and len(found.tensors(0)["input_ids"]) == 16 + 12


@settings(max_examples=100, deadline=None)
@given(prompts=st.lists(st.sampled_from("abc"), min_size=2, max_size=12))
def test_the_other_prompt_is_the_nearest_before(prompts):
    """Against a search for each row, which begins again at the end."""
    rows = [Labelled(prompt=prompt, response="r", label=True) for prompt in prompts]
    dataset: LabelledDataset = SimpleNamespace(rows=rows, place=lambda row: f"row {row}")
    if len(set(prompts)) == 1:
        with pytest.raises(ValueError, match="^row 0: all rows have one prompt"):
            LabelledDataset._rows_of_other_prompts(dataset)
        return
    expected = []
    for row, prompt in enumerate(prompts):
        before = [*range(row - 1, -1, -1), *range(len(prompts) - 1, row, -1)]
        expected.append(next(other for other in before if prompts[other] != prompt))
    assert LabelledDataset._rows_of_other_prompts(dataset) == expected
