"""Describes what a run would do, without starting it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from realrl.api.config import RunConfig, TrainingConfig
from realrl.api.configure import dump_config
from realrl.api.graph import OWN_ENGINE, DataflowGraph
from realrl.api.mesh import ExecutionPlan
from realrl.api.recipe import Recipe
from realrl.api.transport import Transport
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
from realrl.program.jobs import Programs, compile_run
from realrl.realloc.hosts import topology_of
from realrl.realloc.transports.by_name import open_transport
from realrl.runtime.master.accounting import accounting
from realrl.runtime.model_directories import bytes_to_download, hub_repo

Row = tuple[str, ...]
"""The cells of a line of a table."""
_UNITS = ("KiB", "MiB", "GiB", "TiB")


def render(run: PreparedRun) -> str:
    """Return the resolved config, graph, plan, costs, and the request to a cluster, as text."""
    recipe = run.recipe
    config = run.config
    plan = run.plan
    programs = compile_run(recipe, config, plan)
    sections = {
        "Config": dump_config(config, recipe=recipe.name),
        **_notes(run),
        "Graph of one step": _graph_text(recipe.graph(config)),
        "Models": _models(run.inputs.models),
        "Batches": "\n".join(accounting(recipe, config, plan)),
        "Plan": _plan_text(recipe, config, plan, programs),
        "Reallocations": _reallocations(config, programs, run.inputs.models),
        "Memory of the fullest rank": _memory(recipe, config, plan, run.inputs),
        **render_request(recipe.name, config, plan.num_workers),
    }
    parts = [f"== {title}\n{text.rstrip()}\n" for title, text in sections.items()]
    return "\n".join(parts)


def _notes(run: PreparedRun) -> dict[str, str]:
    """Return what was chosen, and notes on the rows and on this machine; empty without any."""
    lines = list(run.notes)
    lines += run.inputs.rows.notes
    if run.inputs.held_out is not None:
        lines += run.inputs.held_out.notes
    for name, facts in run.inputs.more_sets.items():
        lines += [f"evals.{name}: {note}" for note in facts.notes]
    lacking = lacking_devices(run.config, run.plan)
    if lacking:
        lines.append(f"a start on this machine would be refused: {lacking}")
    if not lines:
        return {}
    return {"Notes": "\n".join(lines)}


def _graph_text(graph: DataflowGraph) -> str:
    """Return the calls of a graph as a table."""
    rows: list[Row] = [("call", "kind", "model", "inputs", "outputs")]
    for call in graph.calls.values():
        rows.append(
            (
                call.name,
                call.kind.value,
                call.model or "-",
                _list(call.inputs),
                _list(call.outputs),
            )
        )
    return table(rows)


def _models(models: Mapping[str, FoundModel]) -> str:
    """Return where each model is, and what a start would download of models of the Hub."""
    rows: list[Row] = [("model", "path", "commit", "directory", "to download")]
    for name, found in models.items():
        model = found.spec.model
        repo = hub_repo(model.path)
        commit = "-"
        to_download = "-"
        if repo is not None:
            assert model.commit is not None, "a prepared run has the commits of its models"
            commit = model.commit
            to_download = _size(bytes_to_download(repo, commit))
        rows.append((name, model.path, commit, str(found.directory), to_download))
    return table(rows)


def _plan_text(recipe: Recipe, config: RunConfig, plan: ExecutionPlan, programs: Programs) -> str:
    """Return where each call runs, and which calls run ahead of training."""
    rows: list[Row] = [("call", "kind", "model", "ranks", "layout")]
    calls = {**recipe.graph(config).calls, **recipe.eval_graph(config).calls}
    for name, call in calls.items():
        placement = plan[name]
        rows.append(
            (
                name,
                call.kind.value,
                call.model or "-",
                str(placement.mesh),
                str(placement.layout),
            )
        )
    number = counted(plan.num_workers, "worker")
    lines = [f"{number} on {config.device}; allocation {config.allocation!r}"]
    if isinstance(config, TrainingConfig) and config.max_staleness:
        stale = config.max_staleness
        ahead = dict.fromkeys(node.call for node in programs.step.ahead)
        names = ", ".join(ahead)
        lines.append(
            f"{names} of a step: before the training of the {stale} before it (max_staleness={stale})"
        )
    lines.append(table(rows))
    return "\n".join(lines)


def _reallocations(config: RunConfig, programs: Programs, models: Mapping[str, FoundModel]) -> str:
    """Return the reallocations of a step and of an evaluation as a table."""
    transport = open_transport(config.transport, config.device)
    topology = topology_of({}, transport)
    rows: list[Row] = []
    for when, program in (("each step", programs.step), ("each evaluation", programs.evaluate)):
        for node in program.instructions:
            if isinstance(node, Reallocate):
                rows.append(_reallocation(node, when, config, models, topology, transport))
    if not rows:
        return "none: each model's calls all run where it lives"
    head = ("model", "from", "to", "when", "moved", "most to one rank", "most memory")
    return table([head, *rows])


def _reallocation(
    node: Reallocate,
    when: str,
    config: RunConfig,
    models: Mapping[str, FoundModel],
    topology: Topology,
    transport: Transport,
) -> Row:
    """Return how many bytes of weights a reallocation moves, and how many a rank needs for it at most."""
    origin = models[node.model]
    goal = models[node.into]
    is_blend = node.into != node.model
    # A blend writes the other model's own weights, else it is a replica.
    wanted = goal.spec.model.dtype if is_blend else goal.spec.model.away_dtype
    itemsizes = (
        ITEMSIZE_BYTES[origin.spec.model.dtype],
        ITEMSIZE_BYTES[wanted],
    )
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
        transport=transport,
    )
    sent_itemsize = min(itemsizes)
    most_received = max(transfer.received.values(), default=0)
    most_memory = max(rank.total_bytes for rank in memory.values())
    return (
        f"{node.model} -> {node.into}" if is_blend else node.model,
        str(node.source),
        str(node.target) if node.engine == OWN_ENGINE else f"{node.target} in {node.engine}",
        f"{when}, at its end" if is_blend else f"{when}, before {node.call}",
        _size(transfer.moved * sent_itemsize),
        _size(most_received * sent_itemsize),
        _size(most_memory),
    )


def _memory(recipe: Recipe, config: RunConfig, plan: ExecutionPlan, inputs: RunInputs) -> str:
    """Return the memory of the fullest rank in each call, by what it is for."""
    found = moments(recipe, config, plan, inputs)
    peak = max(found, key=lambda moment: moment.use.total_bytes)
    parts = ("weights", "optimizer", "activations", "cache", "staging", "context", "in all")
    rows: list[Row] = [("while", "rank", *parts)]
    for node, rank, use in found:
        sizes = map(_mib, (*use.parts, use.total_bytes))
        rows.append((node, str(rank), *sizes))
    first = f"in MiB; most is held by rank {peak.rank} in {peak.node}"
    return f"{first}\n{table(rows, numbers=True)}"


def _mib(num_bytes: int) -> str:
    """Return a size in MiB, as text."""
    size = num_bytes / 2**20
    return f"{size:,.1f}"


def _size(num_bytes: int) -> str:
    """Return a size in bytes, and in the largest unit of which there is at least one."""
    text = f"{num_bytes} bytes"
    if num_bytes < 1024:
        return text
    size = num_bytes / 1024
    index = 0
    while size >= 1024 and index + 1 < len(_UNITS):
        size /= 1024
        index += 1
    return f"{text} ({size:.1f} {_UNITS[index]})"


def _list(keys: Sequence[str]) -> str:
    """Return keys as text."""
    return ", ".join(keys) or "-"
