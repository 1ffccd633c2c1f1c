"""Times log-probabilities from hidden states, ours beside plain PyTorch's and the bare products'."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import torch
import torch.nn.functional as F
from torch import Tensor

from realrl.apps.tables import table
from realrl.parallel.vocab import vocab_logprobs

_HEADS = {"SmolLM2-135M": (576, 49152, 1024), "Qwen2.5-1.5B": (1536, 151936, 256)}
"""Hidden size, vocabulary, tokens."""
_DTYPES = (torch.bfloat16, torch.float32)
_PASSES = ("forward", "forward + backward")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One way of getting log-probabilities with one model's head."""

    head: str
    tokens: int
    dtype: str
    passes: str
    method: str
    seconds: float
    """The least of the rounds."""
    products_seconds: float
    """Of the matrix products alone: one forward, two more backward."""
    peak_bytes: int
    """The most memory that it takes beside its inputs."""


def measure(device: torch.device, rounds: int) -> list[Row]:
    """Every method in turn, round after round."""
    return [
        row
        for head in _HEADS
        for dtype in _DTYPES
        for passes in _PASSES
        for row in _measure_head(head, dtype, passes, device, rounds)
    ]


def render(rows: Sequence[Row]) -> str:
    """As a table, the time of each method beside the products'."""
    lines = [("head", "tokens", "dtype", "passes", "method", "seconds", "÷ products", "peak MiB")]
    for row in rows:
        where = row.head, str(row.tokens), row.dtype, row.passes, row.method
        ratio = f"{row.seconds / row.products_seconds:.2f}"
        lines.append((*where, f"{row.seconds:.4f}", ratio, f"{row.peak_bytes / 2**20:.0f}"))
    return table(lines, numbers=True, indent="  ")


def _measure_head(head: str, dtype: torch.dtype, passes: str, device: torch.device, rounds: int) -> list[Row]:
    hidden_size, vocab_size, num_tokens = _HEADS[head]
    hidden = torch.randn(num_tokens, hidden_size, device=device, dtype=dtype).requires_grad_()
    weight = (torch.randn(vocab_size, hidden_size, device=device, dtype=dtype) / 24).requires_grad_()
    labels = torch.randint(vocab_size, (num_tokens,), device=device)
    jobs = _jobs(hidden, weight, labels, backward=passes == _PASSES[1])
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    peaks = {name: _peak_bytes(run, device) for name, run in jobs.items()}
    for _ in range(rounds):
        for name, run in jobs.items():
            seconds[name].append(_seconds(run, device))
    return [
        Row(
            head=head,
            tokens=num_tokens,
            dtype=str(dtype).removeprefix("torch."),
            passes=passes,
            method=name,
            seconds=min(seconds[name]),
            products_seconds=min(seconds["products"]),
            peak_bytes=peaks[name],
        )
        for name in jobs
    ]


def _jobs(hidden: Tensor, weight: Tensor, labels: Tensor, *, backward: bool) -> dict[str, Callable]:
    def fused() -> Tensor:
        return vocab_logprobs(hidden, weight, labels, None, num_real=len(weight))[0]

    def plain() -> Tensor:
        logp = F.linear(hidden, weight).float().log_softmax(dim=-1)
        return logp.gather(-1, labels[:, None])[:, 0]

    @torch.no_grad()
    def products() -> None:
        logits = torch.mm(hidden, weight.t())
        if backward:
            torch.mm(logits, weight)
            torch.mm(logits.t(), hidden)

    def finished(logprobs: Callable[[], Tensor]) -> Callable[[], None]:
        def run() -> None:
            if backward:
                torch.autograd.grad(logprobs().sum(), (hidden, weight))
                return
            with torch.no_grad():
                logprobs()

        return run

    return {"ours": finished(fused), "PyTorch": finished(plain), "products": products}


def _seconds(run: Callable, device: torch.device) -> float:
    _synchronise(device)
    begin_s = time.perf_counter()
    run()
    _synchronise(device)
    return time.perf_counter() - begin_s


def _peak_bytes(run: Callable, device: torch.device) -> int:
    """After a first run, which fills caches that stay."""
    run()
    if device.type == "cuda":
        _synchronise(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    # Linux's way to say: forget the high-water mark.
    Path("/proc/self/clear_refs").write_text("5")
    before = _status_bytes("VmRSS")
    run()
    return max(_status_bytes("VmHWM") - before, 0)


def _status_bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:"))


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
