import json
import math
import pickle
import random
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from realrl.layouts.layout import Box, Layout, Shard
from realrl.realloc import checkpoint
from realrl.realloc.checkpoint import (
    INDEX_FILE,
    SINGLE_FILE,
    file_layout,
    load,
    save,
    save_layout,
    write_index,
    write_shard,
)
from realrl.realloc.transfer import TransferSettings
from tests.layouts.painting import all_shards, local_shapes, numbered, paint, random_layout
from tests.tiny import tiny_llama
from tests.world import run_world

SHAPES = {"a": (9, 7), "b": (13,), "c": (3, 4, 5), "d": (), "e": (6, 2)}
VALUES = {name: torch.as_tensor(array, dtype=torch.float32) for name, array in numbered(SHAPES).items()}
NUM_RANKS = 3


def whole_layout(ranks: dict[str, int]) -> Layout:
    """Tensor `t` whole on rank `ranks[t]`."""
    return Layout(tuple(checkpoint._whole(rank, name, SHAPES[name]) for name, rank in ranks.items()))


def write(directory: Path, num_files: int, values: dict = VALUES) -> Path:
    directory.mkdir(exist_ok=True)
    saved = whole_layout({name: i % num_files for i, name in enumerate(values)})
    for index, rank in enumerate(saved.ranks):
        write_shard(directory, num_files, index, {s.local: values[s.local] for s in saved.shards(rank)})
    write_index(directory, saved, 4)
    return directory


def zeros(layout: Layout, rank: int, dtype=torch.float32) -> dict[str, torch.Tensor]:
    return {name: torch.zeros(s, dtype=dtype) for name, s in local_shapes(layout).get(rank, {}).items()}


def check_loaded(directory: Path, layout: Layout, rank: int) -> None:
    target = zeros(layout, rank)
    load(directory, layout, rank, target)
    for name, expected in paint(layout, numbered(SHAPES), 0).get(rank, {}).items():
        assert torch.equal(target[name], torch.as_tensor(expected, dtype=torch.float32)), name


@pytest.mark.parametrize("num_files", [1, 3])
def test_every_rank_of_any_layout_loads_its_boxes(tmp_path, num_files):
    """Against painting, from one file and from several."""
    write(tmp_path, num_files)
    assert (tmp_path / INDEX_FILE).exists() == (num_files > 1)
    for seed in range(20):
        layout = random_layout(random.Random(seed), SHAPES, [0, 1, 2])
        for rank in range(3):
            check_loaded(tmp_path, layout, rank)


def test_a_rank_reads_only_what_it_needs(tmp_path, monkeypatch):
    """The elements read are those of the rank's boxes, in pieces that bound the memory."""
    sizes = []

    def counted(file, held, offset, shape, read=checkpoint._read):
        sizes.append(math.prod(shape))
        return read(file, held, offset, shape)

    monkeypatch.setattr(checkpoint, "_read", counted)
    monkeypatch.setattr(checkpoint, "_ELEMENTS_AT_ONCE", 8)
    layout = Layout.of(
        (
            Shard(0, Box("a", (0, 0), (9, 7)), "a", (0, 0)),
            Shard(1, Box("a", (2, 1), (7, 4)), "a", (0, 0)),
            Shard(1, Box("d", (), ()), "d", ()),
        )
    )
    check_loaded(write(tmp_path, 2), layout, 1)
    assert sum(sizes) == 5 * 3 + 1 and max(sizes) <= 8


def test_loading_casts_to_the_targets_dtype(tmp_path):
    """A bf16 file into a float32 tensor exactly, a float32 file into a bf16 tensor by rounding."""
    layout = whole_layout(dict.fromkeys(SHAPES, 0))
    noisy = {name: torch.randn(shape) for name, shape in SHAPES.items()}
    write(tmp_path, 1, noisy)
    rounded = zeros(layout, 0, torch.bfloat16)
    load(tmp_path, layout, 0, rounded)
    assert all(torch.equal(rounded[name], noisy[name].bfloat16()) for name in SHAPES)
    write(tmp_path, 1, rounded)
    widened = zeros(layout, 0)
    load(tmp_path, layout, 0, widened)
    assert all(torch.equal(widened[name], rounded[name].float()) for name in SHAPES)


def test_transformers_opens_what_is_written(tmp_path):
    """A Llama rewritten as three files gives the same tensors through from_pretrained."""
    original = tiny_llama(tmp_path / "tiny")
    tensors, files = load_file(original / SINGLE_FILE), file_layout(original)
    again = tmp_path / "again"
    again.mkdir()
    saved = save_layout(files, range(3))
    for index, rank in enumerate(saved.ranks):
        write_shard(again, 3, index, {s.local: tensors[s.local] for s in saved.shards(rank)})
    write_index(again, saved, 4)
    shutil.copy(original / "config.json", again)
    models = [AutoModelForCausalLM.from_pretrained(path).state_dict() for path in (original, again)]
    assert models[0].keys() == models[1].keys()
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])


def save_and_load_elsewhere(rank: int, directory: Path) -> None:
    for seed in range(6):
        rng = random.Random(seed)
        layout = random_layout(rng, SHAPES, list(range(NUM_RANKS)))
        source = {
            name: torch.as_tensor(array, dtype=torch.float32)
            for name, array in paint(layout, numbered(SHAPES), -1).get(rank, {}).items()
        }
        folder = directory / str(seed)
        folder.mkdir(exist_ok=True)
        ranks = range(NUM_RANKS) if seed else [1]
        settings = TransferSettings(staging_bytes=1 << 12)
        save(folder, layout, source, rank=rank, ranks=ranks, dtype=torch.float32, settings=settings)
        torch.distributed.barrier()
        check_loaded(folder, random_layout(rng, SHAPES, list(range(NUM_RANKS))), rank)


def test_what_ranks_save_other_layouts_load(tmp_path):
    """Saved by three ranks or one, whole tensors, no padding; nothing is left aside."""
    run_world(save_and_load_elsewhere, NUM_RANKS, tmp_path)
    assert [path.name for path in (tmp_path / "0").iterdir()] == [SINGLE_FILE]
    index = json.loads((tmp_path / "1" / INDEX_FILE).read_text())
    assert index["weight_map"].keys() == SHAPES.keys()
    assert index["metadata"]["total_size"] == 4 * sum(v.numel() for v in VALUES.values())
    assert {p.name for p in (tmp_path / "1").iterdir()} == {INDEX_FILE, *index["weight_map"].values()}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(1, 5), st.integers(0, 2**32))
def test_each_tensor_has_one_writer_and_writers_share_evenly(sizes, num_ranks, seed):
    """Whole tensors, each once; no writer has more than an even share and the largest tensor."""
    rng, tensors = random.Random(seed), {f"t{i}": (n, 2) for i, n in enumerate(sizes)}
    saved = save_layout(random_layout(rng, tensors, list(range(num_ranks))), range(num_ranks))
    assert saved.extents() == tensors and len(saved.patterns) == len(tensors)
    even = 2 * sum(sizes) / num_ranks
    for rank in saved.ranks:
        assert sum(s.box.numel for s in saved.shards(rank)) <= 1.05 * even + 2 * max(sizes)


def test_a_pipeline_stage_writes_its_own_layers():
    """Where the load is even, the writer of a tensor is a rank that holds it, and nothing moves."""
    model = Layout.of(tuple(Shard(i // 8, Box(f"t{i}", (0,), (4,)), f"t{i}", (0,)) for i in range(16)))
    assert all(s.rank == int(s.local[1:]) // 8 for s in all_shards(save_layout(model, [0, 1])))


def test_an_interrupted_write_leaves_the_earlier_file_whole(tmp_path, monkeypatch):
    """A file is replaced only by one that is complete."""
    write(tmp_path, 1)
    before = (tmp_path / SINGLE_FILE).read_bytes()

    def interrupted(tensors, path, metadata):
        path.write_bytes(before[:100])
        raise OSError("no space left on device")

    monkeypatch.setattr(checkpoint, "save_file", interrupted)
    with pytest.raises(OSError):
        write(tmp_path, 1, {name: value + 1 for name, value in VALUES.items()})
    assert (tmp_path / SINGLE_FILE).read_bytes() == before


def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path):
    """Each message names the directory or file and what is wrong with it."""
    write(tmp_path, 3)
    absent = Layout.of((Shard(0, Box("absent", (0,), (2,)), "x", (0,)),))
    with pytest.raises(ValueError, match=f"{tmp_path} has no tensor 'absent'"):
        load(tmp_path, absent, 0, {})
    smaller = Layout.of((Shard(0, Box("b", (0,), (12,)), "b", (0,)),))
    with pytest.raises(ValueError, match=r"expected 'b' of shape \[12\], got \[13\]"):
        load(tmp_path, smaller, 0, {})


def test_a_pickle_is_refused_unread(tmp_path):
    """It would leave a trace if it were read."""
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(_Trap(str(tmp_path / "sprung"))))
    with pytest.raises(ValueError, match="pytorch_model.bin is a pickle.* convert it"):
        file_layout(tmp_path)
    assert not (tmp_path / "sprung").exists()
    pickle.loads((tmp_path / "pytorch_model.bin").read_bytes())
    assert (tmp_path / "sprung").exists()


class _Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_broken_files_are_refused_by_name(tmp_path):
    """Nothing there, a missing file, a cut one, an index that lies or is none."""
    with pytest.raises(ValueError, match=f"has neither {SINGLE_FILE} nor {INDEX_FILE}"):
        file_layout(tmp_path)
    write(tmp_path, 2)
    second = tmp_path / "model-00002-of-00002.safetensors"
    second.write_bytes(second.read_bytes()[:-4])
    with pytest.raises(ValueError, match=f"{second} is no whole safetensors file"):
        file_layout(tmp_path)
    second.unlink()
    with pytest.raises(ValueError, match=f"{second} is missing"):
        file_layout(tmp_path)
    index = json.loads((tmp_path / INDEX_FILE).read_text())
    index["weight_map"] = {"ghost": "model-00001-of-00002.safetensors"}
    (tmp_path / INDEX_FILE).write_text(json.dumps(index))
    with pytest.raises(ValueError, match="lacks 'ghost'"):
        file_layout(tmp_path)
    index["weight_map"] = {"a": "../elsewhere.safetensors"}
    (tmp_path / INDEX_FILE).write_text(json.dumps(index))
    with pytest.raises(ValueError, match="which is no file beside it"):
        file_layout(tmp_path)
    for text in (b"[]", b"{", b'{"weight_map": {"a": 3}}', b'{"weight_map": {"\xff": "a"}}'):
        (tmp_path / INDEX_FILE).write_bytes(text)
        with pytest.raises(ValueError, match="is no checkpoint index"):
            file_layout(tmp_path)
