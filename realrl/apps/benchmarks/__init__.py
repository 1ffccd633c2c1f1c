"""Benchmarks: what `realrl.apps.bench` measures and predicts."""
