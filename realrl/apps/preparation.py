"""From a config to a run that can start: inputs are read, settings chosen, everything checked.

config ── pin ──▶ read_inputs ──▶ choose_settings ──▶ make_plan ──▶ check_run ──▶ PreparedRun ── check_start
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from realrl.api.config import RunConfig
from realrl.api.mesh import ExecutionPlan
from realrl.api.recipe import Recipe
from realrl.apps import checks
from realrl.apps.data_checks import notes_of_data
from realrl.apps.defaults import choose_settings
from realrl.planner.run_inputs import RunInputs
from realrl.runtime.pins import pin


@dataclass(frozen=True)
class PreparedRun:
    """A run whose settings are all chosen, and checked as far as that is possible before a start."""

    recipe: Recipe
    config: RunConfig
    plan: ExecutionPlan
    inputs: RunInputs
    notes: tuple[str, ...]
    """Lines that a user should read at the start."""


def prepare(recipe: Recipe, config: RunConfig) -> PreparedRun:
    """Pin a run's models and data, read them, choose what is left to the machine, and check the result.

    Raises:
        ValueError: a setting, a model or data that cannot be right.
    """
    pinned = pin(recipe, config)
    inputs = checks.read_inputs(recipe, pinned)
    chosen, notes = choose_settings(recipe, pinned, inputs)
    plan = checks.make_plan(recipe, chosen)
    checks.check_run(recipe, chosen, plan, inputs)
    notes += notes_of_data(chosen, inputs)
    notes += checks.check_local_weights(inputs.models)
    return PreparedRun(
        recipe,
        chosen,
        plan,
        inputs,
        notes=(*inputs.rows.form.splitlines(), *notes),
    )


def check_start(run: PreparedRun) -> PreparedRun:
    """Check what a start needs from this machine; return the run with notes on it.

    Raises:
        ValueError: devices, packages, weights of the Hub or a place for outputs are missing.
    """
    notes = checks.check_machine(run.config, run.plan, run.inputs.models)
    return replace(run, notes=(*run.notes, *notes))
