"""A worker's models: one engine for each placement that they have here, and how weights move between them."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from realrl.api.mesh import Placement
from realrl.api.messages import Reallocate, Release, Save
from realrl.api.recipe import ModelSpec
from realrl.datasets.demo import resolve_model
from realrl.engines.engine import Engine
from realrl.layouts.layout import Layout
from realrl.layouts.plan import TransferPlan, plan
from realrl.models.config import read_decoder_config
from realrl.models.layout import decoder_layout
from realrl.parallel.groups import Groups
from realrl.realloc import checkpoint
from realrl.realloc.execute import execute
from realrl.runtime.program import Weights

logger = logging.getLogger(__name__)


class Replicas:
    """Engines by model and placement. A replica away from home has weights only while a call needs it."""

    def __init__(
        self,
        specs: Mapping[str, ModelSpec],
        homes: Mapping[str, Placement],
        used: Iterable[Weights],
        groups: Mapping[Placement, Groups],
        *,
        rank: int,
        config: Any,
        device: str,
    ) -> None:
        self._specs, self._rank, self._device = specs, rank, device
        self._staging_bytes = config.staging_mib << 20
        self._directories = {model: resolve_model(spec.model.path) for model, spec in specs.items()}
        self._decoders = {model: read_decoder_config(path) for model, path in self._directories.items()}
        self._plans: dict[tuple[str, Placement, Placement], TransferPlan] = {}
        self._engines: dict[Weights, Engine] = {}
        for weights in sorted(set(used)):
            if rank in weights.placement.ranks:
                is_home = homes[weights.model] == weights.placement
                self._engines[weights] = self._make(weights, groups, is_home, config)

    def engine(self, model: str, placement: Placement) -> Engine:
        return self._engines[Weights(model, placement)]

    def reallocate(self, instruction: Reallocate) -> None:
        """This rank's part. Collective: over both placements."""
        model, source, target = instruction.model, instruction.source, instruction.target
        if self._rank in source.ranks:
            check_version(self.engine(model, source), instruction.version, model)
        execute(
            self._plan(model, source, target),
            self._weights(model, source),
            self._weights(model, target),
            rank=self._rank,
            staging_bytes=self._staging_bytes,
        )
        if self._rank in target.ranks:
            self.engine(model, target).version = instruction.version

    def release(self, instruction: Release) -> None:
        self.engine(instruction.model, instruction.placement).release()

    def save(self, instruction: Save) -> None:
        """This rank's file of a checkpoint. Collective: over the model's home."""
        model, placement = instruction.model, instruction.placement
        directory = Path(instruction.directory) / model
        directory.mkdir(parents=True, exist_ok=True)
        checkpoint.save(
            directory,
            self._layout(model, placement),
            self._weights(model, placement),
            rank=self._rank,
            ranks=placement.ranks,
            dtype=self._dtype(model),
            staging_bytes=self._staging_bytes,
        )
        if self._rank == placement.ranks[0]:
            _copy_description(self._directories[model], directory, self._specs[model])

    def _make(
        self, weights: Weights, groups: Mapping[Placement, Groups], is_home: bool, config: Any
    ) -> Engine:
        spec = self._specs[weights.model]
        engine = Engine(
            self._decoders[weights.model],
            spec.head,
            groups[weights.placement],
            dtype=self._dtype(weights.model),
            device=self._device,
            max_tokens_per_microbatch=config.max_tokens_per_microbatch,
            optimizer=spec.optimizer if is_home else None,
        )
        if is_home:
            engine.load(self._directories[weights.model])
        return engine

    def _plan(self, model: str, source: Placement, target: Placement) -> TransferPlan:
        key = (model, source, target)
        if key not in self._plans:
            self._plans[key] = plan(self._layout(model, source), self._layout(model, target))
        return self._plans[key]

    def _layout(self, model: str, placement: Placement) -> Layout:
        return decoder_layout(self._decoders[model], placement, self._specs[model].head)

    def _weights(self, model: str, placement: Placement) -> dict[str, Tensor]:
        engine = self._engines.get(Weights(model, placement))
        return engine.local_tensors() if engine else {}

    def _dtype(self, model: str) -> torch.dtype:
        return getattr(torch, self._specs[model].model.dtype)


def check_version(engine: Engine, expected: int, model: str) -> None:
    """The weights are those that the schedule wants here."""
    assert engine.version == expected, f"{model} has version {engine.version} of its weights, not {expected}"


def _copy_description(source: Path, directory: Path, spec: ModelSpec) -> None:
    """All of a model's directory but its weights: config, tokenizer, chat template."""
    for file in source.iterdir():
        if file.suffix in (".json", ".txt", ".jinja", ".model") and file.name != checkpoint.INDEX_FILE:
            shutil.copyfile(file, directory / file.name)
    config_file = directory / "config.json"
    config = json.loads(config_file.read_text())
    config.pop("torch_dtype", None)
    config["dtype"] = spec.model.dtype
    if spec.head == "scalar":
        config |= {"architectures": ["LlamaForSequenceClassification"], "num_labels": 1}
    config_file.write_text(json.dumps(config, indent=2) + "\n")
