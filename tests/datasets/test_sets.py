"""Several data sets: their rows know their set, keep their further fields, and fit together."""

from __future__ import annotations

import json
from fractions import Fraction

import pytest

from realrl.api.data import DataConfig, DataSetConfig, GymConfig
from realrl.datasets.demonstrations import load_demonstrations
from realrl.datasets.digests import digest_rows
from realrl.datasets.pairs import load_pairs
from realrl.datasets.prompts import load_prompts, load_questions
from realrl.recipes.dpo import DPOConfig
from realrl.recipes.sft import SFTConfig
from tests.tiny import tiny_tokenizer


def write(path, *rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def files(tmp_path):
    """Two files of other fields, of three rows and of one."""
    sums = [{"question": f"{i}+1=", "answer": str(i + 1), "level": i} for i in range(3)]
    words = [{"prompt": "say a", "solutions": ["a"], "difficulty": 9, "kind": {"of": ["word"]}}]
    return {"sums": write(tmp_path / "sums.jsonl", *sums), "words": write(tmp_path / "words.jsonl", *words)}


def config(files, *, sums=None, words=None, **settings):
    sets = {
        "sums": DataSetConfig(path=files["sums"], **(sums or {})),
        "words": DataSetConfig(path=files["words"], **(words or {})),
    }
    return DataConfig(sets=sets, **settings)


def load(files, **settings):
    return load_prompts(config(files, **settings), tiny_tokenizer())


def test_rows_know_their_set(files):
    """One set after the other; a row without an id is known by its set and its number there."""
    rows, held_out = load(files)
    assert held_out is None and len(rows) == 4
    assert [rows.source(row) for row in range(4)] == ["sums"] * 3 + ["words"]
    assert [rows.query_id(row) for row in range(4)] == ["sums/1", "sums/2", "sums/3", "words/1"]
    assert [rows.prompt(row) for row in range(4)] == ["0+1=", "1+1=", "2+1=", "say a"]
    assert [rows.solutions(row) for row in (0, 3)] == [["1"], ["a"]]
    assert [(each.name, each.rows) for each in rows.sets] == [("sums", range(3)), ("words", range(3, 4))]


@pytest.mark.parametrize(
    ("weights", "expected"),
    [(None, (3, 1)), ((1, 1), (1, 1)), ((0.1, 0.3), (1, 3)), ((2.5, 0.5), (5, 1)), ((1e-3, 1), (1, 1000))],
)
def test_shares_are_the_weights_or_else_the_sizes(files, weights, expected):
    """As they are written: 0.1 to 0.3 is one to three. The first note says so."""
    given = {}
    if weights:
        given = {"sums": {"weight": weights[0]}, "words": {"weight": weights[1]}}
    rows, _ = load(files, **given)
    assert tuple(each.weight for each in rows.sets) == expected
    share = Fraction(expected[0], sum(expected))
    assert f"data.sets: sums 3 rows, {float(share):.1%} of each batch; words 1 rows, " in rows.notes[0]


def test_a_key_of_a_set_wins_over_that_of_all(files):
    """And what it leaves out is as for all."""
    rows, _ = load(
        files,
        sums={"fields": {"prompt": "question", "solutions": "answer", "difficulty": "level"}},
        words={"prefix": "please ", "difficulty": (9, 9)},
        difficulty=(1, 2),
        suffix="!",
    )
    tokenizer = tiny_tokenizer()
    texts = [tokenizer.decode(rows.prompts[row]) for row in range(len(rows))]
    assert texts == ["1+1=!", "2+1=!", "please say a!"]
    assert any(
        note.startswith("data.sets.sums: dropped 1 of 3 rows, whose difficulty is not from 1 to 2")
        for note in rows.notes
    )


def test_a_set_passes_on_what_fits_its_template(files):
    """Arguments of all sets and its own; a set without a chat template takes neither these nor the system."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.content }}{% endfor %}"
        "{{ ending if ending is defined else '' }}{{ more if more is defined else '' }}"
    )
    settings = {"template_arguments": {"ending": "!", "more": "?"}, "system": "so: "}
    data = config(files, sums={"template_arguments": {"more": ";"}}, words={"template": "plain"}, **settings)
    rows, _ = load_prompts(data, tokenizer)
    texts = [tokenizer.decode(rows.prompts[row]) for row in (0, 3)]
    assert texts == ["so: 0+1=!;", "say a"]


def test_rows_keep_their_further_fields(files, tmp_path):
    """As JSON has them; fields that were read under another name are not repeated."""
    rows, _ = load(files)
    assert rows.metadata(1) == {"level": 1} and rows.metadata(3) == {"kind": {"of": ["word"]}}
    nested = {"prompt": "?", "reward_model": {"style": "rule", "ground_truth": "2"}, "extra": [0.5, None, 1]}
    path = write(tmp_path / "nested.jsonl", nested)
    alone, _ = load_prompts(DataConfig(path=path), tiny_tokenizer())
    assert alone.solutions(0) == ["2"]
    assert alone.metadata(0) == {"reward_model": nested["reward_model"], "extra": [0.5, None, 1]}
    assert isinstance(alone.metadata(0)["extra"][0], float)


def test_parquet_keeps_them_too(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    table = pyarrow.table(
        {"prompt": ["1+1="], "solutions": [["2"]], "tests": [[{"in": "1", "out": "2"}]], "image": [b"\xff"]}
    )
    write_table(table, tmp_path / "rows.parquet")
    rows, _ = load_prompts(DataConfig(path=str(tmp_path / "rows.parquet")), tiny_tokenizer())
    assert rows.metadata(0) == {"tests": [{"in": "1", "out": "2"}]}


def test_without_sets_a_row_has_its_own_source(tmp_path):
    """Under either common name or a configured one; what is no label is a further field."""
    path = write(
        tmp_path / "d.jsonl",
        {"prompt": "a", "solutions": ["1"], "source": "x"},
        {"prompt": "b", "solutions": ["1"], "data_source": "y"},
        {"prompt": "c", "solutions": ["1"], "source": {"url": "z"}},
        {"prompt": "d", "solutions": ["1"]},
    )
    rows, _ = load_prompts(DataConfig(path=path), tiny_tokenizer())
    assert [rows.source(row) for row in range(4)] == ["x", "y", "", ""]
    assert rows.metadata(2) == {"source": {"url": "z"}}
    data = DataConfig(path=write(tmp_path / "e.jsonl", {"prompt": "a", "solutions": ["1"], "from": 7}))
    data = DataConfig(path=data.path, fields={"source": "from"})
    assert load_prompts(data, tiny_tokenizer())[0].source(0) == "7"


def test_a_file_of_one_object_may_say_where_its_rows_are_from(tmp_path):
    """It is no row itself."""
    document = {"source": "somewhere", "data": [{"prompt": "a", "solutions": ["1"]}] * 2}
    (tmp_path / "d.json").write_text(json.dumps(document))
    rows, _ = load_prompts(DataConfig(path=str(tmp_path / "d.json")), tiny_tokenizer())
    assert len(rows) == 2


def test_the_digest_covers_metadata_and_sources(tmp_path):
    """Rewards may depend on them, so that a resume must find the same ones."""
    digests = set()
    for more in ({}, {"x": 1}, {"x": 2}, {"x": 10**40}, {"source": "s"}):
        path = write(tmp_path / "d.jsonl", {"prompt": "a", "solutions": ["1"], **more})
        rows, _ = load_prompts(DataConfig(path=path), tiny_tokenizer())
        digests.add(digest_rows(rows).checksum)
    assert len(digests) == 5


def test_sets_of_demonstrations_and_of_pairs(files, tmp_path):
    """With their tensors in the order of the rows."""
    two = [{"prompt": f"{i}?", "chosen": "a", "rejected": "bb"} for i in "12"]
    pairs = write(tmp_path / "pairs.jsonl", *two)
    more = write(tmp_path / "more.jsonl", {"prompt": "3?", "chosen": "ccc", "rejected": "d"})
    sets = {"one": DataSetConfig(path=pairs, weight=1), "two": DataSetConfig(path=more, weight=2)}
    rows, _ = load_pairs(DPOConfig(data=DataConfig(sets=sets)), tiny_tokenizer())
    assert [rows.source(row) for row in range(3)] == ["one", "one", "two"]
    assert [len(rows.tensors(row)["input_ids"]) for row in range(3)] == [9, 9, 10]
    assert rows.sets[1].weight == 2

    demonstrations, _ = load_demonstrations(SFTConfig(data=config(files)), tiny_tokenizer())
    tokenizer = tiny_tokenizer()
    learned = [tokenizer.decode(demonstrations.tensors(row)["input_ids"]) for row in range(4)]
    assert [text.removesuffix("<eos>") for text in learned] == ["0+1=1", "1+1=2", "2+1=3", "say a\\boxed{a}"]


def test_the_reward_of_a_set_is_exposed(files):
    """And says whether its rows need solutions."""
    data = config(files, words={"reward": {"math": 0.5}})
    assert data.reward_of("words") == {"math": 0.5}
    assert data.reward_of("sums") is None and data.reward_of("other") is None


def test_a_set_with_another_reward_needs_no_solutions(tmp_path, files):
    """Though those of the run do; the function must be there."""
    (tmp_path / "rewards.py").write_text("def brief(prompt, response, solutions):\n    return 1.0\n")
    files["words"] = write(tmp_path / "open.jsonl", {"prompt": "say a"})
    rows, _ = load(files, words={"reward": f"{tmp_path}/rewards.py:brief"})
    assert rows.solutions(3) == []
    with pytest.raises(ValueError, match=r"^data\.sets\.words\.path: .*open\.jsonl:1: no `solutions`"):
        load(files)
    with pytest.raises(ValueError, match=r"^data\.sets\.words\.reward: .*has no .*'long'"):
        load(files, words={"reward": f"{tmp_path}/rewards.py:long"})
    with pytest.raises(ValueError, match=r"^data\.sets\.words\.reward: `gym` is for tasks"):
        load(files, words={"reward": "gym"})
    with pytest.raises(ValueError, match=r"^data\.sets\.words\.reward\.math: expected a weight"):
        load(files, words={"reward": {"math": 1e31}})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"path": "x"}, r"^path: with data\.sets"),
        ({"commit": "1"}, r"^commit: with data\.sets"),
        ({"eval_split": "test"}, r"^eval_split: with data\.sets"),
        ({"sums": {"weight": 1}}, r"^sets: weights must be given to all sets or to none; words have none"),
        ({"sums": {"num_examples": 1}}, r"^sets\.sums\.num_examples: there are no examples"),
        ({"sums": {"template": "orz", "system": "x"}}, r"^sets\.sums\.system is for chat templates"),
    ],
)
def test_settings_that_do_not_go_together(files, settings, message):
    with pytest.raises(ValueError, match=message):
        config(files, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"path": ""}, "^path: expected the set's rows"),
        ({"weight": 0}, "^weight must be above 0, got 0; leave the set out"),
        ({"weight": float("inf")}, "^weight must be above 0"),
        ({"difficulty": (2, 1)}, "^difficulty must be"),
        ({"fields": {"promt": "x"}}, "^fields: unknown name 'promt'"),
        ({"template": "chatt"}, "^template: expected chat"),
    ],
)
def test_a_set_that_cannot_be_one(settings, message):
    with pytest.raises(ValueError, match=message):
        DataSetConfig(**{"path": "x", **settings})


def test_a_name_that_cannot_be_part_of_a_key():
    with pytest.raises(ValueError, match=r"^sets: a name has letters, digits, _ and -, got 'a\.b'"):
        DataConfig(sets={"a.b": DataSetConfig(path="x")})


def test_a_set_without_rows(files, tmp_path):
    """Of its own, or because none fits."""
    with pytest.raises(ValueError, match=r"^data\.sets\.words: no rows are left; dropped 1 of 1"):
        load(files, words={"difficulty": (0, 1)})
    files["words"] = write(tmp_path / "empty.jsonl")
    with pytest.raises(ValueError, match=r"^data\.sets\.words\.path: .*the dataset is empty"):
        load(files)


def test_sets_may_not_share_ids(files, tmp_path):
    """Two parts of one file may be two sets, as long as they have no row in common."""
    rows = [{"query_id": f"q{i}", "prompt": "a", "solutions": ["1"], "difficulty": i} for i in range(3)]
    files["sums"] = files["words"] = write(tmp_path / "d.jsonl", *rows)
    parted, _ = load(files, sums={"difficulty": (0, 1)}, words={"difficulty": (2, 2)})
    assert len(parted) == 3
    with pytest.raises(ValueError, match=r"^data\.sets: .*d\.jsonl:2 and .*d\.jsonl:2 .* one query_id, 'q1'"):
        load(files, sums={"difficulty": (0, 1)}, words={"difficulty": (1, 2)})


def test_errors_in_a_set_name_it(files, tmp_path):
    files["words"] = write(tmp_path / "bad.jsonl", {"prompt": 1, "solutions": ["a"]})
    with pytest.raises(ValueError, match=r"^data\.sets\.words\.path: .*bad\.jsonl:1: "):
        load(files)
    files["words"] = write(tmp_path / "long.jsonl", {"prompt": "a" * 99, "solutions": ["a"]})
    with pytest.raises(ValueError, match=r"^data\.sets\.words\.path: .*long\.jsonl:1: the prompt has 99"):
        load(files, max_prompt_tokens=50)


def test_a_set_whose_responses_end_differently_is_refused(files):
    """A run's generation stops at one token, that of `data.template`."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"], special_tokens=True)
    data = config(files, words={"template": "qwen-boxed"}, template="plain")
    with pytest.raises(ValueError, match=r"^data\.sets\.words\.template: .*<\|im_end\|> and <eos>"):
        load_prompts(data, tokenizer)
    mixed, _ = load_prompts(config(files, words={"template": "r1-zero"}, template="plain"), tokenizer)
    assert tokenizer.decode(mixed.prompts[3]).startswith("a conversation between")


def test_a_pass_reads_each_row_once(files):
    """So that weights would do nothing there."""
    assert len(load_questions(config(files), tiny_tokenizer())) == 4
    weighted = config(files, sums={"weight": 1}, words={"weight": 2})
    with pytest.raises(ValueError, match=r"^data\.sets\.sums\.weight: nothing is trained here"):
        load_questions(weighted, tiny_tokenizer())
    with pytest.raises(ValueError, match=r"^data\.sets\.words\.reward: this recipe learns from rows"):
        load_questions(config(files, words={"reward": "math"}), tiny_tokenizer())


def test_held_out_questions_of_a_task_are_in_no_set():
    few = {"chain_sum": {"max_terms": 2, "max_digits": 1}}
    sets = {"a": DataSetConfig(path="gym:chain_sum"), "b": DataSetConfig(path="gym:lcm")}
    gym = GymConfig(size=60, eval_size=60, parameters=few)
    rows, held_out = load_prompts(DataConfig(sets=sets, eval_path="gym:chain_sum", gym=gym), tiny_tokenizer())
    trained = {rows.prompt(row) for row in range(len(rows))}
    assert len(rows) == 120 and 0 < len(held_out) < 60
    assert not trained & {held_out.prompt(row) for row in range(len(held_out))}
    assert {rows.source(row) for row in range(120)} == {"a", "b"}
