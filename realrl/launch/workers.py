"""What every mode of starting workers shares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

WORKER_MODULE = "realrl.apps.worker"


def ranks_by_node(num_workers: int, devices_per_node: int) -> list[range]:
    """The ranks of each node: one node after another is filled, so that a node's ranks follow each other."""
    starts = range(0, num_workers, devices_per_node)
    return [range(start, min(start + devices_per_node, num_workers)) for start in starts]


def thread_limits(num_threads: int) -> dict[str, str]:
    """Threads of several workers on one core cost far more than they bring."""
    return {"OMP_NUM_THREADS": str(num_threads), "MKL_NUM_THREADS": str(num_threads)}


def device_settings(device: str, given: Mapping[str, str]) -> dict[str, str]:
    """Variables of a worker on CUDA; what the user has `given` stays.

    Segments that grow fragment less when calls of different shapes take turns, and `empty_cache` can give
    back every free page of them to vLLM's process. NCCL must not register what a graph has recorded of them:
    Megatron refuses the two together for illegal accesses to memory, torchtitan#3306 hangs.

    With fewer queues than streams, what waits in one stream holds up others: 32 is CUDA's largest number, and
    8 its default. Messages go before products that are not yet under way, so that the two overlap.
    """
    if device == "cpu":
        return {}
    settings = {
        "PYTORCH_ALLOC_CONF": "expandable_segments:True",
        "NCCL_GRAPH_REGISTER": "0",
        "CUDA_DEVICE_MAX_CONNECTIONS": "32",
        "TORCH_NCCL_HIGH_PRIORITY": "1",
    }
    if "PYTORCH_CUDA_ALLOC_CONF" in given:  # the older name of the first one, which PyTorch looks up second
        del settings["PYTORCH_ALLOC_CONF"]
    return {name: value for name, value in settings.items() if name not in given}


def lost_nodes(nodes: Iterable[tuple[str, range]]) -> str:
    """Says which nodes were lost, and which ranks with them; empty for none."""
    parts = [f"node {name} was lost, and with it {_ranks(ranks)}" for name, ranks in nodes]
    return "; ".join(parts)


def _ranks(ranks: range) -> str:
    return f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]}-{ranks[-1]}"
