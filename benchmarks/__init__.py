"""Benchmarks: what `python -m benchmarks` measures and predicts."""
