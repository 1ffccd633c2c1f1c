"""An engine in this process alone, what this machine could do at best, and the rounds of a benchmark."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from realrl.api.batch import PackedBatch, Sample, cu_seqlens_of
from realrl.api.config import OptimizerConfig
from realrl.api.mesh import DeviceMesh, ParallelLayout, Placement
from realrl.engines.decoder_engine import DecoderEngine
from realrl.engines.options import EngineOptions
from realrl.models.config import DecoderConfig
from realrl.models.registry import read_decoder_config
from realrl.models.rope import Rope
from realrl.ops.linear import PackedWeight, linear
from realrl.parallel.groups import local_groups

RANDOM: dict[str, DecoderConfig] = {
    "random-qwen2-1.5b": DecoderConfig(
        vocab_size=151936,
        hidden_size=1536,
        intermediate_size=8960,
        num_layers=28,
        num_heads=12,
        num_kv_heads=2,
        head_dim=128,
        max_position=32768,
        norm_eps=1e-6,
        tied=True,
        eos_token_ids=(),
        rope=Rope(theta=1e6),
        qkv_bias=True,
    ),
    "random-tiny": DecoderConfig(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=128,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=16,
        max_position=1024,
        norm_eps=1e-6,
        tied=True,
        eos_token_ids=(),
        rope=Rope(theta=1e4),
    ),
}
"""Shapes with random weights, which need no files: that of Qwen2.5-1.5B (source: its `config.json`), and one
that any machine runs in a moment.
"""

ALONE = Placement(DeviceMesh((0,)), ParallelLayout())
_PEAK_SIZES = {"cpu": 2048, "cuda": 8192}
"""Rows and columns of a product that the device is busy with for far longer than it takes to begin one."""
_RESET_PEAK = "5"


def decoder_of(model: Path | str) -> DecoderConfig:
    """Of a directory, or of a name of `RANDOM`."""
    return RANDOM.get(str(model)) or read_decoder_config(model)


def load_engine(
    model: Path | str,
    dtype: str,
    device: str,
    *,
    max_tokens_per_microbatch: int,
    optimizer: OptimizerConfig | None = None,
) -> DecoderEngine:
    """A language model of one rank."""
    engine = DecoderEngine(
        decoder_of(model),
        "lm",
        local_groups(ALONE),
        EngineOptions(
            dtype=getattr(torch, dtype),
            device=device,
            max_tokens_per_microbatch=max_tokens_per_microbatch,
            optimizer=optimizer,
        ),
    )
    if str(model) in RANDOM:
        _fill(engine)
    else:
        engine.load(model)
    return engine


@torch.no_grad()
def _fill(engine: DecoderEngine) -> None:
    """Random matrices; norms are one and biases zero."""
    for name, weight in engine.local_tensors().items():
        if weight.dim() > 1:
            weight.normal_(std=0.02)
        else:
            weight.fill_(0.0 if name.endswith("bias") else 1.0)
    engine.adopt(version=0)


def prompts_batch(prompts: Sequence[Sequence[int]], group_size: int) -> PackedBatch:
    """`group_size` samples of each prompt."""
    rows = [row for row in range(len(prompts)) for _ in range(group_size)]
    samples = tuple(Sample(i, row) for i, row in enumerate(rows))
    ids = torch.tensor([token for row in rows for token in prompts[row]])
    return PackedBatch(samples, cu_seqlens_of(len(prompts[row]) for row in rows), {"prompts": ids})


def random_prompts(count: int, length: int, vocab_size: int) -> list[list[int]]:
    """Ragged prompts about `length` tokens long, the same for the same arguments."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(max(1, length * 3 // 4), length * 5 // 4 + 1, (count,), generator=generator)
    return [torch.randint(3, vocab_size, (int(n),), generator=generator).tolist() for n in lengths]


def matmul_peak(dtype: torch.dtype, device: str) -> float:
    """FLOP/s of the best of some products of two square matrices."""
    size = _PEAK_SIZES[torch.device(device).type]
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / min(seconds_of(lambda: a @ b, device) for _ in range(5))


@torch.no_grad()
def products_s(engine: DecoderEngine, rows: int) -> float:
    """Seconds of the products alone that `rows` tokens take through all layers and the head, in the faster of
    the layouts of weights."""
    weights = engine.local_tensors()
    transposed = engine.decoder.names.transposed
    matrices = [
        w.t() if transposed and name.startswith("layers.") else w
        for name, w in weights.items()
        if w.dim() == 2 and name != "positions" and not (name == "embed" and "head" in weights)
    ]
    sizes = {matrix.shape[1] for matrix in matrices}
    inputs = {
        size: torch.randn(rows, size, device=engine.options.device).to(engine.options.dtype) for size in sizes
    }
    layouts = [matrices]
    if PackedWeight.fits(matrices[0]):
        layouts.append([PackedWeight(matrix, rows) for matrix in matrices])

    def run(chosen: Sequence[Tensor | PackedWeight]) -> None:
        for matrix, weight in zip(matrices, chosen):
            linear(inputs[matrix.shape[1]], weight)

    device = engine.options.torch_device.type
    return min(seconds_of(partial(run, chosen), device) for chosen in layouts for _ in range(3))


def seconds_of(run: Callable[[], object], device: str) -> float:
    _wait_for(device)
    begin_s = time.perf_counter()
    run()
    _wait_for(device)
    return time.perf_counter() - begin_s


def trace(run: Callable[[], object], device: str, file: Path) -> None:
    """Run under PyTorch's profiler, and write what it saw as a Chrome trace."""
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
    with profile(activities=kinds) as profiler:
        seconds_of(run, device)
    aside = file.with_suffix(".part")
    profiler.export_chrome_trace(str(aside))
    aside.replace(file)


def in_turn(methods: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Each method's figure of each round; the methods take turns, after one round that does not count."""
    found: dict[str, list[float]] = {name: [] for name in methods}
    for number in range(rounds + 1):
        for name, method in methods.items():
            figure = method()
            if number:
                found[name].append(figure)
    return found


def spread(ratios: Iterable[float]) -> dict[str, float]:
    """Median, least and largest."""
    ratios = list(ratios)
    return {"ratio": median(ratios), "ratio_least": min(ratios), "ratio_largest": max(ratios)}


def reset_peak_memory(device: str) -> None:
    """Source: Linux, proc_pid_clear_refs(5)."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK)


def peak_memory_bytes(device: str) -> int:
    """Since it was last reset: of this process, or allocated on its device."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) << 10


def _wait_for(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
