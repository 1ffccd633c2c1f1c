"""The first step of a run of PPO, in this process: its calls one after the other on one rank."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoTokenizer

from realrl.api.batch import PackedBatch
from realrl.api.device_metrics import read
from realrl.api.mesh import DeviceMesh, ParallelLayout, Placement
from realrl.api.metrics import Metrics, joined
from realrl.api.recipe import CallContext, ModelSpec, Observed
from realrl.engines.decoder_engine import DecoderEngine
from realrl.engines.options import EngineOptions
from realrl.models.registry import read_decoder_config
from realrl.parallel.groups import local_groups
from realrl.program.jobs import samples_of
from realrl.recipes.ppo_math import PPO_MATH, PPOMathConfig
from realrl.runtime.master.job_report import values

ALONE = Placement(DeviceMesh((0,)), ParallelLayout())


def first_step(config: PPOMathConfig) -> list[str]:
    """What the step shows to be wrong."""
    tokenizer = AutoTokenizer.from_pretrained(config.actor.model.path)
    dataset, _ = PPO_MATH.datasets(config, tokenizer)
    engines = {name: _engine(spec) for name, spec in PPO_MATH.models(config).items()}
    batch, metrics, records = _prompts(config, dataset), {}, []
    for call in PPO_MATH.graph(config).calls.values():
        context = CallContext(
            config=config,
            step=0,
            eval_set="",
            engine=engines.get(call.model),
            dataset=dataset,
            tokenizer=tokenizer,
            reduce=lambda tensor: tensor,
            reduce_mesh=lambda tensor: tensor,
        )
        output = PPO_MATH.bodies[call.name](context, batch)
        batch, metrics = output.batch or batch, joined(metrics, output.metrics)
        records += output.records
    seen = Observed(values(read(_of_something(metrics))), records, is_first_step=True)
    return PPO_MATH.symptoms(config, tokenizer, seen)


def _of_something(metrics: Metrics) -> Metrics:
    """As a report does: without means of nothing."""
    return {name: metric for name, metric in metrics.items() if getattr(metric, "weight", 1.0)}


def _engine(spec: ModelSpec) -> DecoderEngine:
    directory = Path(spec.model.path)
    engine = DecoderEngine(
        read_decoder_config(directory),
        spec.head,
        local_groups(ALONE),
        EngineOptions(
            dtype=torch.float32, device="cpu", max_tokens_per_microbatch=4096, optimizer=spec.optimizer
        ),
    )
    engine.load(directory)
    return engine


def _prompts(config: PPOMathConfig, dataset) -> PackedBatch:
    rows = range(config.batch_size)
    samples = samples_of(rows, config.ppo.group_size)
    prompts = [dataset.tensors(sample.row)["prompts"] for sample in samples]
    lengths = torch.tensor([0, *map(len, prompts)])
    return PackedBatch(samples, lengths.cumsum(0).to(torch.int32), {"prompts": torch.cat(prompts)})
