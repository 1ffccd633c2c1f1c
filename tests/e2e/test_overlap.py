"""Calls on disjoint meshes overlap, and the trace that the run writes shows it."""

from __future__ import annotations

import json

import pytest

from tests.command_line import run_recipe
from tests.tiny import tiny_llama

pytestmark = [pytest.mark.slow, pytest.mark.quiet]


def test_actor_and_critic_train_at_once(tmp_path):
    """The critic on one rank, all else on another: their training calls of one step share some time."""
    model = tiny_llama(tmp_path / "model", hidden=128, intermediate=512)
    rows = [{"query_id": str(i), "prompt": f"{i}+1=", "solutions": list("02468")} for i in range(12)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    overrides = {
        "actor.model.path": model,
        "critic.model.path": model,
        "data.path": tmp_path / "rows.jsonl",
        "data.eval_path": "",
        "data.template": "plain",
        "num_steps": 3,
        "generation.max_new_tokens": 8,
        "runs_dir": tmp_path,
        "allocation": "critic_*:d1+*:d1",
    }
    run_recipe("ppo-math", overrides)
    trace = json.loads((tmp_path / "ppo-math" / "trial" / "trace.json").read_text())
    assert all(overlap_us(trace, step) > 0 for step in range(3))


def overlap_us(trace: list[dict], step: int) -> float:
    """How long the two training calls of a step ran at once, in microseconds."""
    actor, critic = (slices(trace, name, step) for name in ("actor_train", "critic_train"))
    assert {event["tid"] for event in actor}.isdisjoint(event["tid"] for event in critic)
    begin = max(event["ts"] for event in (*actor, *critic))
    return min(event["ts"] + event["dur"] for event in (*actor, *critic)) - begin


def slices(trace: list[dict], name: str, step: int) -> list[dict]:
    found = [event for event in trace if event["name"] == name and event["args"]["step"] == step]
    assert found, f"the trace has no {name} of step {step}"
    return found
