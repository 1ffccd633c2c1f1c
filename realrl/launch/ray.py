"""Workers on a Ray cluster: one bundle of a placement group a node, and an actor beside each worker."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayError
from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

import realrl
from realrl.api.config import RunConfig
from realrl.api.launcher import LOCAL_RANK_VARIABLE, RANK_VARIABLE
from realrl.base.network import answers
from realrl.base.parent import PARENT_VARIABLE
from realrl.base.processes import state_of
from realrl.launch.bundles import bundles, misfit, per_worker
from realrl.launch.workers import WORKER_MODULE, device_settings, lost_nodes, ranks_by_node, thread_limits
from realrl.runtime.failure import RunFailed
from realrl.runtime.watch.status import ranks_in_words

_LOOK_EVERY_S = 0.5
"""How long an actor waits for its worker's end before it says that there is none."""
_ANSWERS_S = 5.0
_START_S = 120.0


class RayLauncher:
    """Holds the nodes from its construction until `close`; this process's end gives them back too."""

    def __init__(self, config: RunConfig, num_workers: int) -> None:
        """
        Raises:
            ValueError: no cluster, or not such nodes in it.
            RunFailed: they were not free in time.
        """
        self._config = config
        self._ranks = ranks_by_node(num_workers, config.devices_per_node)
        _connect(config.ray.address)
        try:
            self._group = _reserve(config, num_workers)
        except BaseException:
            ray.shutdown()
            raise
        self._nodes = _nodes_of(self._group)
        self._actors: list[ActorHandle] = []
        self._looks: dict[int, ray.ObjectRef] = {}
        """By rank: what its actor is to answer next."""
        self._ended: dict[int, int] = {}
        self._log_directory = Path()

    shares_proc = False

    @property
    def host(self) -> str:
        own = ray.util.get_node_ip_address()
        others = {n["NodeManagerAddress"] for n in ray.nodes() if n["NodeID"] in self._nodes} - {own}
        return own if others else "127.0.0.1"

    def start(self, num_workers: int, environment: Mapping[str, str], log_directory: Path) -> None:
        self._log_directory = log_directory.resolve()
        self._actors, self._ended = [], {}
        self._await_nodes()
        limits = thread_limits(self._config.cpus_per_worker)
        given = self._config.ray.environment
        shared = {**limits, **device_settings(self._config.device, given), **given, **environment}
        for bundle, ranks in enumerate(self._ranks):
            self._actors += [self._actor(bundle) for _ in ranks]
        started = [
            actor.start.remote({**shared, RANK_VARIABLE: str(rank)}, os.getcwd(), str(self.log_path(rank)))
            for rank, actor in enumerate(self._actors)
        ]
        _, late = ray.wait(started, num_returns=len(started), timeout=_START_S)
        if late:
            ranks = ranks_in_words(map(started.index, late))
            raise RunFailed(f"Ray's actors did not start the workers of {ranks} within {_START_S:g} s")
        try:
            ray.get(started)
        except RayError as error:
            raise RunFailed(f"Ray's actors could not start the workers: {error}") from None
        self._looks = {rank: actor.look.remote() for rank, actor in enumerate(self._actors)}

    def _await_nodes(self) -> None:
        """Ray gives the bundle of a node that was lost another one, if there is one."""
        deadline_s = time.monotonic() + self._config.ray.timeout_s
        while lost := self.explain():
            if time.monotonic() > deadline_s:
                raise RunFailed(f"{lost}; there was none in its place within ray.timeout_s")
            self._group.wait(_LOOK_EVERY_S)
            if all(found := _nodes_of(self._group)):
                self._nodes = found

    def _actor(self, bundle: int) -> ActorHandle:
        share = per_worker(self._config)
        return _Starter.options(
            num_cpus=share["CPU"],
            num_gpus=share.get("GPU", 0),
            scheduling_strategy=PlacementGroupSchedulingStrategy(
                self._group, placement_group_bundle_index=bundle
            ),
        ).remote()

    def poll(self) -> list[tuple[int, int]]:
        """A worker whose actor is gone was killed with it."""
        looks = {look: rank for rank, look in self._looks.items()}
        answered, _ = ray.wait(list(looks), num_returns=len(looks), timeout=0) if looks else ([], [])
        for look in answered:
            self._take(looks[look], look)
        return sorted(self._ended.items())

    def _take(self, rank: int, look: ray.ObjectRef) -> None:
        try:
            code = ray.get(look)
        except RayActorError:
            code = -signal.SIGKILL
        if code is None:
            self._looks[rank] = self._actors[rank].look.remote()
        else:
            del self._looks[rank]
            self._ended[rank] = code

    def explain(self) -> str:
        """Ray takes a while to notice that a node is gone: its daemon is asked."""
        known = {node["NodeID"]: node for node in ray.nodes()}
        nodes = [(known[node], ranks) for node, ranks in zip(self._nodes, self._ranks)]
        return lost_nodes([(n["NodeManagerAddress"], ranks) for n, ranks in nodes if not _is_there(n)])

    def log_path(self, rank: int) -> Path:
        return self._log_directory / f"worker-{rank}.log"

    def dump_stacks(self) -> None:
        self._signal(signal.SIGUSR1, whole_group=False)

    def states(self, ranks: Collection[int]) -> Mapping[int, str]:
        asked = {self._actors[rank].state.remote(): rank for rank in ranks}
        answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWERS_S) if asked else ([], [])
        found = {}
        for answer in answered:
            with suppress(RayActorError):
                found[asked[answer]] = ray.get(answer)
        return found

    def wait(self, timeout_s: float) -> None:
        deadline_s = time.monotonic() + timeout_s
        self.poll()
        while self._looks and time.monotonic() < deadline_s:
            time.sleep(0.02)
            self.poll()

    def stop(self, grace_s: float) -> None:
        for sign in (signal.SIGTERM, signal.SIGKILL):
            self._signal(sign, whole_group=True)
            self.wait(grace_s)
        for actor in self._actors:
            ray.kill(actor)
        self._looks = {}

    def close(self) -> None:
        remove_placement_group(self._group)
        ray.shutdown()

    def _signal(self, sign: signal.Signals, *, whole_group: bool) -> None:
        """To every worker whose actor still lives, and answers."""
        sent = [actor.signal.remote(int(sign), whole_group) for actor in self._actors]
        if sent:
            ray.wait(sent, num_returns=len(sent), timeout=_ANSWERS_S)


@ray.remote(max_restarts=0)
class _Starter:
    """On a worker's node: starts it, and watches it. The worker dies with this process, which Ray ends with
    the run's master.
    """

    def __init__(self) -> None:
        self._worker: subprocess.Popen | None = None

    def start(self, environment: Mapping[str, str], folder: str, log_path: str) -> None:
        if not Path(folder).is_dir():
            node = ray.util.get_node_ip_address()
            raise FileNotFoundError(f"{folder} is not on node {node}; all need a file system that they share")
        Path(log_path).parent.mkdir(parents=True, exist_ok=True)
        with open(log_path, "ab") as log:
            self._worker = subprocess.Popen(
                [sys.executable, "-m", WORKER_MODULE],
                cwd=folder,
                env={**os.environ, **_own(), **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def look(self) -> int | None:
        """The worker's return code, once it has ended."""
        with suppress(subprocess.TimeoutExpired):
            return self._worker.wait(_LOOK_EVERY_S)
        return None

    def state(self) -> str:
        return state_of(self._worker.pid) if self._worker else ""

    def signal(self, sign: int, whole_group: bool) -> None:
        if self._worker is None:
            return
        with suppress(ProcessLookupError):
            if whole_group:
                os.killpg(self._worker.pid, sign)
            else:
                self._worker.send_signal(sign)


def _own() -> dict[str, str]:
    """What a worker has of its actor: its device alone, and the realrl that this process imported.

    A cluster may be set up so that Ray tells its actors which devices are theirs, but shows them all.
    """
    package = str(Path(realrl.__file__).parents[1])
    devices = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, ids))} if (ids := ray.get_gpu_ids()) else {}
    return {
        **devices,
        PARENT_VARIABLE: str(os.getpid()),
        LOCAL_RANK_VARIABLE: "0",
        "PYTHONPATH": os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])]),
    }


def _connect(address: str) -> None:
    """Ray itself would wait for minutes for a cluster that is not there."""
    where = address or os.environ.get("RAY_ADDRESS") or "auto"
    host, _, port = where.rpartition(":")
    if where != "auto" and not (port.isdigit() and answers(host, int(port), within_s=_ANSWERS_S)):
        raise _no_cluster(where, "no answer at HOST:PORT")
    try:
        ray.init(address=where, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        raise _no_cluster(where, str(error)) from None


def _no_cluster(where: str, why: str) -> ValueError:
    return ValueError(
        f"ray.address: expected a Ray cluster at {where}: {why}; start one by `ray start --head`, or give"
        " the address of one, as 10.0.0.1:6379"
    )


def _reserve(config: RunConfig, num_workers: int) -> PlacementGroup:
    """All bundles, each on a node of its own, or none."""
    wanted = bundles(config, num_workers)
    if lacking := misfit(wanted, [node["Resources"] for node in ray.nodes() if node["Alive"]]):
        raise ValueError(
            f"allocation: {num_workers} ranks on {len(wanted)} nodes: {lacking}; add nodes, or take a smaller"
            " plan, devices_per_node or cpus_per_worker"
        )
    group = placement_group([dict(bundle) for bundle in wanted], strategy="STRICT_SPREAD")
    if not group.wait(config.ray.timeout_s):
        remove_placement_group(group)
        free = ray.available_resources()
        raise RunFailed(
            f"Ray's nodes were not free within ray.timeout_s={config.ray.timeout_s:g}: wanted {wanted}, free "
            f"are {free.get('CPU', 0):g} CPU, {free.get('GPU', 0):g} GPU in all; wait for other jobs to end"
        )
    return group


def _nodes_of(group: PlacementGroup) -> list[str]:
    """The node of each bundle; empty while Ray looks for one."""
    by_bundle = placement_group_table(group)["bundles_to_node_id"]
    return [by_bundle[bundle] for bundle in sorted(by_bundle)]


def _is_there(node: Mapping[str, Any]) -> bool:
    address, port = node["NodeManagerAddress"], node["NodeManagerPort"]
    return node["Alive"] and answers(address, port, within_s=_ANSWERS_S)
