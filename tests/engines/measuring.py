"""What a call really takes of a rank's memory, and the calls that are measured."""

from __future__ import annotations

import ctypes
import gc
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.distributed as dist

from realrl.api.batch import PackedBatch, Sample, pack
from realrl.api.config import GenerationConfig, OptimizerConfig
from realrl.api.mesh import Coordinate, ParallelLayout
from realrl.engines.decoder_engine import DecoderEngine
from realrl.engines.options import EngineOptions
from realrl.models.config import DecoderConfig
from realrl.parallel.groups import Groups
from realrl.planner.engine_memory import (
    GenerationLoad,
    Load,
    MemoryUse,
    generation,
    inference,
    resident,
    training,
)
from realrl.planner.model_memory import Stage

Kind = Literal["train", "recompute", "inference", "generate"]
KINDS: tuple[Kind, ...] = ("train", "recompute", "inference", "generate")


def llama(**traits) -> DecoderConfig:
    sizes = {
        "vocab_size": 4000,
        "hidden_size": 256,
        "intermediate_size": 1024,
        "num_layers": 8,
        "num_heads": 4,
        "num_kv_heads": 2,
        "head_dim": 64,
        "max_position": 512,
        "norm_eps": 1e-5,
        "tied": True,
        "eos_token_ids": (1,),
    }
    return DecoderConfig(**(sizes | traits))


@dataclass(frozen=True)
class Case:
    """A model, and what one data-parallel rank does in a call; samples are alike."""

    name: str
    decoder: DecoderConfig
    num_micros: int
    samples_each: int
    prompt: int
    response: int

    @property
    def length(self) -> int:
        return self.prompt + self.response

    @property
    def num_tokens(self) -> int:
        """Of a micro-batch."""
        return self.samples_each * self.length

    def batch(self, num_samples: int, *, only_prompts: bool) -> PackedBatch:
        generator = torch.Generator().manual_seed(0)
        samples = [Sample(i, i) for i in range(num_samples)]
        length = self.prompt if only_prompts else self.length
        ids = [torch.randint(3, 1000, (length,), generator=generator) for _ in samples]
        if only_prompts:
            return pack(samples, {"prompts": ids})
        return pack(
            samples, {"input_ids": ids, "loss_mask": [torch.arange(length) >= self.prompt] * len(ids)}
        )

    @property
    def generation(self) -> GenerationConfig:
        return GenerationConfig(max_new_tokens=self.response, min_new_tokens=self.response)


CASES = {
    "activations": Case(
        "activations", llama(num_layers=6), num_micros=2, samples_each=16, prompt=100, response=28
    ),
    "vocabulary": Case(
        "vocabulary",
        llama(vocab_size=40000, hidden_size=512, num_layers=2, num_heads=8, num_kv_heads=4),
        num_micros=2,
        samples_each=4,
        prompt=16,
        response=112,
    ),
    "sequences": Case(
        "sequences",
        llama(vocab_size=8000, hidden_size=512, num_layers=2, num_heads=8, num_kv_heads=4),
        num_micros=1,
        samples_each=96,
        prompt=8,
        response=120,
    ),
    "long vocabulary": Case(
        "long vocabulary",
        llama(vocab_size=90000, hidden_size=128, num_layers=1, num_heads=2, num_kv_heads=2, tied=False),
        num_micros=1,
        samples_each=14,
        prompt=16,
        response=112,
    ),
}
"""Where activations are most, the head's weight, keys and values, and logits, not all of which are kept."""


def predicted(
    case: Case, kind: Kind, dtype: torch.dtype, layout: ParallelLayout, place: Coordinate, device: str
) -> MemoryUse:
    stage = Stage(
        decoder=case.decoder, layout=layout, place=place, head="lm", itemsize=dtype.itemsize, device=device
    )
    is_trained = kind in ("train", "recompute")
    held, load = resident(stage, trained=is_trained), case_load(case)
    if is_trained:
        return held + training(stage, load, recompute=kind == "recompute")
    if kind == "inference":
        return held + inference(stage, load)
    num_sequences = case.num_micros * case.samples_each
    prompts = GenerationLoad(
        num_sequences=num_sequences,
        longest_prompt=case.prompt,
        num_prompt_tokens=num_sequences * case.prompt,
    )
    return held + generation(stage, prompts, case.generation, max_prefill_tokens=case.num_tokens)


def case_load(case: Case) -> Load:
    return Load(
        num_micros=case.num_micros,
        num_tokens=case.num_tokens,
        num_logits=case.samples_each * case.response,
    )


def measured(case: Case, kind: Kind, dtype: torch.dtype, groups: Groups, device: str) -> int:
    """How far memory grows while an engine is made and makes calls, above what is left when it is gone.

    What is left is not the model's: a process compiles and caches kernels when they are first used.
    """
    if kind == "generate":  # What its loop leaves in the interpreter is large beside what it works on.
        _call(_engine(case, kind, dtype, groups, device), case, kind)
    meter = _CudaMeter() if device == "cuda" else _HostMeter()
    _call(_engine(case, kind, dtype, groups, device), case, kind)
    peak = meter.peak()
    return peak - meter.now()


def _engine(case: Case, kind: Kind, dtype: torch.dtype, groups: Groups, device: str) -> DecoderEngine:
    is_trained = kind in ("train", "recompute")
    engine = DecoderEngine(
        case.decoder,
        "lm",
        groups,
        EngineOptions(
            dtype=dtype,
            device=device,
            max_tokens_per_microbatch=case.num_tokens,
            gradient_checkpointing=kind == "recompute",
            optimizer=OptimizerConfig() if is_trained else None,
        ),
    )
    with torch.no_grad():
        for weight in engine.local_tensors().values():
            weight.normal_(std=0.02) if weight.dim() > 1 else weight.fill_(1.0)
    engine.adopt(version=0)
    return engine


def _call(engine: DecoderEngine, case: Case, kind: Kind) -> None:
    """A training step follows a small one, so that the optimizer has all of its states."""
    num_samples = case.num_micros * case.samples_each
    if kind == "generate":
        prompts = case.batch(num_samples, only_prompts=True)
        engine.generate(prompts, case.generation, seed=1, step=0)
        return
    batch = case.batch(num_samples, only_prompts=False)
    if kind == "inference":
        engine.logprobs(batch, temperature=1.0)
        return
    for some in (batch.select([0]), batch):
        engine.train_logprobs(some, lambda logprobs, _: (-logprobs.mean(), {}), lr=1e-5, temperature=1.0)


class _HostMeter:
    """Memory of this process that is in use, by the kernel's count. Source: proc_pid_status(5), proc(5).

    Large blocks go back to the system as soon as they are freed where `MALLOC_MMAP_THRESHOLD_` says so from
    the process's start.
    """

    def __init__(self) -> None:
        self.now()
        Path("/proc/self/clear_refs").write_text("5")

    def now(self) -> int:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        return self._read("VmRSS")

    def peak(self) -> int:
        return self._read("VmHWM")

    def _read(self, name: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:"))


class _CudaMeter:
    """Memory of tensors on the device, by the allocator's count."""

    def __init__(self) -> None:
        gc.collect()
        torch.cuda.reset_peak_memory_stats()

    def now(self) -> int:
        gc.collect()
        return torch.cuda.memory_allocated()

    def peak(self) -> int:
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated()


def check_calls(calls: list[tuple[str, torch.dtype, Kind]], groups: Groups, device: str) -> None:
    """Every call takes what is predicted, to within a tenth."""
    lines, wrong = [], False
    for name, dtype, kind in calls:
        case, layout = CASES[name], groups.placement.layout
        expected = predicted(case, kind, dtype, layout, groups.place, device)
        found = measured(case, kind, dtype, groups, device)
        if _any_rank(groups, _is_off(expected, found)):
            # The system may take pages of libraries back, or fault them in, in the midst of a call.
            found = measured(case, kind, dtype, groups, device)
        error = expected.total_bytes / found - 1
        wrong |= _is_off(expected, found)
        lines.append(
            f"{name:15} {str(dtype)[6:]:8} {kind:9} {layout}@{groups.rank} "
            f"{expected.total_bytes / 2**20:6.1f} MiB predicted, {found / 2**20:6.1f} measured {error:+.1%}"
        )
        if groups.mesh is not None:
            dist.barrier(groups.mesh)
    assert not wrong, "\n".join(["a prediction is off by more than a tenth, twice", *lines])


def _is_off(expected: MemoryUse, found: int) -> bool:
    return abs(expected.total_bytes / found - 1) > 0.1


def _any_rank(groups: Groups, holds: bool) -> bool:
    """Whether something holds on any of the ranks, which go on alike."""
    if groups.mesh is None:
        return holds
    answers: list[bool] = [False] * groups.placement.layout.size
    dist.all_gather_object(answers, holds, group=groups.mesh)
    return any(answers)
