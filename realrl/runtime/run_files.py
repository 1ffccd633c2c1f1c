"""Names of the files in a run's directory."""

from __future__ import annotations

CONFIG = "config.yaml"
"""The resolved config."""
METRICS = "metrics.jsonl"
"""One line for each step, evaluation or batch of a pass."""
INPUTS = "inputs.json"
"""Digests of what a pass reads."""
SUMMARY = "summary.json"
"""Written when a run is done."""
RECORDS = {"train": "rollouts.jsonl", "pass": "generations.jsonl"}
"""The files with the records of calls, by the kind of steps that a run makes."""
TRACE = "trace.json"
EVENTS = "events.jsonl"
"""What the scheduler was told, and what it sent."""
LOGS = "logs"
