"""The modes in which workers can be started."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from realrl.api.config import RunConfig
from realrl.api.launcher import Launcher
from realrl.launch.bundles import render_bundles
from realrl.launch.local import LocalLauncher
from realrl.launch.own import load_launcher, open_own_launcher
from realrl.launch.queue import check_slurm
from realrl.launch.sbatch import sbatch_script
from realrl.launch.slurm import SlurmLauncher, inside_job
from realrl.launch.workers import IMPORTS


def check_mode(config: RunConfig) -> None:
    """Check that this machine can start workers in the configured mode.

    Raises:
        ValueError: a command or a package is missing, or the user's launcher cannot be used.
    """
    if config.launcher is not None:
        load_launcher(config.launcher)
    elif config.mode == "slurm":
        check_slurm()
    elif config.mode == "ray" and find_spec("ray") is None:
        raise ValueError("mode: ray needs the package ray; install realrl[ray], or set mode: local")


def goes_to_queue(config: RunConfig) -> bool:
    """Return whether to submit the run as a job, which starts elsewhere."""
    return config.mode == "slurm" and not inside_job()


def open_launcher(config: RunConfig, num_workers: int, imports: Sequence[str] = IMPORTS) -> Launcher:
    """Return the launcher of the configured mode; every worker needs the modules `imports`.

    Raises:
        ValueError: the cluster lacks resources that the plan needs, or the user's launcher lacks a method.
    """
    if config.launcher is not None:
        return open_own_launcher(config.launcher, config, num_workers)
    if config.mode == "slurm":
        return SlurmLauncher(config, num_workers)
    if config.mode == "ray":
        # Ray is an optional dependency.
        from realrl.launch.ray import RayLauncher

        return RayLauncher(config, num_workers)
    return LocalLauncher(device=config.device, imports=imports)


def render_request(recipe: str, config: RunConfig, num_workers: int) -> dict[str, str]:
    """Return the request to the cluster as texts by title; empty where there is none."""
    if config.mode == "slurm":
        return {"Script for sbatch": sbatch_script(recipe, config, num_workers)}
    if config.mode == "ray":
        return {"Ray's placement group": render_bundles(config, num_workers)}
    return {}
