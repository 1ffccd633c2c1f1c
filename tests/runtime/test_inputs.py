"""Digests of what a run reads: other rows and other weights are told, and what only moved is not."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from realrl.api.config import ModelConfig, TrainedModelConfig
from realrl.api.configure import dump_config
from realrl.api.data import DataConfig, DataSetConfig
from realrl.api.evals import EvalConfig
from realrl.api.recipe import Recipe
from realrl.datasets import prompts
from realrl.datasets.digests import digest_rows
from realrl.recipes.gen import GEN, GenConfig
from realrl.recipes.ppo_math import PPO_MATH, PPOMathConfig, PPOMathSettings
from realrl.runtime import inputs
from realrl.runtime.failure import RunFailed, RunRefused
from realrl.runtime.inputs import (
    InputDigests,
    InputsReader,
    check_digests,
    difference,
    digest_data,
    digests_of,
    model_keys,
    sample_model,
)
from realrl.runtime.master.recorder import run_directory
from realrl.runtime.pins import pin
from realrl.runtime.resume import check_resume, record_inputs
from realrl.runtime.run_data import RunData, open_data
from realrl.runtime.run_files import CONFIG
from tests.tiny import tiny_llama, tiny_tokenizer

ROWS = [{"query_id": f"q{i}", "prompt": f"{i}+{i}=", "solutions": [str(2 * i)]} for i in range(4)]


def write_rows(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def loaded(path: Path, **settings: object) -> prompts.PromptDataset:
    data = DataConfig(path=str(path), template="plain", **settings)
    rows, _ = prompts.load_prompts(data, tiny_tokenizer())
    return rows


def changed(row: int, **changes: object) -> list[dict]:
    rows = [dict(row) for row in ROWS]
    rows[row] |= changes
    return rows


@pytest.mark.parametrize(
    "rows",
    [
        changed(2, prompt="2+3="),
        changed(0, solutions=["1"]),
        changed(0, solutions=["0", "00"]),
        changed(3, query_id="other"),
        changed(1, difficulty=0.5),
        ROWS[:3],
        [*ROWS[1:], ROWS[0]],
    ],
)
def test_any_other_row_has_another_digest(tmp_path, rows):
    """Prompts, solutions and what else a rank looks up; their number and their order."""
    ours = digest_rows(loaded(write_rows(tmp_path / "ours.jsonl", ROWS)))
    assert digest_rows(loaded(write_rows(tmp_path / "theirs.jsonl", rows))) != ours


def test_rows_that_moved_are_the_same(tmp_path):
    """Into another file, at other lines."""
    ours = digest_rows(loaded(write_rows(tmp_path / "ours.jsonl", ROWS)))
    moved = tmp_path / "moved.jsonl"
    moved.write_text("\n\n" + (tmp_path / "ours.jsonl").read_text())
    assert digest_rows(loaded(moved)) == ours


@pytest.fixture
def model(tmp_path) -> Path:
    return tiny_llama(tmp_path / "model")


def with_noise(model: Path, tensor: str, index: int = 0) -> None:
    """Change one number."""
    weights = load_file(model / "model.safetensors")
    weights[tensor].view(-1)[index] += 1
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})


def test_a_sample_tells_another_model(model, tmp_path):
    """Of the same shape, trained a little more; a copy is the same."""
    copy = Path(shutil.copytree(model, tmp_path / "copy"))
    assert sample_model(copy) == sample_model(model)
    weights = {name: weight + 1e-3 for name, weight in load_file(model / "model.safetensors").items()}
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    assert sample_model(copy) != sample_model(model)


def ppo(tmp_path: Path, model: Path, **changes: object) -> PPOMathConfig:
    """An actor and a reference out of one directory each."""
    trained = TrainedModelConfig(model=ModelConfig(path=str(model), dtype="float32"))
    rows = write_rows(tmp_path / "rows.jsonl", ROWS)
    config = PPOMathConfig(
        actor=trained,
        ppo=PPOMathSettings(group_size=2, kl_coef=0.1),
        data=DataConfig(path=str(rows), eval_path=str(rows), template="plain"),
        runs_dir=str(tmp_path / "runs"),
        recover_every=1,
    )
    return replace(config, **changes)


def read(recipe: Recipe, config: object, known: InputDigests | None = None) -> InputDigests:
    with InputsReader(recipe, config, digest_data(open_data(recipe, config)), known) as reader:
        return reader.all()


def test_a_reference_of_one_other_number_is_told(tmp_path, model):
    """Every byte counts, of the weights that the run does not change, and of each model's descriptions."""
    config = ppo(tmp_path, model)
    before, keys = read(PPO_MATH, config), model_keys(PPO_MATH, config)
    assert difference(before, read(PPO_MATH, config), keys) is None
    assert "model.safetensors" not in before.models["actor"]
    with_noise(model, "model.layers.2.mlp.up_proj.weight", 77)
    assert (
        difference(before, read(PPO_MATH, config), keys)
        == "actor.model.path: model.safetensors has other content"
    )
    tiny_llama(model)
    assert difference(before, read(PPO_MATH, config), keys) is None
    (model / "generation_config.json").write_text("{}")
    assert "generation_config.json has other content" in difference(before, read(PPO_MATH, config), keys)


def test_a_file_that_is_as_it_was_is_not_read_again(tmp_path, model, monkeypatch):
    """A resume costs nothing then; a file that was written to is read, though size and time are as before."""
    config, opened = ppo(tmp_path, model), []
    before = read(PPO_MATH, config)
    checksum = inputs.checksum
    monkeypatch.setattr(inputs, "checksum", lambda path: opened.append(path.name) or checksum(path))
    assert read(PPO_MATH, config, before) == before and opened == []
    weights = model / "model.safetensors"
    times = weights.stat()
    with weights.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    now = read(PPO_MATH, config, before)
    assert opened == ["model.safetensors"]
    assert difference(before, now, {}) == "ref: model.safetensors has other content"


def test_a_file_that_changes_while_it_is_read_is_named(tmp_path, model, monkeypatch):
    """What was read of it would be of no use later."""

    def write_meanwhile(path: Path) -> str:
        path.write_bytes(path.read_bytes() + b" ")
        return "abc"

    monkeypatch.setattr(inputs, "checksum", write_meanwhile)
    with pytest.raises(RunFailed, match="was written to while it was read"):
        read(PPO_MATH, ppo(tmp_path, model))


def test_a_rank_that_reads_something_else_refuses(tmp_path, model):
    """It names itself, its host, and where it looked: for rows, held-out rows and models."""
    config = ppo(tmp_path, model)
    data = open_data(PPO_MATH, config)
    expected = digests_of(PPO_MATH, config, digest_data(data))
    check_digests(expected, PPO_MATH, config, data, rank=3)
    other = loaded(write_rows(tmp_path / "other.jsonl", ROWS[:3]))
    place = str(config.data.path)
    with pytest.raises(RunRefused, match=r"data.path: rank 3 on \S+ reads 3 rows with the digest") as refusal:
        check_digests(expected, PPO_MATH, config, data._replace(rows=other), rank=3)
    assert f"from {place}, the master 4 rows" in str(refusal.value)
    with pytest.raises(RunRefused, match="data.eval_path: rank 0 on .* reads no rows"):
        check_digests(expected, PPO_MATH, config, data._replace(held_out=None), rank=0)
    with_noise(model, "model.norm.weight")
    with pytest.raises(RunRefused, match=f"actor.model.path: rank 1 on .* has other files in {model}"):
        check_digests(expected, PPO_MATH, config, data, rank=1)


def test_a_template_that_draws_gives_every_reader_other_rows(tmp_path, model):
    """So that the ranks of a run refuse."""
    data = DataConfig(path=str(tmp_path / "rows.jsonl"), template="chat")
    config = replace(ppo(tmp_path, model), data=data)
    template = "{{ messages[0].content }}{{ range(99999) | random }}"
    (model / "chat_template.jinja").write_text(template)
    first, second = (digest_rows(open_data(PPO_MATH, config).rows) for _ in range(2))
    assert first != second


def test_a_template_that_tells_the_time_tells_the_day_of_the_runs_start(tmp_path, model):
    """So that ranks agree around midnight, and a run can be resumed on another day."""
    template = "{{ strftime_now('%d.%m.%Y %H:%M:%S.%f') }}{{ messages[0].content }}"
    (model / "chat_template.jinja").write_text(template)
    rows = write_rows(tmp_path / "rows.jsonl", ROWS[:1])
    given = replace(ppo(tmp_path, model), data=DataConfig(path=str(rows)))
    pinned = pin(PPO_MATH, given)
    assert pinned.data.date == date.today().isoformat()
    earlier = replace(given, data=replace(given.data, date="2024-07-26"))
    data = open_data(PPO_MATH, earlier)
    assert data.tokenizer.decode(data.rows.prompts[0]) == "26.07.2024 00:00:00.0000000+0="
    begun(PPO_MATH, earlier)
    (run_directory(earlier) / "recovery" / "step-1").mkdir(parents=True)
    assert pin(PPO_MATH, given).data.date == "2024-07-26"


def begun(recipe: Recipe, config: object) -> RunData:
    """A run's directory, as a pass leaves it; returns its data."""
    run_directory(config).mkdir(parents=True)
    (run_directory(config) / CONFIG).write_text(dump_config(config, recipe=recipe.name))
    record_inputs(config, read(recipe, config))
    return open_data(recipe, config)


@pytest.fixture
def gen(tmp_path, model) -> GenConfig:
    rows = write_rows(tmp_path / "rows.jsonl", ROWS)
    data = DataConfig(path=str(rows), template="plain")
    return GenConfig(model=ModelConfig(path=str(model)), data=data, runs_dir=str(tmp_path / "runs"))


def test_a_resume_takes_rows_and_models_that_moved(gen, tmp_path, model):
    """Other settings of either stay as they are."""
    begun(GEN, gen)
    model.rename(tmp_path / "moved")
    (tmp_path / "rows.jsonl").rename(tmp_path / "moved.jsonl")
    moved = replace(gen.model, path=str(tmp_path / "moved"))
    data = replace(gen.data, path=str(tmp_path / "moved.jsonl"))
    now = replace(gen, model=moved, data=data)
    check_resume(GEN, now, digest_data(open_data(GEN, now)))
    other = replace(now, model=replace(moved, dtype="float32"))
    with pytest.raises(ValueError, match="made with model.dtype='bfloat16', got 'float32'"):
        check_resume(GEN, other, digest_data(open_data(GEN, other)))


def test_a_resume_takes_sets_and_examples_that_moved(gen, tmp_path):
    """As they are the same rows; another set's name is another run."""
    write_rows(tmp_path / "examples.jsonl", [{"prompt": "9+9", "response": "18"}])
    sets = {"a": DataSetConfig(path=str(tmp_path / "rows.jsonl"))}
    data = DataConfig(sets=sets, template="plain", examples=str(tmp_path / "examples.jsonl"))
    begun(GEN, replace(gen, data=data))
    for name in ("rows", "examples"):
        (tmp_path / f"{name}.jsonl").rename(tmp_path / f"moved-{name}.jsonl")
    sets = {"a": DataSetConfig(path=str(tmp_path / "moved-rows.jsonl"))}
    moved = replace(data, sets=sets, examples=str(tmp_path / "moved-examples.jsonl"))
    now = replace(gen, data=moved)
    check_resume(GEN, now, digest_data(open_data(GEN, now)))
    renamed = replace(gen, data=replace(moved, sets={"b": sets["a"]}))
    with pytest.raises(ValueError, match=r"made with data\.sets\."):
        check_resume(GEN, renamed, digest_data(open_data(GEN, renamed)))


def test_a_resume_refuses_rows_and_models_that_were_exchanged(gen, tmp_path, model):
    """By name, also under the same path."""
    begun(GEN, gen)
    write_rows(tmp_path / "rows.jsonl", changed(1, solutions=["7"]))
    with pytest.raises(
        ValueError, match=r"data.path: 4 rows with the digest .* now, 4 rows .* then: .*gen/trial is"
    ):
        check_resume(GEN, gen, digest_data(open_data(GEN, gen)))
    write_rows(tmp_path / "rows.jsonl", ROWS)
    with_noise(model, "model.norm.weight")
    with pytest.raises(ValueError, match="model.path: model.safetensors has other content: .* put that back"):
        check_resume(GEN, gen, digest_data(open_data(GEN, gen)))


def test_a_damaged_note_of_what_a_pass_read_is_named(gen):
    data = begun(GEN, gen)
    (run_directory(gen) / "inputs.json").write_text('{"rows": ')
    with pytest.raises(RunRefused, match="inputs.json cannot be read .* put a whole copy there"):
        check_resume(GEN, gen, digest_data(data))


def test_rows_of_a_set_are_compared_on_every_rank_and_at_a_resume(tmp_path, model):
    """A set that is new at a resume is not."""
    path = write_rows(tmp_path / "set.jsonl", ROWS[:2])
    config = replace(ppo(tmp_path, model), evals={"few": EvalConfig(path=str(path))})
    data = open_data(PPO_MATH, config)
    digest = digest_data(data)
    expected = digests_of(PPO_MATH, config, digest)
    check_digests(expected, PPO_MATH, config, data, rank=3)
    other = data._replace(more_sets={"few": data.rows})
    with pytest.raises(RunRefused, match="evals.few.path: rank 3 on .* reads 4 rows .* from .*set.jsonl"):
        check_digests(expected, PPO_MATH, config, other, rank=3)

    before = InputDigests(digest.rows, digest.held_out, {}, dict(digest.more_sets))
    changed = digest_data(other)
    now = InputDigests(changed.rows, changed.held_out, {}, dict(changed.more_sets))
    assert "evals.few.path: 4 rows" in difference(before, now, {})
    new = InputDigests(changed.rows, changed.held_out, {}, {"another": digest.rows})
    assert difference(before, new, {}) is None
