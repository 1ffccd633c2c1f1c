"""Probes of PyTorch on this machine: its build, products in bfloat16, threads, process groups, GPUs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from realrl.apps.doctor.finding import Finding, Probe, in_gib, note, ok, problem
from realrl.base.counting import counted
from realrl.base.machine import cpu_quotas

_SIZE, _REPEATS = 512, 8
"""Of the products that are timed: some milliseconds each."""
_ROUNDING = 0.02
"""Of a product in bfloat16, as a share of its largest element: eight bits, summed in float32."""
_DRIVER = Path("/proc/driver/nvidia/version")
_FOR_OPENMP = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_PROC_BIND", "KMP_AFFINITY", "GOMP_CPU_AFFINITY")


def look_at_torch() -> Iterator[Finding]:
    import torch

    build = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "for CPUs alone"
    yield ok("torch", f"{torch.__version__}, built {build}")


def look_at_cores() -> Iterator[Finding]:
    import torch

    cores = len(os.sched_getaffinity(0))
    quota = min(cpu_quotas(), default=float(cores))
    threads = counted(torch.get_num_threads(), "thread")
    found = f"{_cpu_name()}; {counted(cores, 'core')}, {threads} of PyTorch"
    variables = ", ".join(f"{name}={os.environ[name]}" for name in _FOR_OPENMP if name in os.environ)
    found += f"; {variables}" if variables else ""
    if quota < cores:
        means = f"the container gets the time of {quota:g} cores, over which threads for {cores} compete"
        last = max(1, int(quota)) - 1
        do = f"give the container whole cores (--cpuset-cpus), or start runs with taskset -c 0-{last}"
        yield note("cores", found, means, do)
    else:
        yield ok("cores", found)


def _cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "a CPU")


def look_at_bf16() -> Iterator[Finding]:
    import torch

    a, b = torch.rand(_SIZE, _SIZE), torch.rand(_SIZE, _SIZE)
    exact = a @ b
    own_a, own_b = a.bfloat16(), b.bfloat16()
    error = ((own_a @ own_b).float() - exact).abs().max() / exact.abs().max()
    if error > _ROUNDING:
        means, do = "what is trained in bfloat16 is wrong", "set dtype=float32, and report it to PyTorch"
        yield problem("bfloat16", f"a product is wrong by {float(error):.1%}", means, do)
        return
    ratio = _seconds(lambda: a @ b) / _seconds(lambda: own_a @ own_b)
    if ratio < 0.8:
        found = f"{1 / ratio:.1f} times slower than float32 in products on this CPU"
        means = "on the CPU, float32 trains and generates faster, with twice the memory for weights"
        yield note("bfloat16", found, means, "set dtype=float32 for models that run on the CPU")
    else:
        yield ok("bfloat16", f"products are {ratio:.1f} times as fast as in float32 on this CPU")


def _seconds(product: Callable[[], object]) -> float:
    """The least time of a product."""
    times = []
    for _ in range(_REPEATS):
        began_s = time.perf_counter()
        product()
        times.append(time.perf_counter() - began_s)
    return min(times)


def look_at_gloo() -> Iterator[Finding]:
    import torch
    import torch.distributed as dist

    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    number = torch.ones(1)
    dist.all_reduce(number)
    dist.destroy_process_group()
    yield ok("gloo", f"a process group of one was made, on {os.environ['GLOO_SOCKET_IFNAME']}")


def look_at_gpus() -> Iterator[Finding]:
    import torch

    number = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if number:
        yield ok("driver", f"{_driver() or 'it is not said'}; {number} GPUs")
        for index in range(number):
            yield _gpu(index)
        yield from _around_cuda()
    elif driver := _driver():
        means = "runs use the CPU"
        build = "its CUDA needs a newer driver" if torch.version.cuda else "it is a build for CPUs alone"
        do = "install a build of torch for this driver's CUDA (pytorch.org), or look at CUDA_VISIBLE_DEVICES"
        yield problem("gpu", f"the driver is there ({driver}), but torch sees no GPU: {build}", means, do)
    else:
        yield ok("gpu", "none; runs use the CPU")


def _driver() -> str:
    """The NVIDIA driver's version; empty where there is none."""
    words = _DRIVER.read_text().split() if _DRIVER.is_file() else []
    return next((word for word in words if word.count(".") >= 1 and word[0].isdigit()), "")


def _gpu(index: int) -> Finding:
    """A GPU, by a product in bfloat16 on it."""
    import torch

    device = torch.device("cuda", index)
    name, total = torch.cuda.get_device_name(device), torch.cuda.get_device_properties(device).total_memory
    free = torch.cuda.mem_get_info(device)[0]
    ones = torch.ones(64, 64, device=device, dtype=torch.bfloat16)
    if not bool((ones @ ones == 64).all()):
        return problem(
            f"gpu {index}", f"{name}: a product on it is wrong", "so is training", "take another one"
        )
    found = f"{name}, {in_gib(free)} of {in_gib(total)} free"
    if free < total * 0.9:
        return note(f"gpu {index}", found, "other processes hold memory of it", "see nvidia-smi")
    return ok(f"gpu {index}", found)


def _around_cuda() -> Iterator[Finding]:
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
