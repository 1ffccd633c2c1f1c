"""Builds a worker from the master's set-up: process groups, models and data."""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import msgspec
import torch
import torch.distributed as dist

from realrl.api.config import RunConfig
from realrl.api.messages import Failed, Hello, Ready, Setup
from realrl.api.recipe import Recipe
from realrl.base.network import address_towards, addresses_of, interface_of
from realrl.base.peers import connected_to
from realrl.base.waiting import wait_for_ranks
from realrl.layouts.topology import Topology
from realrl.parallel.groups import create_groups
from realrl.program.instructions import RunCall
from realrl.program.jobs import Programs, compile_run
from realrl.program.resources import Weights
from realrl.realloc.hosts import discover_topology
from realrl.realloc.transfer import TransferSettings
from realrl.realloc.transports.by_name import open_transport
from realrl.runtime.control.rendezvous import open_store
from realrl.runtime.control.worker_channel import WorkerChannel
from realrl.runtime.failure import RunRefused
from realrl.runtime.inputs import check_digests
from realrl.runtime.run_data import open_data
from realrl.runtime.worker.call_memories import CallMemories, Memory
from realrl.runtime.worker.devices import open_device
from realrl.runtime.worker.replicas import Replicas
from realrl.runtime.worker.sample_store import SampleStore
from realrl.runtime.worker.snapshots import read_memories
from realrl.runtime.worker.worker import Worker, one_line

logger = logging.getLogger(__name__)

_BACKSTOP = timedelta(days=1)
"""The least deadline of collectives and transfers. The master finds out who is late, by the progress that it
sees, and ends the run long before. This deadline is for workers that outlive the run, as on other hosts.
"""
_PATIENCE = 2.0
"""The deadline, as a multiple of `call_timeout_s`, where calls may make no progress for days."""


def serve(
    channel: WorkerChannel, find_recipe: Callable[[str], Recipe], *, rank: int, local_rank: int
) -> None:
    """Run a worker: connect to the master, build what it says, carry out its instructions."""
    try:
        _choose_interface(channel.master_host)
        channel.send(Hello(addresses=_data_addresses()))
        setup = channel.receive()
        assert isinstance(setup, Setup), "the master's first message is the set-up"
        worker = build_worker(
            setup,
            find_recipe,
            channel,
            rank=rank,
            local_rank=local_rank,
        )
    except Exception as error:  # the master ends the run
        logger.exception("failed in set-up")
        refused = isinstance(error, RunRefused)
        what = str(error) if refused else one_line(error)
        channel.send(Failed(seq=None, error=what, traceback=traceback.format_exc(), refused=refused))
        channel.receive()
        return

    channel.send(Ready())
    worker.serve()
    worker.replicas.close()
    dist.destroy_process_group()


def build_worker(
    setup: Setup, find_recipe: Callable[[str], Recipe], channel: WorkerChannel, *, rank: int, local_rank: int
) -> Worker:
    """Return this rank's worker. Collective: over all workers of the run."""
    recipe = find_recipe(setup.recipe)
    plan = setup.plan
    config = msgspec.json.decode(setup.config, type=type(recipe.default_config))
    data = open_data(recipe, config)
    check_digests(setup.digests, recipe, config, data, rank)
    device = open_device(config.device, local_rank, is_deterministic=config.deterministic)
    _join_world(setup, config, device, rank=rank, world_size=plan.num_workers)
    with connected_to(setup.hosts):
        groups = create_groups(plan.placements.values(), rank, _timeout(config))
    topology, settings = _open_transport(config)
    programs = compile_run(recipe, config, plan)
    replicas = Replicas(
        recipe.models(config),
        programs.homes,
        _used_weights(programs),
        groups,
        rank=rank,
        config=config,
        device=device,
        topology=topology,
        settings=settings,
        changed=recipe.graph(config).changed,
        recovery=setup.recovery,
    )
    return Worker(
        rank=rank,
        recipe=recipe,
        config=config,
        plan=plan,
        channel=channel,
        groups=groups,
        replicas=replicas,
        data=data,
        store=SampleStore(rank, topology, settings),
        memories=_memories(setup),
    )


def _memories(setup: Setup) -> CallMemories:
    """Return what calls remember where the run begins or resumes."""
    if not setup.recovery:
        return CallMemories()
    remembered: dict[str, Memory] = {}
    for directory in Path(setup.recovery.directory).iterdir():
        remembered.update(read_memories(directory))
    if "advantages" not in remembered and "actor_train" in remembered:
        # In points that were written while train calls estimated advantages, it is they that remember.
        remembered["advantages"] = remembered["actor_train"]
    return CallMemories(remembered, setup.recovery.step)


def _open_transport(config: RunConfig) -> tuple[Topology, TransferSettings]:
    """Connect what carries messages; return the nodes that it finds, and the settings of transfers.

    Collective: over all workers of the run.
    """
    transport = open_transport(config.transport, config.device)
    transport.connect()
    settings = TransferSettings(
        staging_bytes=config.staging_mib << 20,
        timeout_s=_timeout(config).total_seconds(),
        checksum=config.checksums,
        transport=transport,
    )
    return discover_topology(transport), settings


def _timeout(config: RunConfig) -> timedelta:
    """Return the deadline of every wait among workers; a rank may wait as long as others make progress."""
    return max(_BACKSTOP, timedelta(seconds=config.call_timeout_s * _PATIENCE))


def _join_world(setup: Setup, config: RunConfig, device: str, *, rank: int, world_size: int) -> None:
    timeout = _timeout(config)
    # gloo connects all ranks when a group is made. NCCL opens its listening sockets later.
    with connected_to(setup.hosts):
        store = open_store(setup.store, timeout)
        wait_for_ranks(
            dist.init_process_group,
            "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl",
            store=store,
            rank=rank,
            world_size=world_size,
            timeout=timeout,
        )

    # The default group connects all ranks now: later, only some of them use it at a time.
    wait_for_ranks(dist.all_reduce, torch.zeros(1, device=device))
    logger.info("rank %d of %d on %s", rank, world_size, device)


def _choose_interface(master: str) -> None:
    """Send weights and batches by the interface towards the master, unless the environment names another."""
    interface = interface_of(address_towards(master))
    os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={interface}")


def _data_addresses() -> tuple[str, ...]:
    """Return the addresses from which this worker connects to others, on the interfaces that gloo uses."""
    return tuple(addresses_of(os.environ["GLOO_SOCKET_IFNAME"].split(",")))


def _used_weights(programs: Programs) -> set[Weights]:
    """Return every model at every placement where a call uses it, and at its home."""
    used = {Weights(model, home) for model, home in programs.homes.items()}
    for instruction in (*programs.step.instructions, *programs.evaluate.instructions):
        if isinstance(instruction, RunCall):
            used.update(instruction.weights)
    return used
