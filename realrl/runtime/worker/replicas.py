"""A worker's models: one engine for each placement that they have here, and how weights move between them."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from realrl.api.config import RunConfig, TrainingConfig
from realrl.api.graph import OWN_ENGINE
from realrl.api.mesh import Placement
from realrl.api.messages import Recovery
from realrl.api.recipe import ModelSpec
from realrl.api.traits import needed_generation
from realrl.engines.engine import NO_WEIGHTS, Engine
from realrl.engines.vllm.engine import VLLMEngine
from realrl.engines.vllm.fits import longest
from realrl.layouts.layout import Layout
from realrl.layouts.plan import cached_plan
from realrl.layouts.topology import Topology
from realrl.models.config import DecoderConfig
from realrl.models.layout import decoder_layout
from realrl.models.registry import load_family, read_decoder_config, read_family
from realrl.parallel.groups import Groups
from realrl.program.instructions import Offload, Reallocate, Release, Save, Weights
from realrl.realloc import checkpoint
from realrl.realloc.transfer import Transfer, TransferSettings
from realrl.runtime.model_directories import resolve_model

logger = logging.getLogger(__name__)

_PIECES = 2
"""Of the tokens of tensor-parallel ranks: one's message and another's product at a time. More would make
messages and products smaller, and each has a time that it takes at any size."""

_OF_WEIGHTS = (".index.json", "adapter_config.json", "trainer_state.json")
"""How files end that describe weights of other files or another training."""


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
        config: RunConfig,
        device: str,
        topology: Topology,
        settings: TransferSettings,
        changed: Collection[str] = (),
        recovery: Recovery | None = None,
    ) -> None:
        """`changed`: models that have other weights in the recovery, if there is one, than in their files."""
        self._recovery, self._changed = recovery, changed
        self._specs, self._rank, self._device = specs, rank, device
        self._topology, self._settings = topology, settings
        self._directories = {
            name: resolve_model(spec.model.path, spec.model.commit) for name, spec in specs.items()
        }
        self._decoders: dict[str, DecoderConfig] = {}
        for model, path in self._directories.items():
            family = load_family(specs[model].model.family)
            self._decoders[model] = read_decoder_config(path, family)
        self._homes = homes
        self._transfers: dict[tuple[Weights, Weights], Transfer] = {}
        self._engines: dict[Weights, Engine | VLLMEngine] = {}
        for weights in sorted(set(used)):
            if rank in weights.placement.ranks:
                self._engines[weights] = self._make(weights, groups, config)

    def engine(self, weights: Weights) -> Engine | VLLMEngine:
        return self._engines[weights]

    def end_decodings(self, generating: Weights | None) -> None:
        """Let engines give back what they keep between generations, except one that will generate next."""
        for weights, engine in self._engines.items():
            if weights != generating and isinstance(engine, Engine):
                engine.end_decoding()

    def reallocate(self, instruction: Reallocate) -> None:
        """This rank's part; until it is done, the target counts as absent.

        Collective: over both placements.
        """
        origin = Weights(instruction.model, instruction.source)
        goal = Weights(instruction.into, instruction.target, instruction.engine)
        self.end_decodings(goal)
        if self._rank in origin.placement.ranks:
            check_version(self.engine(origin), instruction.version, origin.model)
        weights = self._weights(origin), self._weights(goal)
        if self._rank in goal.placement.ranks:
            self.engine(goal).version = NO_WEIGHTS
        self._transfer(origin, goal).run(*weights, version=instruction.version, eta=instruction.eta)
        if self._rank in goal.placement.ranks:
            self.engine(goal).version = instruction.version

    def offload(self, instruction: Offload) -> None:
        self.end_decodings(None)
        engine = self.engine(Weights(instruction.model, instruction.placement))
        if instruction.back:
            engine.onload()
        else:
            engine.offload()

    def release(self, instruction: Release) -> None:
        self.engine(Weights(instruction.model, instruction.placement, instruction.engine)).release()

    def save(self, instruction: Save) -> None:
        """This rank's file of a checkpoint. Collective: over the model's home."""
        home = Weights(instruction.model, instruction.placement)
        model, placement, _ = home
        directory = Path(instruction.directory) / model
        directory.mkdir(parents=True, exist_ok=True)
        checkpoint.save(
            directory,
            self._layout(home),
            self._weights(home),
            rank=self._rank,
            ranks=placement.ranks,
            dtype=self._dtype(home),
            topology=self._topology,
            settings=self._settings,
        )
        if self._rank == placement.ranks[0]:
            _copy_description(self._directories[model], directory, self._specs[model])

    def close(self) -> None:
        """End what the engines run beside this process."""
        for engine in self._engines.values():
            if isinstance(engine, VLLMEngine):
                engine.close()

    def _make(
        self, weights: Weights, groups: Mapping[Placement, Groups], config: RunConfig
    ) -> Engine | VLLMEngine:
        own = groups[weights.placement]
        return (self._make_own if weights.engine == OWN_ENGINE else self._make_vllm)(weights, own, config)

    def _make_vllm(self, weights: Weights, groups: Groups, config: RunConfig) -> VLLMEngine:
        return VLLMEngine(
            self._decoders[weights.model],
            groups,
            directory=self._directories[weights.model],
            dtype=self._dtype(weights),
            device=self._device,
            generation=needed_generation(config),
            max_tokens=longest(config, self._decoders[weights.model]),
        )

    def _make_own(self, weights: Weights, groups: Groups, config: RunConfig) -> Engine:
        spec, is_home = self._specs[weights.model], self._is_home(weights)
        # On CPUs, gloo sums whole tensors to give shares of them, and sums in the background gained no time.
        on_cuda = self._device.startswith("cuda")
        engine = Engine(
            self._decoders[weights.model],
            spec.head,
            groups,
            dtype=self._dtype(weights),
            device=self._device,
            max_tokens_per_microbatch=config.max_tokens_per_microbatch,
            deterministic=config.deterministic and not on_cuda,
            **_training_options(config),
            sequence_pieces=_PIECES if on_cuda else 0,
            sum_early=on_cuda,
            optimizer=spec.optimizer if is_home else None,
        )
        if is_home:
            self._fill(engine, weights.model)
            if spec.model.offload:
                engine.offload()
        return engine

    def _fill(self, engine: Engine, model: str) -> None:
        if self._recovery and model in self._changed:
            engine.restore(Path(self._recovery.directory) / model, version=self._recovery.step)
        else:
            engine.load(self._directories[model])

    def _transfer(self, origin: Weights, goal: Weights) -> Transfer:
        if (origin, goal) not in self._transfers:
            dtypes = self._dtype(origin), self._dtype(goal)
            self._transfers[origin, goal] = Transfer(
                cached_plan(self._layout(origin), self._layout(goal), self._topology),
                rank=self._rank,
                settings=self._settings,
                wire_dtype=min(dtypes, key=lambda dtype: dtype.itemsize) if dtypes[0] != dtypes[1] else None,
            )
        return self._transfers[origin, goal]

    def _layout(self, weights: Weights) -> Layout:
        head = self._specs[weights.model].head
        return decoder_layout(self._decoders[weights.model], weights.placement, head)

    def _weights(self, weights: Weights) -> dict[str, Tensor]:
        engine = self._engines.get(weights)
        return engine.local_tensors() if engine else {}

    def _dtype(self, weights: Weights) -> torch.dtype:
        model = self._specs[weights.model].model
        return getattr(torch, model.dtype if self._is_home(weights) else model.away_dtype)

    def _is_home(self, weights: Weights) -> bool:
        return weights == Weights(weights.model, self._homes[weights.model])


def _training_options(config: RunConfig) -> dict[str, bool]:
    """What an engine is told by a run that trains."""
    if not isinstance(config, TrainingConfig):
        return {}
    return {
        "share_prompts": config.share_prompts,
        "gradient_checkpointing": config.gradient_checkpointing,
    }


def check_version(engine: Engine | VLLMEngine, expected: int, model: str) -> None:
    """Refuse weights that are not those that the schedule wants here."""
    if engine.version != expected:
        has = (
            "no whole weights" if engine.version == NO_WEIGHTS else f"version {engine.version} of its weights"
        )
        raise RuntimeError(f"{model} has {has} here, not version {expected}, which is due")


def _copy_description(source: Path, directory: Path, spec: ModelSpec) -> None:
    """All of a model's directory but its weights: config, tokenizer, chat template."""
    for file in source.iterdir():
        if file.suffix in (".json", ".txt", ".jinja", ".model") and not file.name.endswith(_OF_WEIGHTS):
            shutil.copyfile(file, directory / file.name)
    tokenizer_file = directory / "tokenizer_config.json"
    if tokenizer_file.is_file():
        tokenizer = json.loads(tokenizer_file.read_text(encoding="utf-8"))
        if tokenizer.pop("auto_map", None):
            tokenizer_file.write_text(json.dumps(tokenizer, indent=2) + "\n", encoding="utf-8")
    config_file = directory / "config.json"
    config = json.loads(config_file.read_text(encoding="utf-8"))
    # The weights are of another type now, and code does not come along.
    for key in ("torch_dtype", "auto_map", "quantization_config", "compression_config"):
        config.pop(key, None)
    config["dtype"] = spec.model.dtype
    if spec.head == "scalar":
        family = read_family(source, load_family(spec.model.family))
        config |= {"architectures": [family.classifier], "num_labels": 1}
    config_file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
