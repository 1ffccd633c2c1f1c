"""Runs a function in several processes joined by gloo, or by another backend."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

_PRELOADED = [
    "torch",
    "torch.distributed",
    "transformers",
    "transformers.models.llama.modeling_llama",
    "transformers.models.auto.tokenization_auto",
    "realrl.runtime.worker.worker_setup",
    "realrl.parallel.megatron",
    "realrl.recipes.ppo_math",
    "hypothesis",
    "pytest",
]
"""What most processes import: a server does so once, and they are forked from it."""


def run_world(function: Callable, size: int, *args, backend: str = "gloo", start: str = "forkserver") -> None:
    """Call `function(rank, *args)` in `size` processes; an error in one is raised here.

    The function lies at a test module's top level, so that the processes can import it. `start="spawn"` gives
    them this process's environment as it is now, and memory that nothing was in before.
    """
    with tempfile.TemporaryDirectory() as folder:
        mp.get_context("forkserver").set_forkserver_preload(_PRELOADED)
        arguments = (size, Path(folder) / "store", function, args, backend)
        mp.start_processes(_join, arguments, nprocs=size, start_method=start)


def _join(rank: int, size: int, store: Path, function: Callable, args: tuple, backend: str) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group(backend, store=dist.FileStore(str(store), size), rank=rank, world_size=size)
    try:
        function(rank, *args)
    finally:
        dist.destroy_process_group()
