"""Times optimizer steps beside the machine's own limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import msgspec
import torch
from torch import Tensor

from benchmarks import single_process as alone
from benchmarks.engine_options import Workload
from realrl.api.batch import PackedBatch, Sample, cu_seqlens_of
from realrl.api.config import OptimizerConfig
from realrl.parallel.microbatch import split
from realrl.planner import engine_memory as memory
from realrl.planner.engine_memory import Load
from realrl.planner.flops import train_flops
from realrl.planner.model_memory import Stage


@dataclass(frozen=True, kw_only=True)
class Settings(Workload):
    """What is trained on."""

    prompt_tokens: int
    tokens: int
    """Of each sample, prompt included."""
    max_tokens_per_microbatch: int


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of step."""

    phase: str
    seconds: float
    """Median over the rounds."""
    tokens_per_s: float
    """Of all samples, a shared prompt's in each of them."""
    samples_per_s: float
    mfu: float
    """Of the best that a product of large matrices reaches here; a shared prompt counts once."""
    peak_tflop_s: float
    """That best."""
    peak_memory_bytes: int
    predicted_memory_bytes: int
    """What a dry run would say of it: of the engine's tensors, without what CUDA or the interpreter take."""


def measure(settings: Settings) -> list[Row]:
    """Inference and training in turn."""
    engine = alone.load_engine(
        settings.model,
        settings.dtype,
        settings.device,
        max_tokens_per_microbatch=settings.max_tokens_per_microbatch,
        optimizer=OptimizerConfig(lr=1e-6),
    )
    batch = _batch(settings)
    num_tokens = int(batch["loss_mask"].sum())

    def loss(logprobs: Tensor, micro: PackedBatch):
        return -logprobs.sum() / num_tokens, {}

    runs = {
        "logprobs": lambda: engine.logprobs(batch, temperature=1.0),
        "train": lambda: engine.train_logprobs(batch, loss, lr=1e-6, temperature=1.0),
    }
    peaks = dict.fromkeys(runs, 0)

    def timed(name: str) -> float:
        alone.reset_peak_memory(settings.device)
        seconds = alone.seconds_of(runs[name], settings.device)
        peaks[name] = max(peaks[name], alone.peak_memory_bytes(settings.device))
        return seconds

    best: list[float] = []
    methods = {name: lambda name=name: timed(name) for name in runs}
    methods["peak"] = lambda: best.append(_peak(settings)) or best[-1]
    times = alone.in_turn(methods, settings.rounds)
    if settings.trace:
        alone.trace(runs["train"], settings.device, settings.trace)
    predicted = _predicted_bytes(settings, batch)
    return [
        _row(settings, name, median(times[name]), max(best), peaks[name], predicted[name]) for name in runs
    ]


def _predicted_bytes(settings: Settings, batch: PackedBatch) -> dict[str, int]:
    stage = Stage(
        decoder=alone.decoder_of(settings.model),
        layout=alone.ALONE.layout,
        place=alone.ALONE.coordinate(0),
        head="lm",
        itemsize=getattr(torch, settings.dtype).itemsize,
        device=settings.device,
    )
    micros = split(batch, settings.max_tokens_per_microbatch, share_prompts=True)
    load = Load(
        num_micros=len(micros),
        num_tokens=max(micro.num_tokens for micro in micros),
        num_logits=max(len(micro.batch.responses) for micro in micros),
    )
    held = memory.resident(stage, trained=True, states_elsewhere=False)
    calls = {
        "logprobs": memory.inference(stage, load),
        "train": memory.training(stage, load, recompute=False),
    }
    return {name: (held + use).total_bytes for name, use in calls.items()}


def _row(
    settings: Settings, phase: str, seconds: float, peak: float, peak_bytes: int, predicted_bytes: int
) -> Row:
    flops = _train_flops(settings) / (1 if phase == "train" else 3)
    return Row(
        phase=phase,
        seconds=seconds,
        tokens_per_s=settings.num_samples * settings.tokens / seconds,
        samples_per_s=settings.num_samples / seconds,
        mfu=flops / seconds / peak,
        peak_tflop_s=peak / 1e12,
        peak_memory_bytes=peak_bytes,
        predicted_memory_bytes=predicted_bytes,
    )


def _peak(settings: Settings) -> float:
    return alone.matmul_peak(getattr(torch, settings.dtype), settings.device)


def _train_flops(settings: Settings) -> float:
    """What a prompt costs beyond its first sample is taken off again."""
    decoder, repeats = alone.decoder_of(settings.model), settings.group_size - 1
    responses = settings.tokens - settings.prompt_tokens
    whole = train_flops(decoder, [settings.tokens] * settings.group_size, settings.group_size * responses)
    return settings.num_prompts * (whole - repeats * train_flops(decoder, [settings.prompt_tokens], 0))


def _batch(settings: Settings) -> PackedBatch:
    vocab_size = alone.decoder_of(settings.model).vocab_size
    generator = torch.Generator().manual_seed(0)
    ids: list[Tensor] = []
    for _ in range(settings.num_prompts):
        prompt = torch.randint(3, vocab_size, (settings.prompt_tokens,), generator=generator)
        rest = (settings.group_size, settings.tokens - settings.prompt_tokens)
        ids += [torch.cat((prompt, row)) for row in torch.randint(3, vocab_size, rest, generator=generator)]
    mask = torch.arange(settings.tokens) >= settings.prompt_tokens
    return PackedBatch(
        tuple(Sample(i, i // settings.group_size) for i in range(len(ids))),
        cu_seqlens_of(map(len, ids)),
        {"input_ids": torch.cat(ids), "loss_mask": mask.repeat(len(ids))},
    )


def render(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """As lines of cells."""
    lines = [("phase", "seconds", "tokens/s", "samples/s", "MFU", "peak TFLOP/s", "memory MiB", "predicted")]
    for row in rows:
        figures = (row.seconds, row.tokens_per_s, row.samples_per_s, row.mfu, row.peak_tflop_s)
        cells = (f"{figure:.4g}" for figure in figures)
        memory_mib = (
            f"{num_bytes >> 20}" for num_bytes in (row.peak_memory_bytes, row.predicted_memory_bytes)
        )
        lines.append((row.phase, *cells, *memory_mib))
    return lines
