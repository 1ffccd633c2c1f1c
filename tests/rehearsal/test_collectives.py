"""NCCL's rules, for a step of training, inference and generation of every layout of up to eight ranks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from realrl.api.config import GenerationConfig, OptimizerConfig
from realrl.api.mesh import DeviceMesh, ParallelLayout, Placement
from realrl.engines.decoder_engine import DecoderEngine
from realrl.engines.options import EngineOptions
from realrl.models.layout import check_fits
from realrl.models.registry import read_decoder_config
from realrl.parallel import early_sums
from realrl.parallel.groups import Links, create_groups, links_of
from tests.engines.test_engine import as_prompts, own_batch
from tests.rehearsal.collectives import Call, recorded, share_a_queue, stuck
from tests.tiny import tiny_llama

SIZES = range(1, 9)
EVERY = [
    ParallelLayout(pp=pp, dp=dp, tp=tp, vp=vp)
    for pp in SIZES
    for dp in SIZES
    for tp in (1, 2, 4, 8)
    for vp in ((1, 2) if pp > 1 else (1,))
    if 1 < pp * dp * tp <= 8
]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny"), layers=16, heads=8, kv_heads=4, tie=True)


def step(model: Path, placement: Placement, rank: int) -> None:
    """As on CUDA: norms shared out, tokens in pieces, gradients of weights put off and summed early."""
    groups = create_groups([placement], rank)[placement]
    engine = DecoderEngine(
        read_decoder_config(model),
        "lm",
        groups,
        EngineOptions(
            dtype=torch.float32,
            device="cpu",
            max_tokens_per_microbatch=16,
            sequence_pieces=2,
            add_products=True,
            sum_early=True,
            optimizer=OptimizerConfig(),
        ),
    )
    engine.adopt(version=0)
    batch = own_batch(groups)

    def loss(logprobs: Tensor, micro) -> tuple[Tensor, dict]:
        return logprobs.sum(), {}

    engine.logprobs(batch, temperature=1.0)
    engine.train_logprobs(batch, loss, lr=1e-3, temperature=1.0)
    engine.generate(as_prompts(batch), GenerationConfig(max_new_tokens=3, max_sequences=2), seed=1, step=0)


def calls_of(monkeypatch, size: int, body: Callable[[int], None]) -> list[list[Call]]:
    """What every rank of a world calls."""
    found = []
    for rank in range(size):
        with recorded(monkeypatch, rank, size) as calls:
            body(rank)
        found.append(calls)
    return found


@pytest.mark.parametrize("layout", EVERY, ids=str)
def test_a_step_comes_to_an_end(model, monkeypatch, layout):
    # Numbers are those of one rank alone, of which some are none.
    monkeypatch.setattr(DecoderEngine, "_require_finite", lambda *_: None)
    # Some matrices, so that gradients are summed in several parts.
    monkeypatch.setattr(early_sums, "PART", 5000)
    placement = Placement(DeviceMesh(tuple(range(layout.size))), layout)
    check_fits(read_decoder_config(model), layout, "")
    calls = calls_of(monkeypatch, layout.size, lambda rank: step(model, placement, rank))
    assert all(len(own) > 2 for own in calls) and not stuck(calls)
    for rank, own in enumerate(calls):
        check_communicators({call.communicator for call in own}, links_of([placement], rank, layout.size))


def check_communicators(used: set[tuple], links: Links) -> None:
    """As many of two ranks as are predicted; of groups no more, as some are for reports on the host."""
    pairs = {name for name in used if "pair" in name}
    assert len(pairs) == links.pairs and len(used - pairs) < links.groups


@pytest.mark.parametrize("vp", [1, 2])
def test_one_queue_of_the_device_is_too_few_for_a_pipeline_of_chunks(model, monkeypatch, vp):
    """Why `CUDA_DEVICE_MAX_CONNECTIONS` is not 1: a second send behind one that nobody receives yet holds up
    all that would lead to its receive."""
    monkeypatch.setattr(DecoderEngine, "_require_finite", lambda *_: None)
    placement = Placement(DeviceMesh((0, 1)), ParallelLayout(pp=2, vp=vp))
    calls = calls_of(monkeypatch, 2, lambda rank: step(model, placement, rank))
    share_a_queue(calls)
    assert bool(stuck(calls)) == (vp == 2)


def exchanged(monkeypatch, *bodies: Callable[[], None]) -> list[list[Call]]:
    return calls_of(monkeypatch, len(bodies), lambda rank: bodies[rank]())


def ones() -> Tensor:
    return torch.ones(4)


def test_two_that_send_first_wait_for_each_other(monkeypatch):
    """Over the communicator of a pair, whether or not they wait for what they sent before they receive."""

    def sends_first(peer: int) -> None:
        sent = dist.isend(ones(), peer)
        dist.recv(ones(), peer)
        sent.wait()

    def receives_first(peer: int) -> None:
        dist.recv(ones(), peer)
        dist.send(ones(), peer)

    found = stuck(exchanged(monkeypatch, lambda: sends_first(1), lambda: sends_first(0)))
    assert found[0].startswith("rank 0: ('0 to 1', 'torch.float32', 4) over") and len(found) == 2
    assert not stuck(exchanged(monkeypatch, lambda: sends_first(1), lambda: receives_first(0)))


def test_a_ring_whose_sends_are_waited_for_stands_still(monkeypatch):
    """Three ranks: what `CUDA_LAUNCH_BLOCKING=1` makes of sends in the background."""

    def body(rank: int, waits: bool) -> None:
        sent = dist.isend(ones(), (rank + 1) % 3)
        if waits:
            sent.wait()
        dist.recv(ones(), (rank - 1) % 3)

    assert not stuck(calls_of(monkeypatch, 3, lambda rank: body(rank, waits=False)))
    assert len(stuck(calls_of(monkeypatch, 3, lambda rank: body(rank, waits=True)))) == 6


def test_collectives_in_another_order_are_found(monkeypatch):
    """On one communicator by their names and sizes, on two because each rank waits for the other."""
    with pytest.raises(AssertionError, match="all_reduce.*broadcast"):
        stuck(exchanged(monkeypatch, lambda: dist.all_reduce(ones()), lambda: dist.broadcast(ones(), 0)))
    with pytest.raises(AssertionError, match="8.*4|4.*8"):
        stuck(exchanged(monkeypatch, lambda: dist.all_reduce(ones()), lambda: dist.all_reduce(torch.ones(8))))

    def in_order(*names: int) -> None:
        groups = [dist.new_group([0, 1]) for _ in range(2)]
        for name in names:
            dist.all_reduce(ones(), group=groups[name])

    assert not stuck(exchanged(monkeypatch, lambda: in_order(0, 1), lambda: in_order(0, 1)))
    assert len(stuck(exchanged(monkeypatch, lambda: in_order(0, 1), lambda: in_order(1, 0)))) == 4


def test_one_that_stays_away_is_found(monkeypatch):
    assert stuck(exchanged(monkeypatch, lambda: dist.all_reduce(ones()), lambda: None))
