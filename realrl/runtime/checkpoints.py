"""Where a run's checkpoints lie."""

from __future__ import annotations

import shutil
from pathlib import Path


def checkpoint_directory(run_directory: Path, step: int) -> Path:
    return run_directory / "checkpoints" / f"step-{step}"


def partial_directory(run_directory: Path, step: int) -> Path:
    """Where a checkpoint is written before it is whole."""
    return run_directory / "checkpoints" / f".step-{step}.partial"


def remove_partial(run_directory: Path) -> None:
    """Remove checkpoints that never became whole."""
    for partial in run_directory.glob("checkpoints/.step-*.partial"):
        shutil.rmtree(partial)
