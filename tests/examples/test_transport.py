"""`examples/transport.py`, named by its path as a user names it."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from pathlib import Path

import pytest

from realrl.layouts.plan import plan
from realrl.layouts.topology import Topology
from realrl.realloc.hosts import discover_topology
from realrl.realloc.transfer import Transfer, TransferSettings
from realrl.realloc.transports.by_name import open_transport
from tests.bits.same_bits import CASES, digests_of
from tests.realloc.test_transfer import STAGING_BYTES, differing, local_tensors, random_pair
from tests.world import run_world

TRANSPORT = f"{Path(__file__).parents[2] / 'examples' / 'transport.py'}:FileTransport"


def exchange(rank: int, reference: str, folder: Path) -> None:
    os.environ["REALRL_TRANSPORT_DIR"] = str(folder)
    transport = open_transport(reference, "cpu")
    transport.connect()
    topology: Topology = discover_topology(transport)
    for seed in range(10):
        source, destination = random_pair(seed)
        found = plan(source, destination, topology)
        if rank not in found.ranks:
            continue
        staging_bytes = random.Random(seed).choice(STAGING_BYTES)
        settings = TransferSettings(staging_bytes=staging_bytes, transport=transport)
        transfer = Transfer(found, rank=rank, settings=settings)
        held = local_tensors(source, rank, filled=True)
        for version in range(2):
            target = local_tensors(destination, rank, filled=False)
            transfer.run(held, target, version=version)
            assert not differing(target, local_tensors(destination, rank, filled=True)), f"seed {seed}"


def test_any_layout_becomes_any_other_by_files(tmp_path):
    """Bit for bit, twice in a row, with every dtype; no file is left."""
    run_world(exchange, 4, TRANSPORT, tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.slow
def test_a_run_on_it_computes_the_same_bits():
    """Weights and batches move between two layouts by files; metrics, rollouts and weights are the usual."""
    case = next(case for case in CASES if case.allocation == "actor_gen:d2,*:t2")
    overrides = {**case.overrides, "transport": TRANSPORT}
    by_files = replace(case, name=f"{case.name} by files", overrides=overrides)
    usual, own = digests_of([case, by_files]).values()
    assert usual == own
