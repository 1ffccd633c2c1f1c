"""What a run asks a Ray cluster for: one bundle a node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from realrl.api.config import RunConfig
from realrl.launch.workers import ranks_by_node

Resources = Mapping[str, float]


def per_worker(config: RunConfig) -> Resources:
    """What each worker takes of its node's bundle."""
    return {"CPU": config.cpus_per_worker, **({"GPU": 1} if config.device == "cuda" else {})}


def bundles(config: RunConfig, num_workers: int) -> list[Resources]:
    """By node; none is larger than the first."""
    nodes = ranks_by_node(num_workers, config.devices_per_node)
    return [{kind: len(ranks) * share for kind, share in per_worker(config).items()} for ranks in nodes]


def misfit(wanted: Sequence[Resources], nodes: Sequence[Resources]) -> str:
    """Which bundle no node is left for, if each takes a node of its own, and what is there; empty if none."""
    for index, bundle in enumerate(wanted):
        if sum(_fits(bundle, node) for node in nodes) <= index:
            return (
                f"bundle {index + 1} of {len(wanted)} ({written(bundle)}) fits on no node that is left; the "
                f"cluster has {_counted([{kind: n.get(kind, 0) for kind in bundle} for n in nodes])}"
            )
    return ""


def render_bundles(config: RunConfig, num_workers: int) -> str:
    """Those of equal size on one line."""
    return _counted(bundles(config, num_workers)).replace(", and ", "\n")


def written(resources: Resources) -> str:
    return ", ".join(f"{amount:g} {kind}" for kind, amount in resources.items())


def _fits(bundle: Resources, node: Resources) -> bool:
    return all(node.get(kind, 0) >= amount for kind, amount in bundle.items())


def _counted(all_resources: Sequence[Resources]) -> str:
    counts = Counter(map(written, all_resources))
    parts = (f"{n} node{'s' if n > 1 else ''} of {what}" for what, n in counts.items())
    return ", and ".join(parts) or "no node"
