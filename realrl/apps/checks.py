"""All checks that are made before a worker starts. Each raises ValueError with one message."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from realrl.api.allocation import parse_allocation
from realrl.api.config import ModelConfig, OptimizerConfig, RunConfig, TrainingConfig
from realrl.api.configure import sections
from realrl.api.graph import CallKind, DataflowGraph, ModelFunctionCall
from realrl.api.mesh import ExecutionPlan, ParallelLayout
from realrl.api.recipe import ModelSpec, Recipe
from realrl.api.traits import Rewarding, evals_of, generation_of, needed_generation, with_generation
from realrl.apps.context import MAX_NEW_TOKENS, check_context
from realrl.apps.data_checks import (
    MOST_SAMPLES,
    check_disjoint,
    check_evaluations,
    check_named,
    key_of_rows,
)
from realrl.apps.rows import read_row_facts
from realrl.apps.staleness import check_staleness
from realrl.apps.weights import check_weights
from realrl.base.confinement import check_confinement
from realrl.datasets.demo import DEMO_MODEL
from realrl.engines.vllm import fits as vllm
from realrl.launch.modes import check_mode
from realrl.models.layout import check_fits
from realrl.models.registry import load_family, read_decoder_config, read_family
from realrl.ops.kernels import CUDA_LIBRARY, NO_CUDA_KERNELS
from realrl.planner.run_inputs import FoundModel, RowFacts, RunInputs
from realrl.program.program import home_placements
from realrl.realloc.transports.by_name import open_transport
from realrl.rewards.functions import GYM, MATH
from realrl.runtime.loggers.interface import check_loggers
from realrl.runtime.model_directories import has_tokenizer, hub_repo, resolve_model
from realrl.runtime.model_directories import load_tokenizer as load_tokenizer_of
from realrl.runtime.resume import check_resume


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
    models = {}
    for name, spec in recipe.models(config).items():
        path = _path_of(config, spec.model)
        models[name] = _find(path, spec)
    _check_vocabularies(models)
    check_named(config)
    check_disjoint(config)
    first = next(iter(models.values()))
    tokenizer = load_tokenizer(first)
    return RunInputs(models, *read_row_facts(recipe, config, tokenizer, first.path))


def check_run(recipe: Recipe, config: RunConfig, plan: ExecutionPlan, inputs: RunInputs) -> None:
    """Check everything that does not depend on this machine's devices."""
    check_plan(recipe, config, plan, inputs.models)
    _check_offload(config)
    decoders = {name: model.decoder for name, model in inputs.models.items()}
    recipe.validate(config, decoders)
    _check_data(config, inputs)
    check_evaluations(recipe, config, inputs)
    check_resume(recipe, config, inputs.digest)


def check_plan(
    recipe: Recipe, config: RunConfig, plan: ExecutionPlan, models: Mapping[str, FoundModel]
) -> None:
    """Check that batches and models can be divided as a plan says."""
    graph = recipe.graph(config)
    _check_batch(recipe, config, graph, plan)
    if isinstance(config, TrainingConfig):
        check_staleness(config, graph, plan)
    _check_layouts(config, recipe, plan, models)


def check_machine(config: RunConfig, plan: ExecutionPlan, models: Mapping[str, FoundModel]) -> list[str]:
    """Check what a start needs in addition to `check_run`: devices, weights, and a place for the outputs.

    Return notes on the weights of the Hub, which are downloaded here, once everything else is checked.
    """
    check_mode(config)
    open_transport(config.transport, config.device)
    check_loggers(config)
    lacking = lacking_devices(config, plan)
    if lacking:
        raise ValueError(lacking)
    if config.uses_this_host:
        _check_judges(config)
    generation = generation_of(config)
    if generation is not None and generation.engine == "vllm":
        vllm.check_installed()
    of_hub = [model for model in models.values() if _is_of_hub(model)]
    notes = _check_weights(of_hub)
    _check_outputs(config)
    return notes


def check_local_weights(models: Mapping[str, FoundModel]) -> list[str]:
    """Check the weights of models in directories of this machine; return notes on them.

    Weights of the Hub are not here before a start.
    """
    local = [model for model in models.values() if not _is_of_hub(model)]
    return _check_weights(local)


def _check_judges(config: RunConfig) -> None:
    """Check that processes which compare answers can be confined: otherwise the first one fails late."""
    if not isinstance(config, Rewarding):
        return
    judged = {MATH, GYM}.intersection(config.reward_names)
    if not judged:
        return
    try:
        check_confinement()
    except OSError as error:
        raise ValueError(
            f"reward: answers are judged in confined processes, and this system confines none ({error}); let"
            " the container filter system calls (seccomp), or give a function of your own"
        ) from None


def _check_batch(recipe: Recipe, config: RunConfig, graph: DataflowGraph, plan: ExecutionPlan) -> None:
    """Check that every data-parallel rank of every call gets a share of the batch."""
    samples_per_row = recipe.samples_per_row(config)
    num_samples = config.batch_size * samples_per_row
    if num_samples > MOST_SAMPLES:
        raise ValueError(
            f"batch_size: {config.batch_size} rows of {samples_per_row} samples are"
            f" {num_samples} samples a step, but at most {MOST_SAMPLES} are possible; lower it"
        )
    for call in graph.calls.values():
        if call.model is not None:
            _check_share(config, call, plan[call.name].layout.dp, num_samples)


def _check_share(config: RunConfig, call: ModelFunctionCall, dp: int, num_samples: int) -> None:
    """Check that `dp` ranks of a call get at least one of a step's `num_samples` samples each."""
    if call.kind is CallKind.GENERATE:
        # The samples of a prompt are generated on one rank.
        share = config.batch_size
        what = "prompts"
    elif call.num_minibatches > 1:
        share = num_samples // call.num_minibatches
        what = f"samples in each of {call.num_minibatches} mini-batches"
    else:
        share = num_samples
        what = "samples"
    if dp > share:
        raise ValueError(
            f"{_place(config, call.name)}: d{dp} needs at least {dp} {what}, "
            f"batch_size={config.batch_size} gives {share}; raise batch_size or take a smaller d"
        )


def _find(path: str, spec: ModelSpec) -> FoundModel:
    """Return the model that the key `path` names, with its config.

    Raises:
        ValueError: there is no model, or it cannot be read.
    """
    if not spec.model.path:
        raise ValueError(
            f"{path}: expected a model, got none; give a Hugging Face model directory, as {path}=FOLDER, a"
            f" model of the Hugging Face Hub, as OWNER/NAME, or {DEMO_MODEL}, the demo model"
        )
    family = load_family(spec.model.family, f"{path.removesuffix('path')}family")
    try:
        directory = resolve_model(spec.model.path, spec.model.commit, weights=False)
        decoder = read_decoder_config(directory, family)
        return FoundModel(path, spec, directory, decoder)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


def _check_layouts(
    config: RunConfig, recipe: Recipe, plan: ExecutionPlan, models: Mapping[str, FoundModel]
) -> None:
    """Check that each model can be cut as the layouts of its calls say."""
    for graph in (recipe.graph(config), recipe.eval_graph(config)):
        for call in graph.calls.values():
            if call.model is None:
                continue
            model = models[call.model]
            layout = plan[call.name].layout
            if call.engine == "vllm":
                _check_vllm(config, call, layout, model)
            check_fits(model.decoder, layout, _place(config, call.name))


def _check_vllm(
    config: RunConfig, call: ModelFunctionCall, layout: ParallelLayout, model: FoundModel
) -> None:
    """Check that vLLM can run a call."""
    place = _place(config, call.name)
    vllm.check_layout(layout, config, call.name, place)
    own_family = load_family(model.spec.model.family)
    family = read_family(model.directory, own_family)
    dtype = model.spec.model.away_dtype
    vllm.check_model(model.decoder, family, dtype, config, model.path)


def _check_vocabularies(models: Mapping[str, FoundModel]) -> None:
    """Check that all models have one vocabulary, because token ids go from one to another unchanged."""
    reference, *others = models.values()
    for model in others:
        if model.decoder.vocab_size != reference.decoder.vocab_size:
            raise ValueError(
                f"{model.path}: its vocabulary has {model.decoder.vocab_size} tokens, that of "
                f"{reference.path} {reference.decoder.vocab_size}; models of one run need one tokenizer"
            )
        is_same = model.directory.resolve() == reference.directory.resolve()
        if not is_same and has_tokenizer(model.directory):
            _check_same_tokenizer(model, reference)


def _check_same_tokenizer(model: FoundModel, reference: FoundModel) -> None:
    """Check that the tokenizers of two models have the same tokens."""
    own = load_tokenizer(model).get_vocab().items()
    wanted = load_tokenizer(reference).get_vocab().items()
    differing = own ^ wanted
    if differing:
        token, _ = min(differing)
        raise ValueError(
            f"{model.path}: its tokenizer is not that of {reference.path}, they differ in "
            f"{token!r}; models of one run need one tokenizer"
        )


def load_tokenizer(model: FoundModel) -> Any:
    """Return the tokenizer in a model's directory.

    Raises:
        ValueError: there is none, or it cannot be read.
    """
    try:
        return load_tokenizer_of(model.directory)
    except ValueError as error:
        raise ValueError(f"{model.path}: {error}") from None


def _check_data(config: RunConfig, inputs: RunInputs) -> None:
    """Check that rows fit the contexts and the vocabulary of all models."""
    _check_rows(key_of_rows(config), inputs.rows, config, inputs.models)
    if inputs.held_out is not None:
        _check_rows("data.eval_path", inputs.held_out, config, inputs.models)
    for name, facts in inputs.more_sets.items():
        own = evals_of(config)[name]
        sampled_so = with_generation(config, own.generation(needed_generation(config)))
        _check_rows(f"evals.{name}.path", facts, sampled_so, inputs.models, f"evals.{name}.max_new_tokens")


def _check_rows(
    path: str,
    rows: RowFacts,
    config: RunConfig,
    models: Mapping[str, FoundModel],
    new_tokens_key: str = MAX_NEW_TOKENS,
) -> None:
    """Check the rows that the key `path` names."""
    for name, model in models.items():
        check_context(path, rows, config, name, model.decoder.max_position, new_tokens_key)
    first = next(iter(models.values()))
    _check_token_ids(path, rows, first)


def _check_token_ids(path: str, rows: RowFacts, model: FoundModel) -> None:
    """Check that a model has every token of the rows."""
    if rows.largest_token >= model.decoder.vocab_size:
        raise ValueError(
            f"{path}: {rows.largest_place} has the token {rows.largest_token}, but {model.path} has only "
            f"{model.decoder.vocab_size} tokens; give the tokenizer that belongs to the model"
        )


def lacking_devices(config: RunConfig, plan: ExecutionPlan) -> str:
    """Return which devices a start would miss here; empty if none, or if a cluster has them."""
    if config.device != "cuda" or not config.uses_this_host:
        return ""
    if not torch.cuda.is_available():
        return "device: expected a CUDA device for 'cuda', this machine has none; set device: cpu"
    if not CUDA_LIBRARY.exists():
        return f"device: {NO_CUDA_KERNELS}; or set device: cpu"
    num_devices = torch.cuda.device_count()
    if plan.num_workers > num_devices:
        return (
            f"allocation: {plan.num_workers} ranks need as many CUDA devices, this machine has "
            f"{num_devices}; take smaller layouts"
        )
    return ""


def _check_offload(config: RunConfig) -> None:
    """Check that optimizers are offloaded only from CUDA devices."""
    for path, section in sections(config):
        if isinstance(section, OptimizerConfig) and section.offload and config.device == "cpu":
            raise ValueError(
                f"{path}.offload: true needs device: cuda; with device: cpu the optimizer's states are in"
                " host memory anyway; set it to false"
            )


def _is_of_hub(model: FoundModel) -> bool:
    """Return whether a model is one of the Hugging Face Hub."""
    path = model.spec.model.path
    return hub_repo(path) is not None


def _check_weights(models: Sequence[FoundModel]) -> list[str]:
    """Check each model's weights; return notes, each once for models of one directory."""
    notes: dict[str, None] = {}
    for model in models:
        notes.update(dict.fromkeys(_notes_of_weights(model)))
    return list(notes)


def _notes_of_weights(model: FoundModel) -> list[str]:
    """Check a model's weights, and return notes on them."""
    try:
        resolve_model(model.spec.model.path, model.spec.model.commit)
        notes = check_weights(model.directory, model.decoder, model.spec)
    except (OSError, ValueError) as error:
        raise ValueError(f"{model.path}: {error}") from None
    return [f"{model.path}: {note}" for note in notes]


def _check_outputs(config: RunConfig) -> None:
    """Check that the run can make its directory; make only the one above it."""
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
    """Return where in the config the call gets its layout."""
    if call in config.placements:
        return f"placements.{call}"
    return f"allocation: {call}"


def _path_of(config: RunConfig, model: ModelConfig) -> str:
    """Return the key that names the model's directory."""
    for path, section in sections(config):
        if section is model:
            return f"{path}.path"
    return "model"
