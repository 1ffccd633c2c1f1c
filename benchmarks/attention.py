"""Times attention over packed sequences and over a paged cache, beside PyTorch's for each sequence alone.

The heads are SmolLM2-135M's, and on CUDA those of Qwen2-1.5B and Qwen2-7B for decoding long contexts. Only
pairs of a token and a key that it sees count as useful.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import msgspec
import torch
import torch.nn.functional as F
from torch import Tensor

from realrl.apps.tables import table
from realrl.models.graphs import CudaRecorder, RecordedStep
from realrl.ops.attention import Segments, packed_attention
from realrl.ops.cache import KeyValueCache

_NUM_HEADS, _NUM_KV_HEADS, _HEAD_DIM = 9, 3, 64
_SCALE = _HEAD_DIM**-0.5
_DTYPES = (torch.bfloat16, torch.float32)
_MATMUL_SIZES = {"cpu": 2048, "cuda": 8192}
_CONTEXTS = (64, 128, 256, 512, 4096)
_NUM_DECODED = 32
_CACHE_BYTES = {"cpu": 256 << 20, "cuda": 4 << 30}
"""Much more than a device's caches hold, in several layers, so that the time of a launch is of no account."""


@dataclass(frozen=True)
class Shape:
    """Groups of `samples` after a shared prompt; without one, samples alone."""

    groups: int
    prompt: int
    samples: int
    tokens: int

    def __str__(self) -> str:
        samples = f"{self.samples} x {self.tokens}"
        return f"{self.groups} x ({self.prompt} + {samples})" if self.prompt else samples

    @property
    def segments(self) -> Segments:
        prompt = [self.prompt] if self.prompt else []
        bounds = torch.tensor([0, *(prompt + [self.tokens] * self.samples) * self.groups]).cumsum(0)
        root = torch.arange(self.groups) * (self.samples + 1)
        prefix = torch.cat((torch.full((self.groups, 1), -1), root[:, None].expand(-1, self.samples)), dim=1)
        if not prompt:
            return Segments.of_sequences(bounds.to(torch.int32))
        return Segments(bounds.to(torch.int32), prefix.flatten().to(torch.int32))

    @property
    def useful_pairs(self) -> int:
        prompt, samples = self.prompt * (self.prompt + 1) // 2, self.tokens * (self.tokens + 1) // 2
        return self.groups * (prompt + self.samples * (samples + self.prompt * self.tokens))


@dataclass(frozen=True)
class Decoding:
    """A token for each of some sequences, all with as many before it."""

    sequences: int
    context: int
    num_heads: int = _NUM_HEADS
    num_kv_heads: int = _NUM_KV_HEADS
    head_dim: int = _HEAD_DIM

    def __str__(self) -> str:
        heads = f"{self.num_heads}/{self.num_kv_heads}/{self.head_dim}"
        return f"{self.sequences} x {self.context}, heads {heads}"

    def num_bytes(self, dtype: torch.dtype) -> int:
        """Keys and values of a layer."""
        token_bytes = 2 * self.num_kv_heads * self.head_dim * dtype.itemsize
        return self.sequences * self.context * token_bytes


_LONG = tuple(
    Decoding(sequences, context, *heads)
    for heads in ((12, 2, 128), (28, 4, 128))
    for sequences, context in ((128, 8192), (8, 32768))
)
"""What a large GPU decodes: most of a step's samples at once, and the few long ones at its end."""
_SHAPES = (Shape(1, 0, 32, 22), Shape(1, 0, 8, 512), Shape(1, 0, 1, 4096), Shape(4, 256, 8, 128))


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One way through one shape."""

    work: str
    shape: str
    dtype: str
    method: str
    ms: float
    """The least over the rounds."""
    rate: float
    """Useful GFLOP/s; of decoding, GB/s of keys and values read."""
    peak: float
    """The same of a large matrix product; of decoding, of reading memory, and on CUDA of copying it."""


def measure(device: torch.device, rounds: int) -> Iterator[Row]:
    for dtype in _DTYPES:
        peak = _matmul_gflops(device, dtype, rounds)
        for shape in _SHAPES:
            yield from _packed_rows(shape, device, dtype, rounds, peak)
    for dtype in _DTYPES:
        yield from _decode_rows(device, dtype, rounds)


def render(rows: Sequence[Row]) -> str:
    """As a table; a method's rate stands beside the best that the machine could do."""
    lines = [("work", "shape", "dtype", "method", "ms", "rate", "", "÷ peak")]
    for row in rows:
        unit = "GB/s" if row.work == "decode" else "GFLOP/s"
        share = f"{row.rate / row.peak:.2f}"
        lines.append(
            (row.work, row.shape, row.dtype, row.method, f"{row.ms:.2f}", f"{row.rate:.0f}", unit, share)
        )
    return table(lines, numbers=True, indent="  ")


def _packed_rows(
    shape: Shape, device: torch.device, dtype: torch.dtype, rounds: int, peak: float
) -> Iterator[Row]:
    segments = shape.segments
    heads = _NUM_HEADS + 2 * _NUM_KV_HEADS
    qkv = torch.randn(int(segments.cu_seqlens[-1]), heads, _HEAD_DIM, device=device).to(dtype)
    dout = torch.randn_like(qkv[:, :_NUM_HEADS])
    leaf = qkv.clone().requires_grad_()
    methods = {
        "realrl": lambda x: packed_attention(x, _NUM_KV_HEADS, segments, scale=_SCALE),
        "SDPA": lambda x: _sdpa(x, segments),
    }
    works = {
        "forward": (2, lambda run: run(qkv)),
        "forward + backward": (7, lambda run: torch.autograd.grad(run(leaf), leaf, dout)),
    }
    jobs = {
        (work, name): (lambda act=act, run=run: act(run))
        for work, (_, act) in works.items()
        for name, run in methods.items()
    }
    for (work, name), seconds in _least_seconds(jobs, rounds, device).items():
        flops = works[work][0] * 2 * shape.useful_pairs * _NUM_HEADS * _HEAD_DIM
        yield _row(work, str(shape), dtype, name, seconds, flops / 1e9, peak)


def _sdpa(qkv: Tensor, segments: Segments) -> Tensor:
    """Each segment after a copy of its prefix, alone; of the prefix's rows nothing is kept."""
    outputs, bounds = [], segments.bounds()
    for first, end, prefix in bounds:
        seen = qkv[:0] if prefix < 0 else qkv[slice(*bounds[prefix][:2])]
        tokens = torch.cat((seen, qkv[first:end])) if len(seen) else qkv[first:end]
        q, k, v = (x.transpose(0, 1)[None] for x in tokens.split((_NUM_HEADS, *[_NUM_KV_HEADS] * 2), dim=1))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=_SCALE, enable_gqa=True)
        outputs.append(out[0].transpose(0, 1)[len(seen) :])
    return torch.cat(outputs)


def _decode_rows(device: torch.device, dtype: torch.dtype, rounds: int) -> Iterator[Row]:
    """Every layer in turn, so that a step finds its keys in memory rather than in a cache."""
    peak = _memory_gb_s(device, rounds)
    works = [Decoding(_NUM_DECODED, context) for context in _CONTEXTS]
    if device.type == "cuda":
        works += _LONG
    for work in works:
        num_bytes = work.num_bytes(dtype)
        layers = max(1, _CACHE_BYTES[device.type] // num_bytes)
        step = _decode_step(work, layers, device, dtype)
        seconds = _least_seconds({"decode": step}, rounds, device)["decode"] / layers
        yield _row("decode", str(work), dtype, "realrl", seconds, num_bytes / 1e9, peak)


def _decode_step(
    work: Decoding, layers: int, device: torch.device, dtype: torch.dtype
) -> Callable[[], object]:
    """All layers' attention to full pages; on CUDA as a graph, as generation has it."""
    pages = -(-work.context // KeyValueCache.tokens_of_page(device))
    total = work.sequences * pages
    cache = KeyValueCache(layers, total, work.num_kv_heads, work.head_dim, dtype, device)
    filling_shape = (total * cache.page_tokens, 2 * work.num_kv_heads, work.head_dim)
    filling = torch.randn(filling_shape, device=device, dtype=dtype)
    for layer in range(layers):
        cache.write(layer, filling, torch.arange(len(filling), device=device))
    page_table = torch.randperm(total).to(torch.int32).view(work.sequences, pages).to(device)
    lengths = torch.full((work.sequences,), work.context, device=device)
    q = torch.randn(work.sequences, work.num_heads, work.head_dim, device=device, dtype=dtype)
    scale = work.head_dim**-0.5

    def step(q: Tensor) -> Tensor:
        for layer in range(layers):
            out = cache.attend(layer, q, page_table, lengths, scale=scale)
        return out

    return partial(step if device.type == "cpu" else RecordedStep(step, (0,), CudaRecorder()), q)


def _row(
    work: str, shape: str, dtype: torch.dtype, method: str, seconds: float, amount: float, peak: float
) -> Row:
    return Row(
        work=work,
        shape=shape,
        dtype=str(dtype).removeprefix("torch."),
        method=method,
        ms=seconds * 1e3,
        rate=amount / seconds,
        peak=peak,
    )


def _matmul_gflops(device: torch.device, dtype: torch.dtype, rounds: int) -> float:
    size = _MATMUL_SIZES[device.type]
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    seconds = _least_seconds({"matmul": lambda: a @ b}, rounds, device)["matmul"]
    return 2 * size**3 / seconds / 1e9


def _memory_gb_s(device: torch.device, rounds: int) -> float:
    """Bytes read, and on CUDA written too, by what does nothing else."""
    numbers = torch.ones(_CACHE_BYTES[device.type] // 4, device=device)
    if device.type == "cpu":
        seconds = _least_seconds({"read": numbers.sum}, rounds, device)["read"]
        return numbers.nbytes / seconds / 1e9
    others = torch.empty_like(numbers)
    seconds = _least_seconds({"copy": lambda: others.copy_(numbers)}, rounds, device)["copy"]
    return 2 * numbers.nbytes / seconds / 1e9


def _least_seconds(jobs: dict, rounds: int, device: torch.device) -> dict:
    """Each job's least over the rounds, in which they alternate; the first is for warming up."""
    seconds = {name: [] for name in jobs}
    for _ in range(rounds + 1):
        for name, job in jobs.items():
            _synchronise(device)
            begin = time.perf_counter()
            job()
            _synchronise(device)
            seconds[name].append(time.perf_counter() - begin)
    return {name: min(found[1:]) for name, found in seconds.items()}


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
