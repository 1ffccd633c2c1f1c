"""The sample store and its moves, between real processes."""

import pytest
import torch

from realrl.api.batch import Sample, pack
from realrl.api.graph import CallKind, ModelFunctionCall
from realrl.api.mesh import DeviceMesh, ParallelLayout, Placement
from realrl.api.messages import KeyMove
from realrl.layouts.topology import ONE_NODE
from realrl.program.instructions import Move
from realrl.realloc.transfer import TransferSettings
from realrl.runtime.worker.sample_store import SampleStore
from tests.world import run_world

DTYPES = {"ids": torch.int64, "mask": torch.bool, "logprobs": torch.bfloat16}
MOVES = (("ids",), ("mask", "logprobs"))
SAMPLES = range(6)


def _tensor(key, sample):
    """Any rank can make it, so any can check it; sample 3 is empty."""
    length = 0 if sample == 3 else 1 + sample
    return (torch.arange(length) * 7 + sample).remainder(5).to(DTYPES[key])


def _instruction(moves):
    function = ModelFunctionCall("one", None, CallKind.COMPUTE, tuple(DTYPES))
    placement = Placement(DeviceMesh((0, 1, 2, 3)), ParallelLayout(dp=4))
    keys = tuple(DTYPES)
    return Move(job=9, function=function, placement=placement, keys=keys, producers=(), moves=tuple(moves))


def _move_and_check(rank):
    store = SampleStore(rank, ONE_NODE, TransferSettings(staging_bytes=1 << 12))
    source = {0: (0, 1, 2), 1: (2, 3), 2: (4, 5)}
    target = {0: (5, 3), 1: (0, 1, 4), 3: tuple(SAMPLES)}
    if held := source.get(rank):
        samples = [Sample(i, i) for i in held]
        store.put(9, pack(samples, {key: [_tensor(key, i) for i in held] for key in DTYPES}), tuple(DTYPES))
    moves = [
        KeyMove(
            dtypes={key: str(DTYPES[key]).removeprefix("torch.") for key in keys},
            lengths={i: len(_tensor(keys[0], i)) for i in SAMPLES},
            source=source,
            target=target,
        )
        for keys in MOVES
    ]
    store.move(_instruction(moves))
    for key in DTYPES:
        for sample in (*source.get(rank, ()), *target.get(rank, ())):
            torch.testing.assert_close(store.get(9, key, sample), _tensor(key, sample), rtol=0, atol=0)
    store.forget(9)
    with pytest.raises(KeyError):
        store.get(9, "ids", 0)


def test_a_move_brings_each_sample_bit_exact():
    """Several keys and types, an empty sample, a sample held twice, and messages of a few bytes."""
    run_world(_move_and_check, 4)


def test_a_share_without_samples_is_an_empty_batch():
    """With the right types: bodies still take part in collectives with it."""
    dtypes = {"ids": torch.int64, "rewards": torch.float32}
    batch = pack([], {"ids": []}, {"rewards": []}, dtypes)
    assert len(batch) == 0 and batch.num_tokens == 0
    assert batch["ids"].dtype == torch.int64 and batch["rewards"].dtype == torch.float32


def test_keys_of_one_call_have_one_length():
    """Otherwise they cannot be packed together, and the message names them."""
    columns = {"ids": [torch.zeros(3)], "mask": [torch.zeros(4)]}
    with pytest.raises(AssertionError, match="sample 8 has 3 elements of ids but 4 of mask"):
        pack([Sample(8, 0)], columns)


def test_samples_without_keys_per_token_have_no_tokens():
    """A call may read numbers alone."""
    batch = pack([Sample(8, 0), Sample(9, 1)], {}, {"rewards": [torch.ones(1), torch.zeros(1)]})
    assert batch.lengths == [0, 0] and batch["rewards"].tolist() == [1, 0]
