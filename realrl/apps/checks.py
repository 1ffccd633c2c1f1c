"""All that can be found wrong before a worker starts. Each check raises ValueError with one message."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from realrl.api.allocation import parse_allocation
from realrl.api.config import ModelConfig, OptimizerConfig, RunConfig, TrainingConfig
from realrl.api.configure import sections
from realrl.api.data import GYM_PREFIX
from realrl.api.graph import CallKind, DataflowGraph, ModelFunctionCall
from realrl.api.mesh import ExecutionPlan, ParallelLayout
from realrl.api.recipe import ModelSpec, Recipe
from realrl.api.traits import Rewarding, data_of, generation_of
from realrl.apps.context import check_context
from realrl.apps.rows import read_row_facts
from realrl.apps.staleness import check_staleness
from realrl.apps.weights import check_weights
from realrl.base.confinement import check_confinement
from realrl.datasets.demo import DEMO_MODEL
from realrl.datasets.digests import DataDigest
from realrl.datasets.parquet import HUGGING_FACE
from realrl.datasets.sums import SUMS
from realrl.engines.vllm import fits as vllm
from realrl.launch.modes import check_mode
from realrl.models.layout import check_fits
from realrl.models.registry import load_family, read_decoder_config, read_family
from realrl.ops.kernels import CUDA_LIBRARY, NO_CUDA_KERNELS
from realrl.planner.run_inputs import FoundModel, RowFacts, RunInputs
from realrl.program.program import home_placements
from realrl.rewards.functions import GYM, MATH, weights_of
from realrl.runtime.loggers.interface import check_loggers
from realrl.runtime.model_directories import has_tokenizer, hub_repo, resolve_model
from realrl.runtime.model_directories import load_tokenizer as load_tokenizer_of
from realrl.runtime.resume import check_resume

_MOST_SAMPLES = 2**18
"""Samples of a step, each of which is planned for."""


def make_plan(recipe: Recipe, config: RunConfig) -> ExecutionPlan:
    """Return the plan that the config asks for, over the calls of training and of evaluation.

    A call without a model has nothing to cut: each of its ranks takes a share of the samples. One that is to
    run beside another gets the placement of that one, unless the config places it by name.
    """
    calls = {**recipe.eval_graph(config).calls, **recipe.graph(config).calls}
    beside: dict[str, str] = {}
    for name, call in calls.items():
        if call.beside is not None and not _is_placed_by_name(config, name):
            beside[name] = call.beside
    placed = [name for name in calls if name not in beside]
    generate_calls = [name for name, call in calls.items() if call.kind is CallKind.GENERATE]
    plan = parse_allocation(config.allocation, placed, generate_calls, config.placements)
    placements = dict(plan.placements)
    for name in placed:
        if calls[name].model is None:
            placements[name] = placements[name].data_parallel()
    placements.update({name: placements[other] for name, other in beside.items()})
    whole = ExecutionPlan({name: placements[name] for name in calls})
    home_placements(recipe.graph(config), whole)
    return whole


def _is_placed_by_name(config: RunConfig, call: str) -> bool:
    """Whether a config says where a call runs, other than by a wildcard."""
    return call in config.placements or bool(re.search(rf"(?<!\w){re.escape(call)}[:.]", config.allocation))


def read_inputs(recipe: Recipe, config: RunConfig) -> RunInputs:
    """Return the models' configs and the rows that a config names.

    Raises:
        ValueError: a model or a data set that is not named, cannot be read, or does not fit the others.
    """
    specs = recipe.models(config)
    models = {name: _find(_path_of(config, spec.model), spec) for name, spec in specs.items()}
    _check_vocabularies(models)
    _check_named(config)
    _check_disjoint(config)
    first = next(iter(models.values()))
    return RunInputs(models, *read_row_facts(recipe, config, load_tokenizer(first), first.path))


def check_run(recipe: Recipe, config: RunConfig, plan: ExecutionPlan, inputs: RunInputs) -> None:
    """Check all that does not depend on this machine's devices."""
    check_plan(recipe, config, plan, inputs.models)
    _check_offload(config)
    recipe.validate(config, {name: model.decoder for name, model in inputs.models.items()})
    _check_data(config, inputs)
    held_out = None if inputs.held_out is None else inputs.held_out.digest
    check_resume(recipe, config, DataDigest(inputs.rows.digest, held_out))


def notes_of_data(config: RunConfig, inputs: RunInputs) -> list[str]:
    """Say which settings of a training run ask for more than its rows give."""
    if not isinstance(config, TrainingConfig):
        return []
    notes, number = [], len(inputs.rows)
    if number < config.batch_size:
        rows = "1 row" if number == 1 else f"{number} rows"
        notes.append(
            f"data.path has {rows}, fewer than batch_size={config.batch_size}: rows are repeated in a step"
        )
    if config.eval_every and inputs.held_out is None:
        notes.append(
            f"eval_every={config.eval_every}: nothing is evaluated, as there are no held-out rows; give some"
            " as data.eval_path"
        )
    return notes


def check_plan(
    recipe: Recipe, config: RunConfig, plan: ExecutionPlan, models: Mapping[str, FoundModel]
) -> None:
    """Check that batches and models can be cut as a plan says."""
    graph = recipe.graph(config)
    _check_batch(recipe, config, graph, plan)
    if isinstance(config, TrainingConfig):
        check_staleness(config, graph, plan)
    _check_layouts(config, recipe, plan, models)


def check_machine(config: RunConfig, plan: ExecutionPlan, models: Mapping[str, FoundModel]) -> list[str]:
    """Check what a start needs beyond `check_run`: devices, weights, and a place for the outputs.

    Returns notes on the weights of the Hub, which are downloaded here, once all else is checked.
    """
    check_mode(config)
    check_loggers(config)
    if lacking := lacking_devices(config, plan):
        raise ValueError(lacking)
    if config.uses_this_host:
        _check_judges(config)
    generation = generation_of(config)
    if generation and generation.engine == "vllm":
        vllm.check_installed()
    notes = _check_weights(model for model in models.values() if _is_of_hub(model))
    _check_outputs(config)
    return notes


def check_local_weights(models: Mapping[str, FoundModel]) -> list[str]:
    """Check the weights of models that are in directories of this machine; return notes on them.

    Those of the Hub are not here before a start.
    """
    return _check_weights(model for model in models.values() if not _is_of_hub(model))


def _check_judges(config: RunConfig) -> None:
    """Answers are never compared in a process that is not confined, which shows late: when one needs it."""
    if not isinstance(config, Rewarding) or not {MATH, GYM} & weights_of(config.reward).keys():
        return
    try:
        check_confinement()
    except OSError as error:
        raise ValueError(
            f"reward: answers are judged in confined processes, and this system confines none ({error}); let"
            " the container filter system calls (seccomp), or give a function of your own"
        ) from None


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
    if not spec.model.path:
        raise ValueError(
            f"{path}: expected a model, got none; give a Hugging Face model directory, as {path}=FOLDER, a"
            f" model of the Hugging Face Hub, as OWNER/NAME, or {DEMO_MODEL}, the demo model"
        )
    family = load_family(spec.model.family, f"{path.removesuffix('path')}family")
    try:
        directory = resolve_model(spec.model.path, spec.model.commit, weights=False)
        return FoundModel(path, spec, directory, read_decoder_config(directory, family))
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
    family = read_family(model.directory, load_family(model.spec.model.family))
    dtype = model.spec.model.away_dtype
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
        if model.directory.resolve() != reference.directory.resolve() and has_tokenizer(model.directory):
            own, wanted = (load_tokenizer(m).get_vocab().items() for m in (model, reference))
            if differing := own ^ wanted:
                raise ValueError(
                    f"{model.path}: its tokenizer is not that of {reference.path}, they differ in "
                    f"{min(differing)[0]!r}; models of one run need one tokenizer"
                )


def load_tokenizer(model: FoundModel) -> Any:
    """The tokenizer in a model's directory."""
    try:
        return load_tokenizer_of(model.directory)
    except ValueError as error:
        raise ValueError(f"{model.path}: {error}") from None


def _check_data(config: RunConfig, inputs: RunInputs) -> None:
    first = next(iter(inputs.models.values()))
    for path, rows in (("data.path", inputs.rows), ("data.eval_path", inputs.held_out)):
        if rows is not None:
            for name, model in inputs.models.items():
                check_context(path, rows, config, name, model.decoder.max_position)
            _check_token_ids(path, rows, first)


def _check_named(config: RunConfig) -> None:
    data = data_of(config)
    if data is not None and not data.path:
        raise ValueError(
            "data.path: expected a file of rows (.jsonl, .json, .parquet), hf:OWNER/NAME or gym:TASK, got"
            " none; give one, as data.path=FILE; experiments/sums has demos that need none"
        )


def _check_disjoint(config: RunConfig) -> None:
    """Evaluation is on rows that training does not see."""
    data = data_of(config)
    if data is None or data.path == SUMS or not data.held_out_path:
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


def _check_token_ids(path: str, rows: RowFacts, model: FoundModel) -> None:
    if rows.largest_token >= model.decoder.vocab_size:
        raise ValueError(
            f"{path}: {rows.largest_place} has the token {rows.largest_token}, but {model.path} has only "
            f"{model.decoder.vocab_size} tokens; give the tokenizer that belongs to the model"
        )


def lacking_devices(config: RunConfig, plan: ExecutionPlan) -> str:
    """Say which devices a start would not find here; empty where none is missing, or a cluster has them."""
    if config.device != "cuda" or not config.uses_this_host:
        return ""
    if not torch.cuda.is_available():
        return "device: expected a CUDA device for 'cuda', this machine has none; set device: cpu"
    if not CUDA_LIBRARY.exists():
        return f"device: {NO_CUDA_KERNELS}; or set device: cpu"
    if plan.num_workers > torch.cuda.device_count():
        return (
            f"allocation: {plan.num_workers} ranks need as many CUDA devices, this machine has "
            f"{torch.cuda.device_count()}; take smaller layouts"
        )
    return ""


def _check_offload(config: RunConfig) -> None:
    for path, section in sections(config):
        if isinstance(section, OptimizerConfig) and section.offload and config.device == "cpu":
            raise ValueError(
                f"{path}.offload: true needs device: cuda; with device: cpu the optimizer's states are in"
                " host memory anyway; set it to false"
            )


def _is_of_hub(model: FoundModel) -> bool:
    return hub_repo(model.spec.model.path) is not None


def _check_weights(models: Iterable[FoundModel]) -> list[str]:
    """Check each model's weights; a note on a directory of several models is returned once."""
    notes = [note for model in models for note in _notes_of_weights(model)]
    return list(dict.fromkeys(notes))


def _notes_of_weights(model: FoundModel) -> list[str]:
    try:
        resolve_model(model.spec.model.path, model.spec.model.commit)
        notes = check_weights(model.directory, model.decoder, model.spec)
    except (OSError, ValueError) as error:
        raise ValueError(f"{model.path}: {error}") from None
    return [f"{model.path}: {note}" for note in notes]


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
    return next((f"{path}.path" for path, section in sections(config) if section is model), "model")
