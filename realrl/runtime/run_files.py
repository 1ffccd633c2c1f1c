"""Names of the files in a run's directory."""

from __future__ import annotations

CONFIG = "config.yaml"
"""The resolved config."""
METRICS = "metrics.jsonl"
"""A line for each step, evaluation or batch of a pass."""
INPUTS = "inputs.json"
"""What a pass reads, by digest."""
SUMMARY = "summary.json"
"""Written when a run is done."""
RECORDS = {"train": "rollouts.jsonl", "pass": "generations.jsonl"}
"""Where the records of calls go, by the kind of steps that a run makes."""
TRACE = "trace.json"
EVENTS = "events.jsonl"
"""What the scheduler was told, and what it sent."""
LOGS = "logs"
