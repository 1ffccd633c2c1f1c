"""Times generation beside the machine's own limit, and beside another system."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import count
from statistics import median

import msgspec
import torch

from benchmarks import single_process as alone
from benchmarks.engine_options import Workload
from benchmarks.peer import GenerateJob, Peer
from realrl.api.config import GenerationConfig
from realrl.models.config import DecoderConfig
from realrl.planner.flops import decode_flops, forward_flops

OURS = "realrl"
_TRACED_TOKENS = 80
"""New tokens of a trace: enough that steps are recorded, few enough to be looked at."""


@dataclass(frozen=True, kw_only=True)
class Settings(Workload):
    """What is generated, and beside what."""

    prompt_tokens: int
    """About; prompts are ragged."""
    new_tokens: int
    """Of each sample, exactly."""
    cache_mib: int
    against: str | None


class Row(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One system."""

    system: str
    seconds: float
    """Median over the rounds."""
    tokens_per_s: float
    """Generated ones."""
    samples_per_s: float
    peak_memory_bytes: int
    prefill_s: float | None = None
    """Of it, until each sample has its first token."""
    roofline: float | None = None
    """Share of the time of decoding that its skinny products take on their own."""
    mfu: float | None = None
    """Model FLOP utilisation: of the best that a product of large matrices reaches here."""
    ratio: float | None = None
    """The other system's seconds over ours, median over the rounds; with the least and the largest."""
    ratio_least: float | None = None
    ratio_largest: float | None = None


class _Ours:
    """Our engine with its prompts."""

    def __init__(self, settings: Settings, prompts: Sequence[Sequence[int]]) -> None:
        self._settings = settings
        self.engine = alone.load_engine(
            settings.model, settings.dtype, settings.device, max_tokens_per_microbatch=8192
        )
        self._batch = alone.prompts_batch(prompts, settings.group_size)
        self.peak_bytes = 0

    def generate(self, new_tokens: int) -> float:
        """Seconds of a round."""
        device = self._settings.device
        config = GenerationConfig(
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
            max_sequences=self._settings.num_samples,
            cache_mib=self._settings.cache_mib,
        )
        alone.reset_peak_memory(device)
        seconds = alone.seconds_of(lambda: self.engine.generate(self._batch, config, seed=1, step=0), device)
        self.peak_bytes = max(self.peak_bytes, alone.peak_memory_bytes(device))
        return seconds


def measure(settings: Settings) -> Iterator[Row]:
    """The other system's row, if there is one, then ours."""
    decoder = alone.decoder_of(settings.model)
    prompts = alone.random_prompts(settings.num_prompts, settings.prompt_tokens, decoder.vocab_size)
    ours, answers, numbers = _Ours(settings, prompts), [], count()
    methods = {
        OURS: lambda: ours.generate(settings.new_tokens),
        "prefill": lambda: ours.generate(1),
        "products": lambda: alone.products_s(ours.engine, settings.num_samples),
    }

    def theirs() -> float:
        answers.append(peer.round(next(numbers)))
        return answers[-1].seconds

    with Peer(settings.against, _job(settings, prompts)) if settings.against else nullcontext() as peer:
        if peer:
            methods[settings.against] = theirs
        times = alone.in_turn(methods, settings.rounds)
    if settings.trace:
        few = min(settings.new_tokens, _TRACED_TOKENS)
        alone.trace(lambda: ours.generate(few), settings.device, settings.trace)
    if peer:
        peak_bytes = max(answer.peak_memory_bytes for answer in answers)
        yield Row(**_common(settings, settings.against, median(times[settings.against]), peak_bytes))
    yield _row(settings, decoder, prompts, times, ours.peak_bytes)


def _row(
    settings: Settings,
    decoder: DecoderConfig,
    prompts: Sequence[Sequence[int]],
    times: dict[str, list[float]],
    peak_bytes: int,
) -> Row:
    seconds, prefill_s = median(times[OURS]), median(times["prefill"])
    products_s = (settings.new_tokens - 1) * median(times["products"])
    peak = alone.matmul_peak(getattr(torch, settings.dtype), settings.device)
    ratios = [theirs / ours for theirs, ours in zip(times.get(settings.against, ()), times[OURS])]
    return Row(
        **_common(settings, OURS, seconds, peak_bytes),
        prefill_s=prefill_s,
        roofline=products_s / max(seconds - prefill_s, 1e-9),
        mfu=_flops(settings, decoder, prompts) / seconds / peak,
        **(alone.spread(ratios) if ratios else {}),
    )


def _common(settings: Settings, system: str, seconds: float, peak_bytes: int) -> dict:
    return {
        "system": system,
        "seconds": seconds,
        "tokens_per_s": settings.num_samples * settings.new_tokens / seconds,
        "samples_per_s": settings.num_samples / seconds,
        "peak_memory_bytes": peak_bytes,
    }


def _flops(settings: Settings, decoder: DecoderConfig, prompts: Sequence[Sequence[int]]) -> float:
    """Each prompt once, then each sample's tokens but the last, whose successor nobody asks for."""
    flops = forward_flops(decoder, [len(prompt) for prompt in prompts], settings.num_samples)
    for prompt in prompts:
        contexts = range(len(prompt) + 1, len(prompt) + settings.new_tokens)
        flops += settings.group_size * sum(decode_flops(decoder, context) for context in contexts)
    return flops


def _job(settings: Settings, prompts: Sequence[Sequence[int]]) -> GenerateJob:
    return GenerateJob(
        model=str(settings.model),
        dtype=settings.dtype,
        threads=torch.get_num_threads(),
        seed=1,
        prompts=prompts,
        group_size=settings.group_size,
        max_new_tokens=settings.new_tokens,
    )
