import random

import msgspec
import numpy as np
import pytest
import torch

from benchmarks import attention, boxes, logprobs
from benchmarks.clusters import SCENARIOS, moe_layout
from benchmarks.command import main
from benchmarks.methods import CUDA_ONLY, METHODS, UNVERIFIED
from benchmarks.pieces import lower_bound, senders, shares
from benchmarks.report import Row
from benchmarks.simulate import Prediction
from benchmarks.workload import DTYPES, decoder_of_size, differing, fill, make_locals
from realrl.api.mesh import DeviceMesh, ParallelLayout, Placement
from tests.layouts.painting import numbered, paint, random_layout

PAIRS = ["t4:d4", "d4:t4", "t2@0:p2@2", "p2:t2"]
FAST = [s.name for s in SCENARIOS if s.num_gpus <= 256]
OURS = ("ours-shm", "ours-shm-unchecked", "ours-gloo", "ours-gloo-unchecked")


@pytest.fixture(scope="module")
def measured() -> tuple[list[Row], str]:
    """A run of every method on small weights, and what it left on stderr."""
    with pytest.MonkeyPatch.context() as patch:
        out, errors = [], []
        patch.setattr("sys.stdout.write", out.append)
        patch.setattr("sys.stderr.write", errors.append)
        code = main(["realloc", "--json", "--size-mib", "8", "--rounds", "1", "--pairs", ",".join(PAIRS)])
    assert code == 0, "".join(errors)
    lines = "".join(out).splitlines()
    return [msgspec.json.decode(line, type=Row) for line in lines], "".join(errors)


def test_every_method_is_measured_and_leaves_the_right_target(measured):
    """Each run ends with an error if a method leaves a wrong bit on any rank."""
    rows, errors = measured
    names = [name for name in METHODS if name not in CUDA_ONLY]
    assert [(row.pair, row.method) for row in rows] == [(pair, name) for pair in PAIRS for name in names]
    assert all(row.seconds > 0 for row in rows if row.bytes_moved)
    assert all(row.peak_staging_bytes > 0 for row in rows if row.bytes_moved)
    assert errors.count("\n") == 1 and "torch" in errors


def test_ours_moves_what_is_lacking_and_no_method_moves_less(measured):
    """And where nothing is lacking the floor is 0."""
    rows, _ = measured
    assert {row.pair for row in rows if row.bytes_lower_bound == 0} == {"d4:t4"}
    for row in rows:
        assert row.bytes_moved >= row.bytes_lower_bound
        assert (row.seconds_floor == 0) == (row.bytes_lower_bound == 0)
        if row.method in (*OURS, "raw-exchange", "memcpy"):
            assert row.bytes_moved == row.bytes_lower_bound
        elif row.method not in UNVERIFIED and row.pair == "p2:t2":
            assert row.bytes_moved >= (1 if row.method == "pair-broadcast" else 1.5) * row.bytes_lower_bound


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_wrong_bit_is_noticed(dtype):
    """In a vector as in a fused matrix; tensors that were never written differ too."""
    decoder = decoder_of_size(8 << 20, DTYPES[dtype])
    placement = Placement(DeviceMesh((0, 1)), ParallelLayout(tp=2))
    held = make_locals(placement, decoder, 1, DTYPES[dtype], torch.device("cpu"))
    assert differing(held)
    fill(held)
    assert not differing(held)
    for name, tensor in (("layers.0.qkv", "self_attn"), ("norm", "model.norm")):
        bits = held.tensors[name].view(-1).view(torch.uint8)
        bits[len(bits) // 2] ^= 1
        assert [tensor in found for found in differing(held)] == [True]
        bits[len(bits) // 2] ^= 1


def test_elements_do_not_depend_on_the_layout():
    """Put together from two layouts, a fused tensor's parts are those of one rank that holds all."""
    decoder = decoder_of_size(8 << 20, torch.bfloat16)
    one, two = (
        Placement(DeviceMesh((0,)), ParallelLayout()),
        Placement(DeviceMesh((0, 1)), ParallelLayout(tp=2)),
    )
    whole, *halves = (
        make_locals(p, decoder, r, torch.bfloat16, torch.device("cpu"))
        for p, r in ((one, 0), (two, 0), (two, 1))
    )
    for held in (whole, *halves):
        fill(held)
    down = [held.tensors["layers.0.mlp_down"].view(torch.int16) for held in halves]
    assert torch.equal(whole.tensors["layers.0.mlp_down"].view(torch.int16), torch.cat(down, dim=1))


@pytest.mark.parametrize("seed", range(20))
def test_the_lower_bound_is_what_counting_elements_gives(seed):
    """Random layouts, element by element; and shares hold every element that is held exactly once."""
    rng = random.Random(seed)
    shapes = {"w": (7, 5), "b": (9,), "c": (3, 4, 2)}
    values = numbered(shapes)
    source, target = (random_layout(rng, shapes, rng.sample(range(4), rng.randint(1, 4))) for _ in range(2))
    held, wanted = (
        {r: {int(x) for t in tensors.values() for x in np.unique(t)} - {0} for r, tensors in painted.items()}
        for painted in (paint(source, values, 0), paint(target, values, 0))
    )
    assert lower_bound(source, target) == sum(len(w - held.get(r, set())) for r, w in wanted.items())
    shared = [
        (rank, int(x))
        for rank, boxes in shares(source).items()
        for box in boxes
        for x in values[box.tensor][tuple(map(slice, box.start, box.stop))].flat
    ]
    assert sorted(x for _, x in shared) == list(range(1, 1 + sum(v.size for v in values.values())))
    assert all(x in held[rank] for rank, x in shared)


def test_a_broadcast_starts_in_each_node_that_holds_the_content():
    """Nodes of two; the holder that wants the content itself sends, and a node without one is served."""
    found = senders(frozenset((0, 1, 2)), frozenset((1, 3, 4, 5)), lambda rank: rank // 2)
    assert sorted(found) == [1, 2]
    assert sorted(r for receivers in found.values() for r in receivers) == [1, 3, 4, 5]
    assert 1 in found[1] and 3 in found[2]


BAD = [
    ("--pairs t4", "--pairs"),
    ("--pairs t4:x2", "--pairs"),
    ("--pairs t4:d4@", "--pairs"),
    ("--pairs t3:d3", "--pairs t3:d3"),
    ("--pairs p4:t4 --size-mib 1", "--pairs p4:t4"),
    ("--pairs t4:d4@1", "--workers"),
    ("--methods ours-gloo,scp", "--methods"),
    ("--methods ours-nccl", "--methods"),
    ("--device cuda --workers 1000", "--device"),
    ("--rounds 0", "--rounds"),
    ("--workers two", "--workers"),
    ("--dtype int8", "--dtype"),
    ("--staging-mib -1", "--staging-mib"),
    ("--simulate --link-gb-s 0", "--link-gb-s"),
    ("--simulate --nic-gb-s fast", "--nic-gb-s"),
    ("--simulate --scenarios 7b-9", "--scenarios"),
    ("--fast", "--fast"),
    ("--budgets 8192,many", "--budgets"),
]


@pytest.mark.parametrize(("options", "named"), BAD)
def test_bad_options_are_refused_with_one_line(options, named, monkeypatch, capsys):
    """It names the option, and nothing is started."""
    monkeypatch.setattr("torch.multiprocessing.spawn", lambda *_, **__: pytest.fail("workers were started"))
    assert main(["realloc", *options.split()]) == 2
    out, errors = capsys.readouterr()
    assert not out and errors.count("\n") == 1
    assert errors.startswith("realrl: error: ") and named in errors


def test_simulation_has_a_row_for_each_scenario_and_ours_is_near_the_floor(capsys):
    """And ahead of the other systems' ways under the same model."""
    assert main(["realloc", "--simulate", "--json", "--scenarios", ",".join(FAST)]) == 0
    found = [msgspec.json.decode(line, type=Prediction) for line in capsys.readouterr().out.splitlines()]
    assert [p.scenario for p in found] == FAST
    assert {8, 64, 256} == {p.gpus for p in found}
    for p in found:
        assert p.bytes_moved == p.bytes_lower_bound
        assert p.floor_s <= p.makespan_s <= 1.1 * p.floor_s
        assert p.makespan_s < min(p.pair_broadcast_s, p.gather_broadcast_s)


@pytest.mark.slow
def test_simulation_of_a_large_mixture_of_experts(capsys):
    """1,024 GPUs."""
    assert main(["realloc", "--simulate", "--json", "--scenarios", "671b-1024"]) == 0
    found = msgspec.json.decode(capsys.readouterr().out, type=Prediction)
    assert found.gpus == 1024 and found.makespan_s <= 1.1 * found.floor_s


def test_simulation_table_cites_what_others_published(capsys):
    """Each figure with its source."""
    assert main(["realloc", "--simulate", "--scenarios", "7b-8", "--nic-gb-s", "25"]) == 0
    own, published = capsys.readouterr().out.split("Published by others")
    assert "25 GB/s a GPU to others" in own and "7b-8" in own
    lines = published.splitlines()[2:]
    assert len(lines) > 5 and all("https://" in line for line in lines)


def test_the_large_model_has_its_published_size():
    """671 B parameters, whichever way it is cut."""
    for layout in (moe_layout(16, 64, 1), moe_layout(1, 64, 16)):
        numel = sum(np.prod(shape, dtype=float) for shape in layout.extents().values())
        assert numel / 1e9 == pytest.approx(671, abs=0.1)
        assert len(layout.ranks) == 1024


def test_the_kernels_are_timed_beside_a_memcpy(capsys):
    """Every kind of boxes, type, message and kernel has a rate; one JSON object a line."""
    assert main(["boxes", "--json", "--rounds", "1"]) == 0
    rows = [msgspec.json.decode(line, type=boxes.Row) for line in capsys.readouterr().out.splitlines()]
    assert len({(row.boxes, row.dtype, row.message_bytes, row.kernel) for row in rows}) == 3 * 2 * 2 * 4
    assert all(row.gb_s > 0 and row.memcpy_gb_s > 0 for row in rows)
    assert boxes.render(rows).count("\n") == len(rows) + 3


def test_the_head_is_timed_beside_pytorch(monkeypatch, capsys):
    """Both types, with and without gradients; ours takes less memory where the logits are many."""
    monkeypatch.setattr(logprobs, "_HEADS", {"small": (16, 8192, 4096)})
    assert main(["logprobs", "--json", "--rounds", "1"]) == 0
    rows = [msgspec.json.decode(line, type=logprobs.Row) for line in capsys.readouterr().out.splitlines()]
    assert [row.method for row in rows] == ["ours", "PyTorch", "products"] * 4
    assert all(row.seconds > 0 for row in rows)
    peaks = {(row.dtype, row.passes, row.method): row.peak_bytes for row in rows}
    for dtype, passes, _ in peaks:
        assert peaks[dtype, passes, "ours"] < peaks[dtype, passes, "PyTorch"]
    assert logprobs.render(rows).count("\n") == len(rows) + 1


def test_attention_is_timed_beside_pytorchs(capsys, monkeypatch):
    """Every shape, type, work and method has a rate; useful pairs are those that a loop counts."""
    shapes = (attention.Shape(1, 0, 3, 5), attention.Shape(2, 4, 3, 5))
    for shape in shapes:
        segments = shape.segments
        assert int((segments.positions() + 1).sum()) == shape.useful_pairs
    monkeypatch.setattr(attention, "_SHAPES", shapes)
    monkeypatch.setattr(attention, "_CONTEXTS", (3, 65))
    monkeypatch.setattr(attention, "_MATMUL_SIZES", {"cpu": 64})
    monkeypatch.setattr(attention, "_CACHE_BYTES", {"cpu": 1 << 20})
    assert main(["attention", "--json", "--rounds", "1"]) == 0
    rows = [msgspec.json.decode(line, type=attention.Row) for line in capsys.readouterr().out.splitlines()]
    assert len({(row.work, row.shape, row.dtype, row.method) for row in rows}) == 2 * (2 * 2 * 2 + 2)
    assert all(row.rate > 0 and row.peak > 0 for row in rows)
    assert attention.render(rows).count("\n") == len(rows) + 1
