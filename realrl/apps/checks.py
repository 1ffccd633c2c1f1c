"""All that can be found wrong before a worker starts. Each check raises ValueError with one message."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch

from realrl.api.allocation import parse_allocation
from realrl.api.config import GenerationConfig, ModelConfig, RunConfig
from realrl.api.graph import CallKind, DataflowGraph
from realrl.api.mesh import DeviceMesh, ExecutionPlan, ParallelLayout, Placement
from realrl.api.recipe import Dataset, ModelSpec, Recipe
from realrl.datasets.demo import resolve_model
from realrl.models.config import DecoderConfig, read_decoder_config
from realrl.models.layout import SCALAR_HEAD, check_fits, decoder_layout
from realrl.realloc.checkpoint import file_layout
from realrl.runtime.program import home_placements


@dataclass(frozen=True)
class FoundModel:
    """A model of the recipe, with what its directory says."""

    path: str
    """The config key that names its directory."""
    spec: ModelSpec
    directory: Path
    decoder: DecoderConfig


def make_plan(recipe: Recipe, config: RunConfig) -> ExecutionPlan:
    """The plan that the config asks for, over the calls of training and of evaluation.

    A call without a model has nothing to cut: each of its ranks takes a share of the samples.
    """
    calls = {**recipe.eval_graph(config).calls, **recipe.graph(config).calls}
    generate_calls = [name for name, call in calls.items() if call.kind is CallKind.GENERATE]
    plan = parse_allocation(config.allocation, list(calls), generate_calls, config.placements)
    home_placements(recipe.graph(config), plan)
    without_model = {name: plan[name].data_parallel() for name, call in calls.items() if call.model is None}
    return ExecutionPlan({**plan.placements, **without_model})


def check_run(recipe: Recipe, config: RunConfig, plan: ExecutionPlan) -> dict[str, FoundModel]:
    """Check all that does not depend on this machine's devices; returns the models."""
    graph = recipe.graph(config)
    _check_batch(recipe, config, graph, plan)
    models = {name: _find(_path_of(config, spec.model), spec) for name, spec in recipe.models(config).items()}
    _check_layouts(config, recipe, plan, models)
    _check_vocabularies(models)
    recipe.validate(config, {name: model.decoder for name, model in models.items()})
    _check_data(recipe, config, models)
    return models


def check_machine(config: RunConfig, plan: ExecutionPlan, models: Mapping[str, FoundModel]) -> None:
    """Check what a start needs beyond `check_run`: devices, weights, and a place for the outputs."""
    if config.device == "cuda":
        _check_devices(plan)
    for model in models.values():
        _check_weights(model)
    _check_outputs(config)


def _check_batch(recipe: Recipe, config: RunConfig, graph: DataflowGraph, plan: ExecutionPlan) -> None:
    """Every data-parallel rank of every call gets something to do."""
    num_samples = config.batch_size * recipe.samples_per_row(config)
    for call in (call for call in graph.calls.values() if call.model is not None):
        share, what = num_samples // call.num_minibatches, "samples"
        if call.num_minibatches > 1:
            what = f"samples in each of {call.num_minibatches} mini-batches"
        if call.kind is CallKind.GENERATE:
            share, what = config.batch_size, "prompts"
        if (dp := plan[call.name].layout.dp) > share:
            raise ValueError(
                f"{_place(config, call.name)}: d{dp} needs at least {dp} {what}, "
                f"batch_size={config.batch_size} gives {share}; raise batch_size or take a smaller d"
            )


def _find(path: str, spec: ModelSpec) -> FoundModel:
    try:
        directory = resolve_model(spec.model.path)
        return FoundModel(path, spec, directory, read_decoder_config(directory))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: {spec.model.path}: its config.json is not JSON: {error}") from None
    except KeyError as error:
        raise ValueError(f"{path}: {spec.model.path}: its config.json lacks {error}") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


def _check_layouts(
    config: RunConfig, recipe: Recipe, plan: ExecutionPlan, models: Mapping[str, FoundModel]
) -> None:
    for graph in (recipe.graph(config), recipe.eval_graph(config)):
        for call in graph.calls.values():
            if call.model is not None:
                check_fits(models[call.model].decoder, plan[call.name].layout, _place(config, call.name))


def _check_vocabularies(models: Mapping[str, FoundModel]) -> None:
    """Token ids go from one model to another as they are."""
    reference, *others = models.values()
    for model in others:
        if model.decoder.vocab_size != reference.decoder.vocab_size:
            raise ValueError(
                f"{model.path}: its vocabulary has {model.decoder.vocab_size} tokens, that of "
                f"{reference.path} {reference.decoder.vocab_size}; models of one run need one tokenizer"
            )


def _check_data(recipe: Recipe, config: RunConfig, models: Mapping[str, FoundModel]) -> None:
    tokenizer = load_tokenizer(next(iter(models.values())).directory)
    rows, held_out = recipe.datasets(config, tokenizer)
    for path, dataset in (("data.path", rows), ("data.eval_path", held_out)):
        if dataset is not None:
            for name, model in models.items():
                _check_context(path, dataset, _max_new_tokens(config), name, model)


def load_tokenizer(directory: Path) -> Any:
    """The tokenizer in a model directory."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(directory, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"{directory}: its tokenizer cannot be loaded ({first_line}); copy the tokenizer's files there"
        ) from None


def _check_context(path: str, dataset: Dataset, new_tokens: int, name: str, model: FoundModel) -> None:
    if not len(dataset):
        raise ValueError(f"{path}: expected at least one row, got none")
    longest = max(range(len(dataset)), key=dataset.length)
    length, limit = dataset.length(longest), model.decoder.max_position
    if length + new_tokens > limit:
        more = f" and generation.max_new_tokens={new_tokens}" if new_tokens else ""
        raise ValueError(
            f"{path}: row {longest + 1} has {length} tokens; that{more} exceeds the {limit} tokens of "
            f"model {name}'s context; shorten the row or lower the length"
        )


def _max_new_tokens(config: RunConfig) -> int:
    generation = getattr(config, "generation", None)
    return generation.max_new_tokens if isinstance(generation, GenerationConfig) else 0


def _check_devices(plan: ExecutionPlan) -> None:
    if not torch.cuda.is_available():
        raise ValueError("device: expected a CUDA device for 'cuda', this machine has none; set device: cpu")
    if plan.num_workers > torch.cuda.device_count():
        raise ValueError(
            f"allocation: {plan.num_workers} ranks need as many CUDA devices, this machine has "
            f"{torch.cuda.device_count()}; take smaller layouts"
        )


def _check_weights(model: FoundModel) -> None:
    """The checkpoint's headers list every weight; a scalar head may be missing, it then starts afresh."""
    placement = Placement(DeviceMesh((0,)), ParallelLayout())
    wanted = decoder_layout(model.decoder, placement, model.spec.head).by_tensor.keys() - {SCALAR_HEAD}
    try:
        missing = sorted(wanted - file_layout(model.directory).by_tensor.keys())
    except (OSError, ValueError) as error:
        raise ValueError(f"{model.path}: {error}") from None
    if missing:
        raise ValueError(f"{model.path}: {model.directory}: no weight {missing[0]} in its safetensors files")


def _check_outputs(config: RunConfig) -> None:
    """The run makes its own directory; here only the one above it."""
    directory = Path(config.runs_dir, config.experiment)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise ValueError(
            f"runs_dir: cannot write to {directory}: {error.strerror}; give another runs_dir"
        ) from None


def _place(config: RunConfig, call: str) -> str:
    """Where in the config the call got its layout."""
    return f"placements.{call}" if call in config.placements else f"allocation: {call}"


def _path_of(config: RunConfig, model: ModelConfig) -> str:
    """The key that names the model's directory."""
    return next((f"{path}.path" for path, section in _sections(config, "") if section is model), "model")


def _sections(section: Any, path: str) -> Iterator[tuple[str, Any]]:
    yield path, section
    for field in fields(section):
        inner = getattr(section, field.name)
        if is_dataclass(inner):
            yield from _sections(inner, f"{path}.{field.name}" if path else field.name)
