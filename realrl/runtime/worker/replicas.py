"""A worker's models: one engine for each placement here, and weights that move between them."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from realrl.api.config import RunConfig, TrainingConfig
from realrl.api.engine import NO_WEIGHTS, Engine, HomeEngine
from realrl.api.graph import OWN_ENGINE
from realrl.api.mesh import Placement
from realrl.api.messages import Recovery
from realrl.api.recipe import ModelSpec
from realrl.api.traits import needed_generation
from realrl.engines.decoder_engine import DecoderEngine
from realrl.engines.options import EngineOptions
from realrl.engines.vllm.engine import VLLMEngine
from realrl.engines.vllm.fits import longest
from realrl.layouts.layout import Layout
from realrl.layouts.plan import cached_plan
from realrl.layouts.topology import Topology
from realrl.models.config import DecoderConfig
from realrl.models.layout import decoder_layout
from realrl.models.registry import load_family, read_decoder_config, read_family
from realrl.parallel.groups import Groups
from realrl.program.instructions import Offload, Reallocate, Save
from realrl.program.resources import Weights
from realrl.realloc import checkpoint
from realrl.realloc.transfer import Transfer, TransferSettings
from realrl.runtime.model_directories import resolve_model

logger = logging.getLogger(__name__)

_PIECES = 2
"""Pieces of the tokens of tensor-parallel ranks: one is sent while another is multiplied. More pieces would
make messages and products smaller, and each takes some time at any size."""

_OF_WEIGHTS = (".index.json", "adapter_config.json", "trainer_state.json")
"""Endings of files that describe the weights of other files or another training."""


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
        """Make this rank's engines of the `used` weights.

        `changed`: models whose weights in the recovery, if there is one, differ from those in their files.
        """
        self._specs = specs
        self._homes = homes
        self._rank = rank
        self._device = device
        self._topology = topology
        self._settings = settings
        self._changed = changed
        self._recovery = recovery
        self._directories: dict[str, Path] = {}
        self._decoders: dict[str, DecoderConfig] = {}
        for name, spec in specs.items():
            directory = resolve_model(spec.model.path, spec.model.commit)
            self._directories[name] = directory
            family = load_family(spec.model.family)
            self._decoders[name] = read_decoder_config(directory, family)
        self._transfers: dict[tuple[Weights, Weights], Transfer] = {}
        self._engines: dict[Weights, Engine] = {}
        self._at_home: dict[str, HomeEngine] = {}
        for weights in sorted(set(used)):
            if rank in weights.placement.ranks:
                self._add(weights, groups[weights.placement], config)

    def engine(self, weights: Weights) -> Engine:
        """Return the engine of a model at a placement of this rank."""
        return self._engines[weights]

    def at_home(self, model: str) -> HomeEngine:
        """Return the engine of a model that lives on this rank."""
        return self._at_home[model]

    def end_decodings(self, generating: Weights | None) -> None:
        """Let engines free what they keep between generations, except one that will generate next."""
        for weights, engine in self._engines.items():
            if weights != generating:
                engine.end_decoding()

    def reallocate(self, instruction: Reallocate) -> None:
        """Carry out this rank's part; until it is done, the target's weights count as absent.

        Collective: over both placements.
        """
        origin = Weights(instruction.model, instruction.source)
        goal = Weights(instruction.into, instruction.target, instruction.engine)
        is_origin = self._rank in origin.placement.ranks
        is_goal = self._rank in goal.placement.ranks
        self.end_decodings(goal)
        if is_origin:
            check_version(self.engine(origin), instruction.version, origin.model)
        source = self._weights(origin)
        target = self._weights(goal)
        if is_goal:
            self.engine(goal).version = NO_WEIGHTS

        # Planned once: the same weights move in every step.
        if (origin, goal) not in self._transfers:
            dtypes = (self._dtype(origin), self._dtype(goal))
            narrower = min(dtypes, key=lambda dtype: dtype.itemsize)
            self._transfers[origin, goal] = Transfer(
                cached_plan(self._layout(origin), self._layout(goal), self._topology),
                rank=self._rank,
                settings=self._settings,
                wire_dtype=narrower if dtypes[0] != dtypes[1] else None,
            )
        transfer = self._transfers[origin, goal]
        transfer.run(source, target, version=instruction.version, eta=instruction.eta)
        if is_goal:
            self.engine(goal).version = instruction.version

    def offload(self, instruction: Offload) -> None:
        """Move a model to host memory, or begin to bring it back."""
        self.end_decodings(None)
        engine = self.at_home(instruction.model)
        if instruction.back:
            engine.onload()
        else:
            engine.offload()

    def save(self, instruction: Save) -> None:
        """Write this rank's file of a checkpoint. Collective: over the model's home."""
        model = instruction.model
        placement = instruction.placement
        home = Weights(model, placement)
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
        """End what the engines run outside of this process."""
        for engine in self._engines.values():
            engine.close()

    def _add(self, weights: Weights, groups: Groups, config: RunConfig) -> None:
        """Make the engine of a model at a placement; the model's own weights are loaded at its home."""
        if weights.engine != OWN_ENGINE:
            self._engines[weights] = self._make_vllm(weights, groups, config)
            return
        model = weights.model
        engine = self._make_own(weights, groups, config)
        self._engines[weights] = engine
        if self._is_home(weights):
            self._at_home[model] = engine
            self._fill(engine, model)
            if self._specs[model].model.offload:
                engine.offload()

    def _make_vllm(self, weights: Weights, groups: Groups, config: RunConfig) -> VLLMEngine:
        decoder = self._decoders[weights.model]
        return VLLMEngine(
            decoder,
            groups,
            directory=self._directories[weights.model],
            dtype=self._dtype(weights),
            device=self._device,
            generation=needed_generation(config),
            max_tokens=longest(config, decoder),
        )

    def _make_own(self, weights: Weights, groups: Groups, config: RunConfig) -> DecoderEngine:
        spec = self._specs[weights.model]
        # On CPUs, gloo sums whole tensors to give shares of them, and sums in the background gained no time.
        on_cuda = self._device.startswith("cuda")
        options = EngineOptions(
            dtype=self._dtype(weights),
            device=self._device,
            max_tokens_per_microbatch=config.max_tokens_per_microbatch,
            deterministic=config.deterministic and not on_cuda,
            sequence_pieces=_PIECES if on_cuda else 0,
            sum_early=on_cuda,
            optimizer=spec.optimizer if self._is_home(weights) else None,
        )
        if isinstance(config, TrainingConfig):
            options = replace(
                options,
                share_prompts=config.share_prompts,
                gradient_checkpointing=config.gradient_checkpointing,
            )
        return DecoderEngine(self._decoders[weights.model], spec.head, groups, options)

    def _fill(self, engine: HomeEngine, model: str) -> None:
        """Load a model's weights from its files, or from the recovery if they have changed."""
        if self._recovery and model in self._changed:
            directory = Path(self._recovery.directory) / model
            engine.restore(directory, version=self._recovery.step)
        else:
            engine.load(self._directories[model])

    def _layout(self, weights: Weights) -> Layout:
        head = self._specs[weights.model].head
        return decoder_layout(self._decoders[weights.model], weights.placement, head)

    def _weights(self, weights: Weights) -> Mapping[str, Tensor]:
        """Return this rank's local tensors of a model at a placement; none if it is not of that placement."""
        engine = self._engines.get(weights)
        return engine.local_tensors() if engine else {}

    def _dtype(self, weights: Weights) -> torch.dtype:
        model = self._specs[weights.model].model
        name = model.dtype if self._is_home(weights) else model.away_dtype
        dtype: torch.dtype = getattr(torch, name)
        return dtype

    def _is_home(self, weights: Weights) -> bool:
        return weights == Weights(weights.model, self._homes[weights.model])


def check_version(engine: Engine, expected: int, model: str) -> None:
    """Check that an engine has the weights that the schedule wants.

    Raises:
        RuntimeError: it has another version.
    """
    version = engine.version
    if version == expected:
        return
    has = "no whole weights" if version == NO_WEIGHTS else f"version {version} of its weights"
    raise RuntimeError(f"{model} has {has} here, not version {expected}, which is due")


def _copy_description(source: Path, directory: Path, spec: ModelSpec) -> None:
    """Copy a model's directory except its weights: config, tokenizer, chat template."""
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
