"""Writes the script by which a run is submitted to SLURM: all that the run needs, and no secrets."""

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
"""Seconds before the job's end, in addition to the run's grace: for workers to end, and for SLURM."""

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
    """Return the script: options of the job, then shell.

    The master runs on the first node, and starts the workers through `srun`.
    """
    own_options = []
    own_lines = []
    for line in config.slurm.extra_lines:
        if line.startswith("#SBATCH"):
            own_options.append(line)
        else:
            own_lines.append(line)
    exports = []
    for name, value in config.slurm.environment.items():
        exports.append(f"export {name}={shlex.quote(value)}")
    folder = shlex.quote(os.getcwd())
    lines = [
        "#!/bin/bash",
        *_options(config, num_workers),
        *own_options,
        "",
        f"cd {folder} || exit",
        *exports,
        *own_lines,
        "",
        _master(recipe, config),
    ]
    return "\n".join(lines)


def log_path(config: RunConfig, job: str) -> Path:
    """Return the file of the output of a job's master."""
    return Path(f"{_log_stem(config)}-{job}.out")


def _log_stem(config: RunConfig) -> str:
    """Return the path of logs, without the job's number."""
    runs = Path(config.runs_dir).resolve()
    return str(runs / config.experiment / config.trial)


def _options(config: RunConfig, num_workers: int) -> Iterator[str]:
    """Yield the lines with options of the job."""
    for name, value in _requested(config, num_workers).items():
        if value != "":
            yield f"#SBATCH --{name}={shlex.quote(str(value))}"
    if isinstance(config, TrainingConfig) and config.recover_every:
        # Only to the master's shell: at the end itself, SLURM signals the workers too, and they die at once.
        before_end_s = math.ceil(config.sigterm_grace_s) + _SPARE_S
        yield f"#SBATCH --signal=B:TERM@{before_end_s}"
    # The master can report which node was lost, and with which ranks, only while its job lives.
    yield "#SBATCH --no-kill"
    yield "#SBATCH --requeue" if config.slurm.requeues else "#SBATCH --no-requeue"


def _requested(config: RunConfig, num_workers: int) -> dict[str, str | int]:
    """Return the options with a value; an empty value is left to the cluster."""
    nodes = ranks_by_node(num_workers, config.devices_per_node)
    num_tasks = len(nodes[0])
    # SLURM replaces percent signs in a file's name.
    log_stem = _log_stem(config).replace("%", "%%")
    return {
        "job-name": f"{config.experiment}-{config.trial}",
        "nodes": len(nodes),
        "ntasks-per-node": num_tasks,
        "cpus-per-task": config.cpus_per_worker,
        "gpus-per-node": num_tasks if config.device == "cuda" else "",
        "partition": config.slurm.partition,
        "nodelist": config.slurm.nodelist,
        "account": config.slurm.account,
        "time": config.slurm.time,
        "output": f"{log_stem}-%j.out",
        "open-mode": "append",
    }


def _master(recipe: str, config: RunConfig) -> str:
    """Return the master's part: the same command as on one host, which starts the run within a job."""
    command = f"{shlex.quote(sys.executable)} -m realrl.apps.quickstart {recipe} --config /dev/stdin"
    if config.slurm.requeues:
        command += " ${SLURM_RESTART_COUNT:+recover=auto}"
    document = f"{dump_config(config, recipe=recipe)}{_END}\n"
    if not config.slurm.requeues:
        return f"exec {command} <<'{_END}'\n{document}"
    requeue = _REQUEUE.format(requeues=config.slurm.requeues)
    return f"{command} <<'{_END}' &\n{document}{_WAIT}{requeue}"
