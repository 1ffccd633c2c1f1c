"""Plans for clusters that are not here, and what the links' model says of them.

The other systems' ways are judged by the same model, as if all their messages ran at once, which flatters
them: ReaL's broadcasts and a bucket's gathering and broadcast follow each other in fact.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import msgspec

from benchmarks.clusters import SCENARIOS, Scenario
from benchmarks.pieces import Piece, lower_bound, pieces, senders
from benchmarks.published import PUBLISHED
from benchmarks.report import ratio
from realrl.apps.tables import table
from realrl.layouts.balance import balance
from realrl.layouts.layout import Layout, Rank
from realrl.layouts.plan import Stream, TransferPlan, needs, plan
from realrl.layouts.routes import Route
from realrl.layouts.topology import Topology
from realrl.planner.makespan import floor_s, makespan_s

GPUS_PER_NODE = 8
_ELEMENT_BYTES = 2


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """One scenario."""

    scenario: str
    gpus: int
    model: str
    change: str
    planning_s: float
    makespan_s: float
    pair_broadcast_s: float
    gather_broadcast_s: float
    floor_s: float
    egress_over_bound: float
    """The most that leaves a node (one node: a rank), over the least that is possible without relays."""
    bytes_moved: int
    bytes_lower_bound: int


def choose(names: str | None) -> list[Scenario]:
    """The scenarios of a list of names, or all.

    Raises:
        ValueError: an unknown name.
    """
    known = {scenario.name: scenario for scenario in SCENARIOS}
    chosen = list(known) if names is None else [name.strip() for name in names.split(",")]
    for name in chosen:
        if name not in known:
            raise ValueError(f"--scenarios: expected some of {', '.join(known)}, got {name!r}")
    return [known[name] for name in chosen]


def render(scenarios: Sequence[Scenario], rates: Mapping[str, float], *, as_json: bool) -> str:
    """The predictions as JSON lines, or as a table with what others have published below it."""
    found = [predict(scenario, rates) for scenario in scenarios]
    if as_json:
        return "".join(msgspec.json.encode(prediction).decode() + "\n" for prediction in found)
    link, nic = (rates[name] / 1e9 for name in ("link_bytes_s", "nic_bytes_s"))
    title = (
        f"{GPUS_PER_NODE} GPUs a node, {link:g} GB/s a GPU in it, {nic:g} GB/s a GPU to others; bfloat16\n"
    )
    published = [("system", "setting", "reported", "source"), *PUBLISHED]
    ours, theirs = table(_lines(found), numbers=True, indent="  "), table(published, indent="  ")
    return f"{title}{ours}\nPublished by others, on their machines\n{theirs}"


def predict(scenario: Scenario, rates: Mapping[str, float]) -> Prediction:
    """Plan a scenario, and judge the plan and the other systems' ways."""
    topology = replace(Topology.even(scenario.num_gpus, GPUS_PER_NODE), **rates)
    source, target = scenario.layouts()
    begin_s = time.perf_counter()
    found = plan(source, target, topology)
    planning_s = time.perf_counter() - begin_s
    content = list(pieces(source, target))
    return Prediction(
        scenario=scenario.name,
        gpus=scenario.num_gpus,
        model=scenario.model,
        change=scenario.change,
        planning_s=planning_s,
        makespan_s=makespan_s(found, topology),
        pair_broadcast_s=makespan_s(_as_plan(_pair_broadcast(content, topology), topology), topology),
        gather_broadcast_s=makespan_s(_as_plan(_gather_broadcast(source, target), topology), topology),
        floor_s=floor_s(source, target, topology),
        egress_over_bound=_egress_over_bound(found, source, target, topology),
        bytes_moved=found.moved * _ELEMENT_BYTES,
        bytes_lower_bound=lower_bound(source, target) * _ELEMENT_BYTES,
    )


Flow = tuple[Route, int]
"""A way, and the elements that take it."""


def _pair_broadcast(content: Sequence[Piece], topology: Topology) -> Iterator[Flow]:
    """ReaL: what one source shard and one destination shard share goes from `senders` to all replicas.

    A broadcast is a pipelined chain, as NCCL's ring, that enters each node once.
    """
    amounts: dict[tuple, int] = {}
    for piece in content:
        key = piece.holders, piece.wanting
        amounts[key] = amounts.get(key, 0) + piece.numel
    for (holders, wanting), numel in amounts.items():
        for sender, receivers in senders(holders, wanting, topology.node).items():
            yield _chain(sender, receivers), numel


def _gather_broadcast(source: Layout, target: Layout) -> Iterator[Flow]:
    """As verl: one rank gathers all from first holders, and a pipelined chain takes it to everyone."""
    root = min(source.ranks)
    total = 0
    for piece in pieces(source, source):
        total += piece.numel
        if root not in piece.holders:
            yield Route(min(piece.holders), ((min(piece.holders), root),)), piece.numel
    yield _chain(root, sorted(target.ranks)), total


def _chain(root: Rank, receivers: Sequence[Rank]) -> Route:
    others = [rank for rank in receivers if rank != root]
    after = [rank for rank in others if rank > root]
    return Route(root, tuple(pairwise([root, *after, *(rank for rank in others if rank < root)])))


class _Amount(msgspec.Struct, frozen=True):
    """Stands for the pieces of a stream where only their size counts."""

    numel: int


def _as_plan(flows: Iterator[Flow], topology: Topology) -> TransferPlan:
    streams = (Stream(route, (_Amount(numel),)) for route, numel in flows if route.edges)
    return TransferPlan(tuple(streams), (), topology)


def _egress_over_bound(found: TransferPlan, source: Layout, target: Layout, topology: Topology) -> float:
    """Below 1 where those who receive relieve the first holders."""
    one_node = len(topology.by_node(found.ranks)) < 2
    place = (lambda rank: rank) if one_node else topology.node
    demands = []
    for holders, lacking, numel in needs(source, target):
        places = sorted({place(rank) for rank in holders})
        asking = {place(rank) for rank in lacking}.difference(places)
        if asking:
            demands.append((numel * len(asking), places))
    sent = found.sent if one_node else found.left(topology)
    bound = balance(_merged(demands)).lower_bound
    return max(sent.values(), default=0) / bound if bound else 1.0


def _merged(demands: Sequence[tuple[int, list]]) -> list[tuple[int, tuple]]:
    amounts: dict[tuple, int] = {}
    for amount, places in demands:
        amounts[tuple(places)] = amounts.get(tuple(places), 0) + amount
    return [(amount, places) for places, amount in amounts.items()]


def _lines(found: Sequence[Prediction]) -> list[tuple[str, ...]]:
    heads = ("scenario", "model", "GPUs", "layouts", "planning s", "GB moved", "÷ lower bound")
    heads += ("ours s", "floor s", "ours ÷ floor", "egress ÷ bound", "ReaL-style s", "gather+broadcast s")
    return [heads, *map(_line, found)]


def _line(p: Prediction) -> tuple[str, ...]:
    seconds = (p.makespan_s, p.floor_s)
    return (
        p.scenario,
        p.model,
        f"{p.gpus}",
        p.change,
        f"{p.planning_s:.2f}",
        f"{p.bytes_moved / 1e9:.1f}",
        ratio(p.bytes_moved, p.bytes_lower_bound),
        *(f"{s:.4f}" for s in seconds),
        ratio(*seconds),
        f"{p.egress_over_bound:.3f}",
        f"{p.pair_broadcast_s:.4f}",
        f"{p.gather_broadcast_s:.4f}",
    )
