"""Checks, before anything starts, what generation ahead of training needs."""

from __future__ import annotations

from realrl.api.config import TrainingConfig
from realrl.api.graph import CallKind, DataflowGraph
from realrl.api.mesh import ExecutionPlan
from realrl.api.traits import generation_of


def check_staleness(config: TrainingConfig, graph: DataflowGraph, plan: ExecutionPlan) -> None:
    """Check that `max_staleness` and `generation.interruptible` can have an effect.

    Raises:
        ValueError: one of them could have none.
    """
    generation = generation_of(config)
    if generation is not None and generation.interruptible:
        if not config.max_staleness:
            raise ValueError(
                "generation.interruptible: with max_staleness=0 nothing trains while responses are generated;"
                " raise max_staleness, or leave this false"
            )
        if generation.engine != "realrl":
            raise ValueError(
                f"generation.interruptible: {generation.engine} cannot take weights in the midst of"
                " responses; use generation.engine=realrl, or leave this false"
            )
    if config.max_staleness:
        if config.max_staleness >= config.num_steps:
            raise ValueError(
                f"max_staleness: with {config.max_staleness}, all of num_steps={config.num_steps} would be"
                " generated before the first is trained on; lower it"
            )
        _check_ranks(graph, plan)


def _check_ranks(graph: DataflowGraph, plan: ExecutionPlan) -> None:
    """Check that generation and training have ranks of their own."""
    if any(call.kind is CallKind.INFERENCE for call in graph.redrawn):
        raise ValueError(
            f"max_staleness: which prompts are resampled waits for {graph.redrawn[-1].name}, and that for a"
            " model, so nothing is generated ahead of training; use ppo.max_draws=1, or leave max_staleness 0"
        )
    generating = [call.name for call in graph.calls.values() if call.kind is CallKind.GENERATE]
    if not generating:
        raise ValueError("max_staleness: this recipe generates nothing that could be stale; leave it 0")
    training = [call.name for call in graph.calls.values() if call.kind is CallKind.TRAIN]
    for trainer in training:
        ranks = set(plan[trainer].ranks)
        for name in generating:
            shared = ranks.intersection(plan[name].ranks)
            if shared:
                raise ValueError(
                    f"max_staleness: {name} and {trainer} share rank {min(shared)}, so neither goes on"
                    f" while the other does; give {name} ranks of its own, as allocation=gen.d1+p1 does, or"
                    " leave max_staleness 0"
                )
