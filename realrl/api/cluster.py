"""What a person can set about the cluster that a run is on."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class SlurmConfig:
    """What a job asks SLURM for, and what its script does before the start."""

    partition: str = ""
    """Empty for the cluster's default, as with the next three."""
    nodelist: str = ""
    """Nodes to run on, as `gpu[01-16]`."""
    account: str = ""
    time: str = ""
    """Time limit, as `2-00:00:00`."""
    environment: dict[str, str] = field(default_factory=dict)
    """Variables of master and workers; they stand in the script. The job has those of the submitting shell
    too, which is the place for what is secret."""
    extra_lines: tuple[str, ...] = ()
    """More lines of the script: those that begin with `#SBATCH` as options of the job, the others before the
    start."""
    container: str = ""
    """Image that the workers run in; the master stays outside, as it calls `srun`. Empty for none."""
    container_runtime: Literal["pyxis", "apptainer"] = "pyxis"
    container_mounts: tuple[str, ...] = ()
    """Folders of the host inside the container, as `/data:/data`; the working directory always is there."""
    container_python: str = "python3"
    """The interpreter in the container; it has realrl."""
    requeues: int = 0
    """How often a run that failed goes back into the queue."""
    queue_timeout_s: float = 0.0
    """Cancel a job that waits in the queue for longer; 0 waits for as long as it takes."""

    def __post_init__(self) -> None:
        for name in ("partition", "nodelist", "account", "container", "container_python"):
            _check_word(name, getattr(self, name))
        for mount in self.container_mounts:
            _check_word("container_mounts", mount)
        if self.time and not re.fullmatch(r"(\d+-)?\d+(:\d+){0,2}", self.time):
            raise ValueError(f"time: expected a limit as 2-00:00:00 or 90 (minutes), got {self.time!r}")
        for line in self.extra_lines:
            if "\n" in line:
                raise ValueError(f"extra_lines: expected one line each, got {line!r}")
        _check_names(self.environment)
        for name in ("requeues", "queue_timeout_s"):
            _check_not_negative(name, getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class RayConfig:
    """The Ray cluster, and what its workers get."""

    address: str = ""
    """The cluster's, as `10.0.0.1:6379`; empty for that of RAY_ADDRESS, or else of the one with this host."""
    environment: dict[str, str] = field(default_factory=dict)
    """Variables of the workers, beside those that Ray's daemon on their node has."""
    timeout_s: float = 600.0
    """How long to wait until nodes are free."""

    def __post_init__(self) -> None:
        _check_word("address", self.address)
        _check_names(self.environment)
        _check_not_negative("timeout_s", self.timeout_s)


def _check_word(name: str, value: str) -> None:
    if any(letter.isspace() for letter in value):
        raise ValueError(f"{name}: expected one word, without spaces, got {value!r}")


def _check_names(environment: dict[str, str]) -> None:
    for name in environment:
        if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
            raise ValueError(f"environment: expected the names of variables, got {name!r}")


def _check_not_negative(name: str, value: float) -> None:
    if value < 0:
        raise ValueError(f"{name} must not be negative, got {value}")
