"""Functions that all launchers use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from realrl.api.mesh import ExecutionPlan

WORKER_MODULE = "realrl.apps.worker"
IMPORTS = (
    "realrl.runtime.control.worker_channel",
    "realrl.runtime.worker.worker_setup",
    # What a tokenizer needs, which imports most of what takes long.
    "transformers.activations",
    "transformers.models.auto.tokenization_auto",
)
"""Modules that every worker needs and that take long to import, most of all PyTorch."""
_TENSOR_PARALLEL = "realrl.parallel.megatron"


def imports_of(plan: ExecutionPlan) -> tuple[str, ...]:
    """Return the modules that the workers of a plan need and that take long to import."""
    if any(placement.layout.tp > 1 for placement in plan.placements.values()):
        return (*IMPORTS, _TENSOR_PARALLEL)
    return IMPORTS


def ranks_by_node(num_workers: int, devices_per_node: int) -> list[range]:
    """Return the ranks of each node. Nodes are filled one by one, so a node's ranks are consecutive."""
    starts = range(0, num_workers, devices_per_node)
    nodes: list[range] = []
    for start in starts:
        stop = min(start + devices_per_node, num_workers)
        nodes.append(range(start, stop))
    return nodes


def thread_limits(num_threads: int) -> dict[str, str]:
    """Return the variables that limit a worker's threads.

    Workers whose threads compete for a core are far slower than workers with one thread.
    """
    return {"OMP_NUM_THREADS": str(num_threads), "MKL_NUM_THREADS": str(num_threads)}


def device_settings(device: str, given: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a worker on CUDA, except those that the user has `given`.

    Expandable segments fragment less when calls of different shapes alternate, and `empty_cache` can give
    all their free pages back to vLLM's process. NCCL must not register those of a CUDA graph: Megatron
    rejects the combination because of illegal memory accesses, and torchtitan#3306 hangs.

    With fewer hardware queues than streams, work that waits in one stream delays other streams. CUDA has at
    most 32 queues, and 8 by default. NCCL's kernels take precedence over products that have not started, so
    that the two overlap.
    """
    if device == "cpu":
        return {}
    settings = {
        "PYTORCH_ALLOC_CONF": "expandable_segments:True",
        "NCCL_GRAPH_REGISTER": "0",
        "CUDA_DEVICE_MAX_CONNECTIONS": "32",
        "TORCH_NCCL_HIGH_PRIORITY": "1",
    }
    # PyTorch reads this older name only where PYTORCH_ALLOC_CONF is not set.
    if "PYTORCH_CUDA_ALLOC_CONF" in given:
        del settings["PYTORCH_ALLOC_CONF"]
    return {name: value for name, value in settings.items() if name not in given}


def lost_nodes(nodes: Iterable[tuple[str, range]]) -> str:
    """Describe which nodes were lost, and their ranks; empty for none."""
    parts = [f"node {name} was lost, and with it {_ranks(ranks)}" for name, ranks in nodes]
    return "; ".join(parts)


def _ranks(ranks: range) -> str:
    """Return consecutive ranks as text."""
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    return f"ranks {ranks[0]}-{ranks[-1]}"
