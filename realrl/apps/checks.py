"""All that can be found wrong before a worker starts. Each check raises ValueError with one message."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch

from realrl.api.allocation import parse_allocation
from realrl.api.config import GenerationConfig, ModelConfig, OptimizerConfig, RunConfig, TrainingConfig
from realrl.api.data import GYM_PREFIX, DataConfig
from realrl.api.graph import CallKind, DataflowGraph, ModelFunctionCall
from realrl.api.mesh import DeviceMesh, ExecutionPlan, ParallelLayout, Placement
from realrl.api.recipe import Dataset, ModelSpec, Recipe
from realrl.apps.staleness import check_staleness
from realrl.base.watched import Steps, run_watched
from realrl.datasets.demo import resolve_model
from realrl.datasets.gym import make_gym_rows
from realrl.datasets.sums import SUMS
from realrl.datasets.tables import HUGGING_FACE
from realrl.datasets.watched import WatchedTokenizer
from realrl.engines.vllm import fits as vllm
from realrl.launch.modes import check_mode
from realrl.layouts.layout import Layout
from realrl.models.config import DecoderConfig
from realrl.models.families.keys import BUFFERS
from realrl.models.layout import check_fits, decoder_layout
from realrl.models.reading import read_decoder_config, read_family
from realrl.realloc.checkpoint import check_tensors, file_layout
from realrl.runtime.loggers.interface import check_loggers
from realrl.runtime.program import home_placements
from realrl.runtime.resume import check_same_settings, goes_on

_MOST_SAMPLES = 2**24
"""Samples of a step, which the master lists."""
ROWS_STEP_S = 60.0
"""Longest time for the chat template on a row, or the tokenizer on some rows, which takes milliseconds."""


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
    if isinstance(config, TrainingConfig):
        check_staleness(config, graph, plan)
    models = {name: _find(_path_of(config, spec.model), spec) for name, spec in recipe.models(config).items()}
    _check_layouts(config, recipe, plan, models)
    _check_vocabularies(models)
    _check_offload(config)
    recipe.validate(config, {name: model.decoder for name, model in models.items()})
    _check_data(recipe, config, models)
    if goes_on(config):
        check_same_settings(recipe, config)
    return models


def check_machine(config: RunConfig, plan: ExecutionPlan, models: Mapping[str, FoundModel]) -> None:
    """Check what a start needs beyond `check_run`: devices, weights, and a place for the outputs."""
    check_mode(config)
    check_loggers(config)
    if config.device == "cuda" and config.mode == "local":
        _check_devices(plan)
    generation = _generation(config)
    if generation and generation.engine == "vllm":
        vllm.check_installed()
    for model in models.values():
        _check_weights(model)
    _check_outputs(config)


def _check_batch(recipe: Recipe, config: RunConfig, graph: DataflowGraph, plan: ExecutionPlan) -> None:
    """Every data-parallel rank of every call gets something to do."""
    num_samples = config.batch_size * recipe.samples_per_row(config)
    if num_samples > _MOST_SAMPLES:
        raise ValueError(
            f"batch_size: {config.batch_size} rows of {recipe.samples_per_row(config)} samples are"
            f" {num_samples} samples a step, but at most {_MOST_SAMPLES} are possible; lower it"
        )
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
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


def _check_layouts(
    config: RunConfig, recipe: Recipe, plan: ExecutionPlan, models: Mapping[str, FoundModel]
) -> None:
    for graph in (recipe.graph(config), recipe.eval_graph(config)):
        for call in graph.calls.values():
            if call.model is not None:
                if call.engine == "vllm":
                    _check_vllm(config, call, plan[call.name].layout, models[call.model])
                check_fits(models[call.model].decoder, plan[call.name].layout, _place(config, call.name))


def _check_vllm(
    config: RunConfig, call: ModelFunctionCall, layout: ParallelLayout, model: FoundModel
) -> None:
    vllm.check_layout(layout, config, call.name, _place(config, call.name))
    family, dtype = read_family(model.directory), model.spec.model.away_dtype
    vllm.check_model(model.decoder, family, dtype, config, model.path)


def _check_vocabularies(models: Mapping[str, FoundModel]) -> None:
    """Token ids go from one model to another as they are."""
    reference, *others = models.values()
    for model in others:
        if model.decoder.vocab_size != reference.decoder.vocab_size:
            raise ValueError(
                f"{model.path}: its vocabulary has {model.decoder.vocab_size} tokens, that of "
                f"{reference.path} {reference.decoder.vocab_size}; models of one run need one tokenizer"
            )
        if model.directory.resolve() != reference.directory.resolve() and _has_tokenizer(model.directory):
            own, wanted = (load_tokenizer(m).get_vocab().items() for m in (model, reference))
            if differing := own ^ wanted:
                raise ValueError(
                    f"{model.path}: its tokenizer is not that of {reference.path}, they differ in "
                    f"{min(differing)[0]!r}; models of one run need one tokenizer"
                )


def _has_tokenizer(directory: Path) -> bool:
    names = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")
    return any((directory / name).is_file() for name in names)


def load_tokenizer(model: FoundModel) -> Any:
    """The tokenizer in a model's directory."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model.directory, local_files_only=True)
    except Exception as error:  # tokenizers raises plain ones
        raise ValueError(
            f"{model.path}: {model.directory}: its tokenizer cannot be loaded "
            f"({' '.join(str(error).split())}); mend the tokenizer's files there"
        ) from None


def _check_data(recipe: Recipe, config: RunConfig, models: Mapping[str, FoundModel]) -> None:
    """Check every row, in a fork: a stranger's chat template or tokenizer may have no end."""
    first = next(iter(models.values()))
    _check_disjoint(config)
    data = getattr(config, "data", None)
    if isinstance(data, DataConfig):
        make_gym_rows(data)
    tokenizer = load_tokenizer(first)

    def check(steps: Steps) -> None:
        torch.set_num_threads(1)  # a fork has none of its parent's threads
        _check_rows(recipe, config, models, WatchedTokenizer(tokenizer, steps))

    try:
        run_watched(check, step_s=ROWS_STEP_S)
    except TimeoutError as error:
        raise ValueError(
            f"{first.path}: {error}, does not end within {ROWS_STEP_S:g} s; mend the tokenizer's files,"
            " or, for a chat template, set data.template=plain"
        ) from None
    except (ChildProcessError, MemoryError) as error:
        reason = str(error) or "it needs more memory than this machine has left"
        raise ValueError(f"data: the rows cannot be turned into tokens: {reason}") from None


def _check_rows(recipe: Recipe, config: RunConfig, models: Mapping[str, FoundModel], tokenizer: Any) -> None:
    first = next(iter(models.values()))
    rows, held_out = recipe.datasets(config, tokenizer)
    for path, dataset in (("data.path", rows), ("data.eval_path", held_out)):
        if dataset is not None:
            for name, model in models.items():
                _check_context(path, dataset, _max_new_tokens(config), name, model)
            _check_token_ids(path, dataset, first)


def _check_disjoint(config: RunConfig) -> None:
    """Evaluation is on rows that training does not see."""
    data = getattr(config, "data", None)
    if not isinstance(data, DataConfig) or data.path == SUMS or not data.held_out_path:
        return
    trained, held_out = (os.path.realpath(os.path.expanduser(p)) for p in (data.path, data.held_out_path))
    if trained != held_out or data.path.startswith(GYM_PREFIX):
        return
    if not data.path.startswith(HUGGING_FACE):
        raise ValueError(
            f"data.eval_path: expected rows held out from training, got the file of data.path, {data.path}; "
            "give another one, or '' for no evaluation"
        )
    if data.split == data.held_out_split:
        raise ValueError(
            f"data.eval_split: expected rows held out from training, got data.split, {data.split}; give"
            " another one, or data.eval_path='' for no evaluation"
        )


def _check_token_ids(path: str, dataset: Dataset, model: FoundModel) -> None:
    largest, row = max((_largest_id(dataset, row), row) for row in range(len(dataset)))
    if largest >= model.decoder.vocab_size:
        raise ValueError(
            f"{path}: {_row_place(dataset, row)} has the token {largest}, but {model.path} has only "
            f"{model.decoder.vocab_size} tokens; give the tokenizer that belongs to the model"
        )


def _largest_id(dataset: Dataset, row: int) -> int:
    return max(int(t.max()) for t in dataset.tensors(row).values() if t.dtype == torch.int64)


def _row_place(dataset: Dataset, row: int) -> str:
    place = getattr(dataset, "place", None)
    return place(row) if place else f"row {row + 1}"


def _check_context(path: str, dataset: Dataset, new_tokens: int, name: str, model: FoundModel) -> None:
    if not len(dataset):
        raise ValueError(f"{path}: expected at least one row, got none")
    length_of = getattr(dataset, "longest_sequence", dataset.length)
    limit = model.decoder.max_position
    room = limit - new_tokens
    too_long = [row for row in range(len(dataset)) if length_of(row) > room]
    if not too_long:
        return
    longest = max(too_long, key=length_of)
    more = f" and generation.max_new_tokens={new_tokens}" if new_tokens else ""
    setting = "set data.max_response_tokens and"
    if new_tokens:
        setting = (
            f"lower that, or set data.max_prompt_tokens={room} and" if room > 0 else "lower that, or set"
        )
    others = f" (so do {len(too_long)} of {len(dataset)} rows)" if len(too_long) > 1 else ""
    raise ValueError(
        f"{path}: {_row_place(dataset, longest)} has {length_of(longest)} tokens; that{more} exceeds the"
        f" {limit} tokens of model {name}'s context{others}; {setting} data.drop_long=true to leave such"
        " rows out"
    )


def _max_new_tokens(config: RunConfig) -> int:
    generation = _generation(config)
    return generation.max_new_tokens if generation else 0


def _generation(config: RunConfig) -> GenerationConfig | None:
    """Of a recipe that generates."""
    generation = getattr(config, "generation", None)
    return generation if isinstance(generation, GenerationConfig) else None


def _check_devices(plan: ExecutionPlan) -> None:
    if not torch.cuda.is_available():
        raise ValueError("device: expected a CUDA device for 'cuda', this machine has none; set device: cpu")
    if plan.num_workers > torch.cuda.device_count():
        raise ValueError(
            f"allocation: {plan.num_workers} ranks need as many CUDA devices, this machine has "
            f"{torch.cuda.device_count()}; take smaller layouts"
        )


def _check_offload(config: RunConfig) -> None:
    for path, section in _sections(config, ""):
        if isinstance(section, OptimizerConfig) and section.offload and config.device == "cpu":
            raise ValueError(
                f"{path}.offload: true needs device: cuda; with device: cpu the optimizer's states are in"
                " host memory anyway; set it to false"
            )


def _check_weights(model: FoundModel) -> None:
    """The checkpoint's headers fit its config; a scalar head that is trained may be missing."""
    placement = Placement(DeviceMesh((0,)), ParallelLayout())
    layout = decoder_layout(model.decoder, placement, model.spec.head)
    try:
        files, head = file_layout(model.directory, model.decoder.names.base), model.decoder.scalar_head
        starts_afresh = model.spec.optimizer is not None and head not in files.extents()
        wanted = (p for p in layout.patterns if p.tensor != head or not starts_afresh)
        check_tensors(model.directory, files, Layout(tuple(wanted)))
    except (OSError, ValueError) as error:
        raise ValueError(f"{model.path}: {error}") from None
    unused = (
        tensor
        for tensor in files.extents().keys() - layout.extents().keys()
        if tensor.startswith(model.decoder.names.layer.split("*")[0]) and not tensor.endswith(BUFFERS)
    )
    if tensor := min(unused, default=None):
        raise ValueError(
            f"{model.path}: {model.directory}: its config.json, with {model.decoder.num_layers} layers, has "
            f"no place for the weight {tensor}; give the config.json that belongs to the weights"
        )


def _check_outputs(config: RunConfig) -> None:
    """The run makes its own directory; here only the one above it."""
    directory = Path(config.runs_dir, config.experiment)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", error)
        raise ValueError(
            f"runs_dir: cannot write to {str(directory)!r}: {reason}; give another runs_dir"
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
