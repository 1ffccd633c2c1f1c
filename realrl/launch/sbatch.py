"""The script that a run is submitted to SLURM by. It holds all that the run needs, and nothing secret."""

from __future__ import annotations

import math
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from realrl.api.config import RunConfig, TrainingConfig
from realrl.api.configure import dump_config
from realrl.launch.workers import ranks_by_node

_END = "END_OF_CONFIG"
_SPARE_S = 30
"""How long before the end a run is told to stop, besides its grace: for workers to end, and for SLURM."""

_WAIT = """\
# SLURM's signal reaches this shell alone, which would otherwise end and take the job with it.
master=$!
trap 'kill -TERM "$master"' TERM
wait "$master"
status=$?
if ((status > 128)); then # it may be the wait that the signal ended
    wait "$master"
    status=$?
fi
"""
_REQUEUE = """\
# A run that failed goes back into the queue. This script then runs again, and the run resumes from its last
# recovery point, if recover_every had it write some. SLURM_RESTART_COUNT says how often that was.
if ((status == 1 && ${{SLURM_RESTART_COUNT:-0}} < {requeues})); then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
"""


def sbatch_script(recipe: str, config: RunConfig, num_workers: int) -> str:
    """Options of the job, then shell: the master runs on the first node, and starts the workers by `srun`."""
    extra = config.slurm.extra_lines
    options = [*_options(config, num_workers), *(line for line in extra if _is_option(line))]
    lines = ["#!/bin/bash", *options, "", f"cd {shlex.quote(os.getcwd())} || exit"]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in config.slurm.environment.items()]
    lines += [line for line in extra if not _is_option(line)]
    return "\n".join([*lines, "", _master(recipe, config)])


def log_path(config: RunConfig, job: str) -> Path:
    """Where the output of a job's master goes."""
    return Path(f"{_log_stem(config)}-{job}.out")


def _log_stem(config: RunConfig) -> str:
    return str(Path(config.runs_dir).resolve() / config.experiment / config.trial)


def _is_option(line: str) -> bool:
    return line.startswith("#SBATCH")


def _options(config: RunConfig, num_workers: int) -> Iterator[str]:
    for name, value in _requested(config, num_workers).items():
        if value != "":
            yield f"#SBATCH --{name}={shlex.quote(str(value))}"
    if isinstance(config, TrainingConfig) and config.recover_every:
        # To the master's shell alone: at the end itself, SLURM signals the workers too, and they die at once.
        yield f"#SBATCH --signal=B:TERM@{math.ceil(config.sigterm_grace_s) + _SPARE_S}"
    # The master is to say which node was lost, and with which ranks, before its job ends.
    yield "#SBATCH --no-kill"
    yield "#SBATCH --requeue" if config.slurm.requeues else "#SBATCH --no-requeue"


def _requested(config: RunConfig, num_workers: int) -> dict[str, str | int]:
    nodes = ranks_by_node(num_workers, config.devices_per_node)
    return {
        "job-name": f"{config.experiment}-{config.trial}",
        "nodes": len(nodes),
        "ntasks-per-node": len(nodes[0]),
        "cpus-per-task": config.cpus_per_worker,
        "gpus-per-node": len(nodes[0]) if config.device == "cuda" else "",
        "partition": config.slurm.partition,
        "nodelist": config.slurm.nodelist,
        "account": config.slurm.account,
        "time": config.slurm.time,
        "output": f"{_log_stem(config).replace('%', '%%')}-%j.out",
        "open-mode": "append",
    }


def _master(recipe: str, config: RunConfig) -> str:
    """The same command as on one host; within a job it starts the run."""
    command = f"{shlex.quote(sys.executable)} -m realrl.apps.quickstart {recipe} --config /dev/stdin"
    if config.slurm.requeues:
        command += " ${SLURM_RESTART_COUNT:+recover=auto}"
    document = f"{dump_config(config, recipe=recipe)}{_END}\n"
    if not config.slurm.requeues:
        return f"exec {command} <<'{_END}'\n{document}"
    requeue = _REQUEUE.format(requeues=config.slurm.requeues)
    return f"{command} <<'{_END}' &\n{document}{_WAIT}{requeue}"
