"""The settings of the cluster that a run is on."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from realrl.base.require import require, require_not_negative

_TIME_LIMIT = re.compile(r"(\d+-)?\d+(:\d+){0,2}")
"""Source: sbatch(1), option --time."""
_VARIABLE = re.compile(r"[A-Za-z_]\w*", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class SlurmConfig:
    """What a job requests from SLURM, and what its script does before the run starts."""

    partition: str = ""
    """Partition (empty: the cluster's default)."""
    nodelist: str = ""
    """Nodes to run on, as `gpu[01-16]` (empty: any)."""
    account: str = ""
    """Account that the job is charged to (empty: the cluster's default)."""
    time: str = ""
    """Time limit, as `2-00:00:00` (empty: the cluster's default)."""
    environment: dict[str, str] = field(default_factory=dict)
    """Environment variables of master and workers, written into the script. The job also has those of the
    submitting shell, which is the place for secrets."""
    extra_lines: tuple[str, ...] = ()
    """More lines of the script: those that begin with `#SBATCH` are options of the job, the others run before
    the start."""
    container: str = ""
    """Image that the workers run in (empty: none). The master stays outside, because it calls `srun`."""
    container_runtime: Literal["pyxis", "apptainer"] = "pyxis"
    """What runs the container."""
    container_mounts: tuple[str, ...] = ()
    """Folders of the host to mount in the container, as `/data:/data`; the working directory always is."""
    container_python: str = "python3"
    """The Python interpreter in the container; it must have realrl."""
    requeues: int = 0
    """Requeue a failed run up to this many times."""
    queue_timeout_s: float = 0.0
    """Cancel a job that waits in the queue for longer than this many seconds (0: never)."""

    def __post_init__(self) -> None:
        for name in ("partition", "nodelist", "account", "container", "container_python"):
            value = getattr(self, name)
            _check_word(name, value)
        for mount in self.container_mounts:
            _check_word("container_mounts", mount)
        require(
            not self.time or _TIME_LIMIT.fullmatch(self.time) is not None,
            f"time: expected a limit as 2-00:00:00 or 90 (minutes), got {self.time!r}",
        )
        for line in self.extra_lines:
            require(
                "\n" not in line,
                f"extra_lines: expected one line each, got {line!r}",
            )
        _check_variables(self.environment)
        require_not_negative(self, "requeues", "queue_timeout_s")


@dataclass(frozen=True, kw_only=True)
class RayConfig:
    """The Ray cluster, and the environment of its workers."""

    address: str = ""
    """Address of the cluster, as `10.0.0.1:6379` (empty: that in RAY_ADDRESS, or else that of the cluster
    that this host is in)."""
    environment: dict[str, str] = field(default_factory=dict)
    """Environment variables of the workers, in addition to those of Ray's daemon on their node."""
    timeout_s: float = 600.0
    """Seconds to wait for free nodes."""

    def __post_init__(self) -> None:
        _check_word("address", self.address)
        _check_variables(self.environment)
        require_not_negative(self, "timeout_s")


def _check_word(name: str, value: str) -> None:
    """Check that a setting can be one word of a command line."""
    has_spaces = any(map(str.isspace, value))
    require(
        not has_spaces,
        f"{name}: expected one word, without spaces, got {value!r}",
    )


def _check_variables(environment: dict[str, str]) -> None:
    """Check that the names can be those of environment variables."""
    for name in environment:
        require(
            _VARIABLE.fullmatch(name) is not None,
            f"environment: expected the names of variables, got {name!r}",
        )
