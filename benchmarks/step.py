"""Times steps of group-relative PPO on sums, as the recipe `ppo-math` makes them, beside another system."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from statistics import median

import msgspec
import torch

from benchmarks import single_process as alone
from benchmarks.engine_options import Workload
from benchmarks.peer import Peer, StepJob, SumPrompt
from realrl.api.batch import PackedBatch
from realrl.api.config import GenerationConfig, ModelConfig, OptimizerConfig, TrainedModelConfig
from realrl.api.data import DataConfig
from realrl.api.device_metrics import read
from realrl.api.metrics import Mean, joined
from realrl.api.recipe import CallContext
from realrl.datasets.prompts import PromptDataset
from realrl.program.jobs import samples_of
from realrl.recipes.ppo_math import PPO_MATH, PPOMathConfig, PPOMathSettings
from realrl.runtime.master.schedule import epoch_rows
from realrl.runtime.model_directories import load_tokenizer

OURS = "realrl"
_CALLS = ("actor_gen", "reward", "advantages", "actor_train")


@dataclass(frozen=True, kw_only=True)
class Settings(Workload):
    """What a step is, and beside what."""

    peer_dtype: str
    new_tokens: int
    fixed_length: bool
    """Whether each response has exactly `new_tokens` tokens."""
    lr: float
    seed: int
    against: str | None


class Row(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One system."""

    system: str
    dtype: str
    seconds: float
    """Of a step, median over the rounds."""
    tokens_per_s: float
    """Generated ones."""
    samples_per_s: float
    peak_memory_bytes: int
    rewards: list[float]
    """Mean over the samples of each step."""
    phases_s: dict[str, float] | None = None
    """By call, median over the rounds."""
    ratio: float | None = None
    """The other system's seconds over ours, median over the rounds; with the least and the largest."""
    ratio_least: float | None = None
    ratio_largest: float | None = None


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """One step of ours."""

    seconds: float
    tokens: int
    reward: float
    phases_s: dict[str, float]


class Steps:
    """The recipe's calls one after the other, on one rank in this process."""

    def __init__(self, settings: Settings) -> None:
        self.config = _config(settings)
        tokenizer = load_tokenizer(Path(settings.model))
        self.dataset, _ = PPO_MATH.datasets(self.config, tokenizer)
        self._tokenizer = tokenizer
        self._engine = alone.load_engine(
            settings.model,
            settings.dtype,
            settings.device,
            max_tokens_per_microbatch=self.config.max_tokens_per_microbatch,
            optimizer=self.config.actor.optimizer,
        )
        self._device = settings.device
        self._numbers = count()

    def rows(self, step: int) -> list[int]:
        return epoch_rows(len(self.dataset), self.config.batch_size, step, self.config.seed)

    def run(self) -> Figures:
        """The next step."""
        step = next(self._numbers)
        batch, metrics, phases_s = self._prompts(step), {}, {}
        for call in _CALLS:
            begin_s = time.perf_counter()
            output = PPO_MATH.bodies[call](self._context(call, step), batch)
            phases_s[call] = time.perf_counter() - begin_s
            batch, metrics = output.batch or batch, joined(metrics, read(output.metrics))
        self._engine.version = step + 1
        return Figures(
            seconds=sum(phases_s.values()),
            tokens=int(batch["loss_mask"].sum()),
            reward=_mean(metrics["reward"]),
            phases_s=phases_s,
        )

    def _prompts(self, step: int) -> PackedBatch:
        rows = self.rows(step)
        prompts = [self.dataset.tensors(row)["prompts"].tolist() for row in rows]
        batch = alone.prompts_batch(prompts, self.config.ppo.group_size)
        return PackedBatch(samples_of(rows, self.config.ppo.group_size), batch.cu_seqlens, batch.tokens)

    def _context(self, call: str, step: int) -> CallContext:
        return CallContext(
            config=self.config,
            step=step,
            eval_set="",
            engine=None if call in ("reward", "advantages") else self._engine,
            dataset=self.dataset,
            tokenizer=self._tokenizer,
            reduce=lambda tensor: tensor,
            reduce_mesh=lambda tensor: tensor,
        )


def measure(settings: Settings) -> Iterator[Row]:
    """The other system's row, if there is one, then ours."""
    steps, ours, answers, numbers = Steps(settings), [], [], count()
    peaks = [0]

    def our_step() -> float:
        alone.reset_peak_memory(settings.device)
        ours.append(steps.run())
        peaks[0] = max(peaks[0], alone.peak_memory_bytes(settings.device))
        return ours[-1].seconds

    def their_step() -> float:
        answers.append(peer.round(next(numbers)))
        return answers[-1].seconds

    methods = {OURS: our_step}
    with Peer(settings.against, _job(settings, steps)) if settings.against else nullcontext() as peer:
        if peer:
            methods[settings.against] = their_step
        times = alone.in_turn(methods, settings.rounds)
    if settings.trace:
        alone.trace(steps.run, settings.device, settings.trace)
    if peer:
        peak_bytes = max(answer.peak_memory_bytes for answer in answers)
        rewards = [answer.mean_reward for answer in answers]
        tokens = median(answer.tokens for answer in answers)
        yield Row(
            dtype=settings.peer_dtype,
            **_common(settings, settings.against, times, tokens, peak_bytes),
            rewards=rewards,
        )
    ratios = [theirs / mine for theirs, mine in zip(times.get(settings.against, ()), times[OURS])]
    yield Row(
        dtype=settings.dtype,
        **_common(settings, OURS, times, median(step.tokens for step in ours), peaks[0]),
        rewards=[step.reward for step in ours],
        phases_s=_medians([step.phases_s for step in ours[1:]]),
        **(alone.spread(ratios) if ratios else {}),
    )


def _common(
    settings: Settings, system: str, times: Mapping[str, list[float]], tokens: float, peak_bytes: int
) -> dict:
    seconds = median(times[system])
    return {
        "system": system,
        "seconds": seconds,
        "tokens_per_s": tokens / seconds,
        "samples_per_s": settings.num_prompts * settings.group_size / seconds,
        "peak_memory_bytes": peak_bytes,
    }


def _config(settings: Settings) -> PPOMathConfig:
    fixed = settings.new_tokens if settings.fixed_length else 0
    return PPOMathConfig(
        seed=settings.seed,
        num_steps=settings.rounds + 1,
        batch_size=settings.num_prompts,
        max_tokens_per_microbatch=4096,
        actor=TrainedModelConfig(
            model=ModelConfig(path=str(settings.model), dtype=settings.dtype),
            optimizer=OptimizerConfig(lr=settings.lr),
        ),
        data=DataConfig(path="sums", template="plain"),
        generation=GenerationConfig(max_new_tokens=settings.new_tokens, min_new_tokens=fixed),
        ppo=PPOMathSettings(group_size=settings.group_size, kl_coef=0.0),
    )


def _job(settings: Settings, steps: Steps) -> StepJob:
    rows = [row for step in range(settings.rounds + 1) for row in steps.rows(step)]
    return StepJob(
        model=str(settings.model),
        dtype=settings.peer_dtype,
        threads=torch.get_num_threads(),
        seed=settings.seed,
        prompts=[_sum_prompt(steps.dataset, row) for row in rows],
        prompts_per_step=settings.num_prompts,
        group_size=settings.group_size,
        max_new_tokens=settings.new_tokens,
        fixed_length=settings.fixed_length,
        lr=settings.lr,
        kl_coef=0.0,
    )


def _sum_prompt(dataset: PromptDataset, row: int) -> SumPrompt:
    return SumPrompt(dataset.prompt(row), dataset.solutions(row)[0])


def _mean(metric: Mean) -> float:
    return metric.total / metric.weight


def _medians(rows: list[dict[str, float]]) -> dict[str, float]:
    columns = defaultdict(list)
    for row in rows:
        for name, value in row.items():
            columns[name].append(value)
    return {name: median(values) for name, values in columns.items()}
