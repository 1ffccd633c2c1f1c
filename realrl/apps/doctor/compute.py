"""Probes of PyTorch on this machine: its build, products in bfloat16, threads, process groups, GPUs."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from realrl.apps.doctor.finding import Finding, Probe, in_gib, note, ok, problem
from realrl.base.counting import counted
from realrl.base.machine import cpu_quotas

_SIZE = 512
"""Rows and columns of the products that are timed: some milliseconds each."""
_REPEATS = 8
_ROUNDING = 0.02
"""Largest error of a product in bfloat16, as a fraction of its largest element: eight bits, summed in
float32."""
_SLOWER = 0.8
"""Products in bfloat16 are reported as slow if they reach less than this fraction of float32's speed."""
_DRIVER = Path("/proc/driver/nvidia/version")
_FOR_OPENMP = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_PROC_BIND", "KMP_AFFINITY", "GOMP_CPU_AFFINITY")


def look_at_torch() -> Iterator[Finding]:
    """Yield PyTorch's version and build."""
    import torch

    build = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "for CPUs alone"
    yield ok("torch", f"{torch.__version__}, built {build}")


def look_at_cores() -> Iterator[Finding]:
    """Yield the CPU's name, its cores, and whether a container gets less of their time."""
    import torch

    cores = len(os.sched_getaffinity(0))
    quota = min(cpu_quotas(), default=float(cores))
    threads = counted(torch.get_num_threads(), "thread")
    found = f"{_cpu_name()}; {counted(cores, 'core')}, {threads} of PyTorch"
    variables = [f"{name}={os.environ[name]}" for name in _FOR_OPENMP if name in os.environ]
    if variables:
        found += f"; {', '.join(variables)}"
    if quota >= cores:
        yield ok("cores", found)
        return
    means = f"the container gets the time of {quota:g} cores, over which threads for {cores} compete"
    num_whole = max(1, int(quota))
    do = f"give the container whole cores (--cpuset-cpus), or start runs with taskset -c 0-{num_whole - 1}"
    yield note("cores", found, means, do)


def _cpu_name() -> str:
    """Return the CPU's name. Source: Linux, proc_cpuinfo(5)."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    for line in lines:
        name, _, value = line.partition(":")
        if name.startswith("model name"):
            return value.strip()
    return "a CPU"


def look_at_bf16() -> Iterator[Finding]:
    """Yield whether products in bfloat16 are right and fast on this CPU."""
    import torch

    a = torch.rand(_SIZE, _SIZE)
    b = torch.rand(_SIZE, _SIZE)
    exact = a @ b
    own_a = a.bfloat16()
    own_b = b.bfloat16()
    product = (own_a @ own_b).float()
    error = (product - exact).abs().max() / exact.abs().max()
    if error > _ROUNDING:
        found = f"a product is wrong by {float(error):.1%}"
        means = "what is trained in bfloat16 is wrong"
        yield problem("bfloat16", found, means, "set dtype=float32, and report it to PyTorch")
        return

    wide_s = _seconds(lambda: a @ b)
    own_s = _seconds(lambda: own_a @ own_b)
    ratio = wide_s / own_s
    if ratio < _SLOWER:
        found = f"{1 / ratio:.1f} times slower than float32 in products on this CPU"
        means = "on the CPU, float32 trains and generates faster, with twice the memory for weights"
        yield note("bfloat16", found, means, "set dtype=float32 for models that run on the CPU")
    else:
        yield ok("bfloat16", f"products are {ratio:.1f} times as fast as in float32 on this CPU")


def _seconds(product: Callable[[], object]) -> float:
    """Return the shortest time of a product."""
    shortest_s = math.inf
    for _ in range(_REPEATS):
        began_s = time.perf_counter()
        product()
        took_s = time.perf_counter() - began_s
        shortest_s = min(shortest_s, took_s)
    return shortest_s


def look_at_gloo() -> Iterator[Finding]:
    """Yield whether a process group with gloo can be made."""
    import torch
    import torch.distributed as dist

    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    number = torch.ones(1)
    dist.all_reduce(number)
    dist.destroy_process_group()
    yield ok("gloo", f"a process group of one was made, on {os.environ['GLOO_SOCKET_IFNAME']}")


def look_at_gpus() -> Iterator[Finding]:
    """Yield the driver, each GPU, and what else runs on GPUs need."""
    import torch

    number = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if number:
        yield ok("driver", f"{_driver() or 'it is not said'}; {number} GPUs")
        for index in range(number):
            yield _gpu(index)
        yield from _around_cuda()
    elif driver := _driver():
        build = "its CUDA needs a newer driver" if torch.version.cuda else "it is a build for CPUs alone"
        found = f"the driver is there ({driver}), but torch sees no GPU: {build}"
        do = "install a build of torch for this driver's CUDA (pytorch.org), or look at CUDA_VISIBLE_DEVICES"
        yield problem("gpu", found, "runs use the CPU", do)
    else:
        yield ok("gpu", "none; runs use the CPU")


def _driver() -> str:
    """Return the version of the NVIDIA driver; empty if there is none."""
    if not _DRIVER.is_file():
        return ""
    for word in _DRIVER.read_text().split():
        if "." in word and word[0].isdigit():
            return word
    return ""


def _gpu(index: int) -> Finding:
    """Return a finding about a GPU: its memory, and whether it computes a product in bfloat16."""
    import torch

    device = torch.device("cuda", index)
    title = f"gpu {index}"
    name = torch.cuda.get_device_name(device)
    total = torch.cuda.get_device_properties(device).total_memory
    free, _ = torch.cuda.mem_get_info(device)
    ones = torch.ones(64, 64, device=device, dtype=torch.bfloat16)
    product = ones @ ones
    if not bool((product == 64).all()):
        return problem(title, f"{name}: a product on it is wrong", "so is training", "take another one")
    found = f"{name}, {in_gib(free)} of {in_gib(total)} free"
    # This process itself has a context on the GPU.
    if free < total * 0.9:
        return note(title, found, "other processes hold memory of it", "see nvidia-smi")
    return ok(title, found)


def _around_cuda() -> Iterator[Finding]:
    """Yield whether the CUDA kernels are built and NCCL is there."""
    import torch.distributed as dist

    from realrl.ops.kernels import CUDA_LIBRARY

    if CUDA_LIBRARY.exists():
        yield ok("cuda kernels", "built")
    else:
        means = "no run with device=cuda begins"
        do = "put nvcc on the PATH, set REALRL_CUDA=1, and install realrl again"
        yield problem("cuda kernels", "not built", means, do)
    if dist.is_nccl_available():
        import torch

        yield ok("nccl", ".".join(map(str, torch.cuda.nccl.version())))
    else:
        yield problem(
            "nccl", "this build of torch has none", "GPUs cannot exchange weights", "install another"
        )


PROBES = (
    Probe("torch", look_at_torch, deadline_s=60.0),
    Probe("cores", look_at_cores),
    Probe("bfloat16", look_at_bf16, deadline_s=20.0),
    Probe("gloo", look_at_gloo),
    Probe("gpu", look_at_gpus, deadline_s=60.0),
)
