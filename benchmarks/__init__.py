"""Benchmarks: what `python -m benchmarks` measures and predicts."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The clone that the benchmarks are run from; environments of other systems are in it, as `.venv-NAME`."""
