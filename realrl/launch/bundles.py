"""Resources that a run requests from a Ray cluster: one bundle per node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from realrl.api.config import RunConfig
from realrl.launch.workers import ranks_by_node

Resources = Mapping[str, float]
"""Amount of each kind of resource."""


def per_worker(config: RunConfig) -> Resources:
    """Return the resources that each worker takes of its node's bundle."""
    resources: dict[str, float] = {"CPU": config.cpus_per_worker}
    if config.device == "cuda":
        resources["GPU"] = 1
    return resources


def bundles(config: RunConfig, num_workers: int) -> list[Resources]:
    """Return the bundle of each node; none is larger than the first."""
    share = per_worker(config)
    found: list[Resources] = []
    for ranks in ranks_by_node(num_workers, config.devices_per_node):
        bundle = {kind: len(ranks) * amount for kind, amount in share.items()}
        found.append(bundle)
    return found


def misfit(wanted: Sequence[Resources], nodes: Sequence[Resources]) -> str:
    """Describe the first bundle that no free node fits, if each takes a whole node; empty if all fit."""
    for index, bundle in enumerate(wanted):
        # Bundles shrink from the first to the last, so the earlier ones occupy `index` of these nodes.
        num_fitting = sum(_fits(bundle, node) for node in nodes)
        if num_fitting <= index:
            return (
                f"bundle {index + 1} of {len(wanted)} ({written(bundle)}) fits on no node that is left; the "
                f"cluster has {_counted(_restricted(nodes, bundle))}"
            )
    return ""


def render_bundles(config: RunConfig, num_workers: int) -> str:
    """Return the bundles as text; equal ones share a line."""
    text = _counted(bundles(config, num_workers))
    return text.replace(", and ", "\n")


def written(resources: Resources) -> str:
    """Return resources as text."""
    return ", ".join(f"{amount:g} {kind}" for kind, amount in resources.items())


def _restricted(nodes: Sequence[Resources], kinds: Resources) -> list[Resources]:
    """Return the nodes' resources of the given kinds alone."""
    restricted: list[Resources] = []
    for node in nodes:
        amounts = {kind: node.get(kind, 0) for kind in kinds}
        restricted.append(amounts)
    return restricted


def _fits(bundle: Resources, node: Resources) -> bool:
    return all(node.get(kind, 0) >= amount for kind, amount in bundle.items())


def _counted(all_resources: Sequence[Resources]) -> str:
    """Return the number of nodes with each amount of resources, as text."""
    counts = Counter(map(written, all_resources))
    parts: list[str] = []
    for resources, count in counts.items():
        plural = "s" if count > 1 else ""
        parts.append(f"{count} node{plural} of {resources}")
    return ", and ".join(parts) or "no node"
