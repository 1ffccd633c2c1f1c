"""Writes out what a run would do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from realrl.api.config import RunConfig, TrainingConfig
from realrl.api.configure import dump_config
from realrl.api.graph import OWN_ENGINE, DataflowGraph
from realrl.api.mesh import ExecutionPlan
from realrl.api.recipe import Recipe
from realrl.apps.checks import lacking_devices
from realrl.apps.preparation import PreparedRun
from realrl.apps.tables import table
from realrl.base.counting import counted
from realrl.launch.modes import render_request
from realrl.layouts.plan import cached_plan
from realrl.layouts.topology import Topology
from realrl.models.layout import decoder_layout
from realrl.planner.run_inputs import FoundModel, RunInputs
from realrl.planner.run_memory import ITEMSIZE_BYTES, moments
from realrl.planner.transfer_memory import peak_memory
from realrl.program.instructions import Reallocate
from realrl.program.jobs import compile_run
from realrl.realloc.hosts import topology_of
from realrl.runtime.master.accounting import accounting
from realrl.runtime.model_directories import bytes_to_download, hub_repo

Row = tuple[str, ...]


def render(run: PreparedRun) -> str:
    """The resolved config, the graph, the plan and its costs, and what a cluster is asked for, as text."""
    recipe, config, execution_plan, inputs = run.recipe, run.config, run.plan, run.inputs
    graph = recipe.graph(config)
    sections = {
        "Config": dump_config(config, recipe=recipe.name),
        **_notes(run),
        "Graph of one step": table([("call", "kind", "model", "inputs", "outputs"), *_graph_rows(graph)]),
        "Models": _models(inputs.models),
        "Batches": "\n".join(accounting(recipe, config, execution_plan)),
        "Plan": _plan_text(recipe, config, execution_plan),
        "Reallocations": _reallocations(recipe, config, execution_plan, inputs.models),
        "Memory of the fullest rank": _memory(recipe, config, execution_plan, inputs),
        **render_request(recipe.name, config, execution_plan.num_workers),
    }
    return "\n".join(f"== {title}\n{text.rstrip()}\n" for title, text in sections.items())


def _notes(run: PreparedRun) -> dict[str, str]:
    """What was chosen, and what a person should know of the rows and of this machine; empty without any."""
    sides = (run.inputs.rows, run.inputs.held_out)
    of_rows = [note for rows in sides if rows is not None for note in rows.notes]
    lacking = lacking_devices(run.config, run.plan)
    of_machine = [f"a start on this machine would be refused: {lacking}"] if lacking else []
    lines = [*run.notes, *of_rows, *of_machine]
    return {"Notes": "\n".join(lines)} if lines else {}


def _models(models: Mapping[str, FoundModel]) -> str:
    """Where each model is; of one of the Hub, what a start would download."""
    return table([("model", "path", "commit", "directory", "to download"), *map(_model_row, models.items())])


def _model_row(item: tuple[str, FoundModel]) -> Row:
    name, found = item
    model, repo = found.spec.model, hub_repo(found.spec.model.path)
    if repo is None:
        return name, model.path, "-", str(found.directory), "-"
    return name, model.path, model.commit, str(found.directory), _size(bytes_to_download(repo, model.commit))


def _graph_rows(graph: DataflowGraph) -> Iterator[Row]:
    for call in graph.calls.values():
        yield call.name, call.kind.value, call.model or "-", _list(call.inputs), _list(call.outputs)


def _plan_text(recipe: Recipe, config: RunConfig, execution_plan: ExecutionPlan) -> str:
    calls = {**recipe.graph(config).calls, **recipe.eval_graph(config).calls}
    rows = [
        (
            name,
            call.kind.value,
            call.model or "-",
            str(execution_plan[name].mesh),
            str(execution_plan[name].layout),
        )
        for name, call in calls.items()
    ]
    number = counted(execution_plan.num_workers, "worker")
    workers = f"{number} on {config.device}; allocation {config.allocation!r}"
    if isinstance(config, TrainingConfig) and (stale := config.max_staleness):
        ahead = [node.call for node in compile_run(recipe, config, execution_plan).step.ahead]
        names = ", ".join(dict.fromkeys(ahead))
        workers += (
            f"\n{names} of a step: before the training of the {stale} before it (max_staleness={stale})"
        )
    return f"{workers}\n{table([('call', 'kind', 'model', 'ranks', 'layout'), *rows])}"


def _reallocations(
    recipe: Recipe, config: RunConfig, execution_plan: ExecutionPlan, models: Mapping[str, FoundModel]
) -> str:
    programs, topology = compile_run(recipe, config, execution_plan), topology_of({}, config.device)
    rows = [
        _reallocation(node, when, config, models, topology)
        for when, program in (("each step", programs.step), ("each evaluation", programs.evaluate))
        for node in program.instructions
        if isinstance(node, Reallocate)
    ]
    if not rows:
        return "none: each model's calls all run where it lives"
    return table([("model", "from", "to", "when", "moved", "most to one rank", "most memory"), *rows])


def _reallocation(
    node: Reallocate, when: str, config: RunConfig, models: Mapping[str, FoundModel], topology: Topology
) -> Row:
    """Weights that move: how many bytes, and what a rank needs for them at most."""
    origin, goal = models[node.model], models[node.into]
    is_blend = node.into != node.model
    wanted = goal.spec.model.dtype if is_blend else goal.spec.model.away_dtype
    itemsizes = ITEMSIZE_BYTES[origin.spec.model.dtype], ITEMSIZE_BYTES[wanted]
    source = decoder_layout(origin.decoder, node.source, origin.spec.head)
    target = decoder_layout(goal.decoder, node.target, goal.spec.head)
    transfer = cached_plan(source, target, topology)
    memory = peak_memory(
        transfer,
        source,
        target,
        itemsizes=itemsizes,
        staging_bytes=config.staging_mib << 20,
        device=config.device,
    )
    return (
        f"{node.model} -> {node.into}" if is_blend else node.model,
        str(node.source),
        str(node.target) if node.engine == OWN_ENGINE else f"{node.target} in {node.engine}",
        f"{when}, at its end" if is_blend else f"{when}, before {node.call}",
        _size(transfer.moved * min(itemsizes)),
        _size(max(transfer.received.values(), default=0) * min(itemsizes)),
        _size(max(m.total_bytes for m in memory.values())),
    )


def _memory(recipe: Recipe, config: RunConfig, execution_plan: ExecutionPlan, inputs: RunInputs) -> str:
    """Each call's rank that holds most, by what it holds, beside what a process takes for itself."""
    found = moments(recipe, config, execution_plan, inputs)
    peak = max(found, key=lambda moment: moment.use.total_bytes)
    parts = ("weights", "optimizer", "activations", "cache", "staging", "context", "in all")
    rows = [
        (node, str(rank), *(f"{num_bytes / 2**20:,.1f}" for num_bytes in (*use.parts, use.total_bytes)))
        for node, rank, use in found
    ]
    first = f"in MiB; most is held by rank {peak.rank} in {peak.node}"
    return f"{first}\n{table([('while', 'rank', *parts), *rows], numbers=True)}"


def _size(num_bytes: int) -> str:
    size, unit = float(num_bytes), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024 or unit == "TiB":
            break
        size /= 1024
    return f"{num_bytes} bytes" + ("" if unit == "B" else f" ({size:.1f} {unit})")


def _list(keys: Sequence[str]) -> str:
    return ", ".join(keys) or "-"
