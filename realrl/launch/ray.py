"""Workers on a Ray cluster: a placement group has one bundle per node, and an actor watches each worker.

launcher ── placement group ──▶ bundle per node
   └─────── start, look, signal ──▶ actor per rank ── process ──▶ worker
"""

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
from typing import Any, TypeAlias

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

Answer: TypeAlias = "ray.ObjectRef[Any]"
"""An answer of an actor, which may not be there yet."""

_LOOK_EVERY_S = 0.5
"""Seconds that an actor waits for its worker's end before it answers that the worker is alive."""
_ANSWERS_S = 5.0
"""Deadline for the answer of an actor, or of a node's daemon."""
_START_S = 120.0
"""Deadline for the start of all workers."""


class RayLauncher:
    """Launcher of workers on a Ray cluster.

    It holds the nodes from its construction until `close`. Ray releases them, too, when this process ends.
    """

    shares_proc = False

    def __init__(self, config: RunConfig, num_workers: int) -> None:
        """Reserve the nodes.

        Raises:
            ValueError: there is no cluster, or it does not have such nodes.
            RunFailed: the nodes were not free in time.
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
        """By rank."""
        self._looks: dict[int, Answer] = {}
        """The next answer of each actor whose worker is alive, by rank."""
        self._ended: dict[int, int] = {}
        """Return codes of the workers that have ended, by rank."""
        self._log_directory = Path()

    @property
    def host(self) -> str:
        """The master's address, as the workers see it."""
        own: str = ray.util.get_node_ip_address()
        for node in ray.nodes():
            is_ours = node["NodeID"] in self._nodes
            if is_ours and node["NodeManagerAddress"] != own:
                return own
        return "127.0.0.1"

    def start(self, num_workers: int, environment: Mapping[str, str], log_directory: Path) -> None:
        """Start an actor for each rank, and by it the worker.

        Raises:
            RunFailed: a node was lost and not replaced in time, or an actor could not start its worker.
        """
        self._log_directory = log_directory.resolve()
        self._actors = []
        self._ended = {}
        self._await_nodes()
        for bundle, ranks in enumerate(self._ranks):
            for _ in ranks:
                self._actors.append(self._actor(bundle))
        self._start_workers(environment)
        for rank in range(len(self._actors)):
            self._look_again(rank)

    def _start_workers(self, environment: Mapping[str, str]) -> None:
        """Let every actor start its worker, and wait until all have done so."""
        limits = thread_limits(self._config.cpus_per_worker)
        given = self._config.ray.environment
        settings = device_settings(self._config.device, given)
        shared = {**limits, **settings, **given, **environment}
        folder = os.getcwd()
        started: list[Answer] = []
        for rank, actor in enumerate(self._actors):
            own = {**shared, RANK_VARIABLE: str(rank)}
            log_path = str(self.log_path(rank))
            started.append(actor.start.remote(own, folder, log_path))
        _, late = ray.wait(started, num_returns=len(started), timeout=_START_S)
        if late:
            names = ranks_in_words(map(started.index, late))
            raise RunFailed(f"Ray's actors did not start the workers of {names} within {_START_S:g} s")
        try:
            ray.get(started)
        except RayError as error:
            raise RunFailed(f"Ray's actors could not start the workers: {error}") from None

    def _await_nodes(self) -> None:
        """Wait until Ray has replaced the nodes that were lost.

        Raises:
            RunFailed: it did not do so in time.
        """
        deadline_s = time.monotonic() + self._config.ray.timeout_s
        while lost := self.explain():
            if time.monotonic() > deadline_s:
                raise RunFailed(f"{lost}; there was none in its place within ray.timeout_s")
            self._group.wait(_LOOK_EVERY_S)
            found = _nodes_of(self._group)
            if all(found):
                self._nodes = found

    def _actor(self, bundle: int) -> ActorHandle:
        """Return a new actor on the node of a bundle."""
        share = per_worker(self._config)
        strategy = PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=bundle)
        actor_class = ray.remote(_Starter).options(
            max_restarts=0,
            num_cpus=share["CPU"],
            num_gpus=share.get("GPU", 0),
            scheduling_strategy=strategy,
        )
        actor = actor_class.remote()
        assert isinstance(actor, ActorHandle), "Ray makes a handle of a class of actors"
        return actor

    def _look_again(self, rank: int) -> None:
        """Ask a worker's actor whether the worker has ended."""
        actor = self._actors[rank]
        self._looks[rank] = actor.look.remote()

    def poll(self) -> list[tuple[int, int]]:
        """Return the rank and return code of each worker that has ended."""
        ranks = {look: rank for rank, look in self._looks.items()}
        for look in _answered(list(ranks), within_s=0):
            self._take(ranks[look], look)
        return sorted(self._ended.items())

    def _take(self, rank: int, look: Answer) -> None:
        """Note an actor's answer; a worker whose actor is gone was killed with it."""
        try:
            code = ray.get(look)
        except RayActorError:
            code = -signal.SIGKILL
        if code is None:
            self._look_again(rank)
        else:
            del self._looks[rank]
            self._ended[rank] = code

    def explain(self) -> str:
        """Return which nodes were lost; empty if none was.

        Ray takes a while to notice a lost node, so the nodes' daemons are asked.
        """
        known = {node["NodeID"]: node for node in ray.nodes()}
        lost: list[tuple[str, range]] = []
        for node_id, ranks in zip(self._nodes, self._ranks):
            node = known[node_id]
            if not _is_alive(node):
                lost.append((node["NodeManagerAddress"], ranks))
        return lost_nodes(lost)

    def log_path(self, rank: int) -> Path:
        """Return the file of a worker's output."""
        return self._log_directory / f"worker-{rank}.log"

    def dump_stacks(self) -> None:
        """Ask every worker for its stacks."""
        self._signal(signal.SIGUSR1, whole_group=False)

    def states(self, ranks: Collection[int]) -> Mapping[int, str]:
        """Return the state of each rank's process, where its actor answers."""
        asked: dict[Answer, int] = {}
        for rank in ranks:
            actor = self._actors[rank]
            asked[actor.state.remote()] = rank
        found: dict[int, str] = {}
        for answer in _answered(list(asked), within_s=_ANSWERS_S):
            rank = asked[answer]
            with suppress(RayActorError):
                found[rank] = ray.get(answer)
        return found

    def wait(self, timeout_s: float) -> None:
        """Wait until all workers have ended, for at most `timeout_s`."""
        deadline_s = time.monotonic() + timeout_s
        self.poll()
        while self._looks and time.monotonic() < deadline_s:
            time.sleep(0.02)
            self.poll()

    def stop(self, grace_s: float) -> None:
        """End every worker and its children, by force after `grace_s`, and all actors."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            self._signal(sign, whole_group=True)
            self.wait(grace_s)
        for actor in self._actors:
            ray.kill(actor)
        self._looks = {}

    def close(self) -> None:
        """Give the nodes back."""
        remove_placement_group(self._group)
        ray.shutdown()

    def _signal(self, sign: signal.Signals, *, whole_group: bool) -> None:
        """Signal every worker whose actor is alive and answers."""
        sent: list[Answer] = [actor.signal.remote(int(sign), whole_group) for actor in self._actors]
        _answered(sent, within_s=_ANSWERS_S)


def _answered(asked: list[Answer], *, within_s: float) -> list[Answer]:
    """Return those answers that are there within a time."""
    if not asked:
        return []
    answered, _ = ray.wait(asked, num_returns=len(asked), timeout=within_s)
    return answered


class _Starter:
    """An actor on a worker's node, which starts the worker and watches it.

    The worker dies with this process, which Ray ends together with the run's master.
    """

    def __init__(self) -> None:
        self._worker: subprocess.Popen[bytes] | None = None

    def start(self, environment: Mapping[str, str], folder: str, log_path: str) -> None:
        """Start the worker in `folder`; its output is appended to its log.

        Raises:
            FileNotFoundError: this node does not have the folder.
        """
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
        """Return the worker's return code, or None if it has not ended within a short time."""
        assert self._worker is not None, "a worker is started before it is watched"
        with suppress(subprocess.TimeoutExpired):
            return self._worker.wait(_LOOK_EVERY_S)
        return None

    def state(self) -> str:
        """Return the state of the worker's process."""
        if self._worker is None:
            return ""
        return state_of(self._worker.pid)

    def signal(self, sign: int, whole_group: bool) -> None:
        """Signal the worker, or the worker and its children."""
        if self._worker is None:
            return
        with suppress(ProcessLookupError):
            if whole_group:
                os.killpg(self._worker.pid, sign)
            else:
                self._worker.send_signal(sign)


def _own() -> dict[str, str]:
    """Return the variables that a worker gets from its actor.

    They name the actor's device, and the realrl that this process imported. A cluster may be set up so that
    Ray tells its actors which devices are theirs, but shows them all devices.
    """
    package = str(Path(realrl.__file__).parents[1])
    paths = [package]
    earlier_paths = os.environ.get("PYTHONPATH")
    if earlier_paths:
        paths.append(earlier_paths)
    variables = {
        PARENT_VARIABLE: str(os.getpid()),
        LOCAL_RANK_VARIABLE: "0",
        "PYTHONPATH": os.pathsep.join(paths),
    }
    devices = ray.get_gpu_ids()
    if devices:
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, devices))
    return variables


def _connect(address: str) -> None:
    """Connect to the cluster.

    Raises:
        ValueError: there is none.
    """
    where = address or os.environ.get("RAY_ADDRESS") or "auto"
    # Ray itself would wait for minutes for a cluster that is not there.
    if where != "auto" and not _answers_at(where):
        raise _no_cluster(where, "no answer at HOST:PORT")
    try:
        ray.init(address=where, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        raise _no_cluster(where, str(error)) from None


def _answers_at(address: str) -> bool:
    """Return whether something answers at HOST:PORT."""
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        return False
    return answers(host, int(port), within_s=_ANSWERS_S)


def _no_cluster(where: str, why: str) -> ValueError:
    """Return the error about a missing cluster."""
    return ValueError(
        f"ray.address: expected a Ray cluster at {where}: {why}; start one by `ray start --head`, or give"
        " the address of one, as 10.0.0.1:6379"
    )


def _reserve(config: RunConfig, num_workers: int) -> PlacementGroup:
    """Reserve all bundles, each on a node of its own.

    Raises:
        ValueError: the cluster does not have such nodes.
        RunFailed: they were not free in time.
    """
    wanted = bundles(config, num_workers)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    lacking = misfit(wanted, nodes)
    if lacking:
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
    """Return the id of each bundle's node; an empty id while Ray looks for a node."""
    by_bundle = placement_group_table(group)["bundles_to_node_id"]
    return [by_bundle[bundle] for bundle in sorted(by_bundle)]


def _is_alive(node: Mapping[str, Any]) -> bool:
    """Return whether Ray holds a node for alive, and its daemon answers."""
    if not node["Alive"]:
        return False
    address = node["NodeManagerAddress"]
    port = node["NodeManagerPort"]
    return answers(address, port, within_s=_ANSWERS_S)
