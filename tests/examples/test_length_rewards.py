"""Rewards of lengths within a group: each against its paper's formula, and in a run on several ranks."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from realrl.rewards.calling import rewards_by
from realrl.rewards.verdict import Verdict
from tests.examples.test_examples import files, run
from tests.rewards.samples import group_of, sample_of

__all__ = ["files"]

ROOT = Path(__file__).parents[2]
FILE = f"{ROOT}/examples/length_rewards.py"
RIGHT, WRONG = Verdict.CORRECT, Verdict.WRONG


def response(num_tokens: int, verdict: Verdict | None, **others):
    return sample_of("x", num_tokens=num_tokens, verdict=verdict, **others)


def test_kimi_rewards_short_right_answers_and_punishes_long_ones():
    """Right: 0.5 - share of the way from the shortest to the longest; wrong: no more than 0."""
    group = group_of(response(10, RIGHT), response(20, RIGHT), response(30, RIGHT), response(10, WRONG))
    other = group_of(response(30, WRONG), response(14, WRONG), response(10, WRONG))
    assert rewards_by(f"{FILE}:kimi", [*group, *other]) == [0.5, 0.0, -0.5, 0.0, -0.5, 0.0, 0.0]
    assert rewards_by(f"{FILE}:kimi", group_of(response(7, RIGHT), response(7, WRONG))) == [0.0, 0.0]


def test_alp_punishes_tokens_by_how_often_a_problem_is_solved():
    group = group_of(response(10, RIGHT), response(20, WRONG), response(30, RIGHT), response(40, WRONG))
    never = group_of(response(10, WRONG), response(20, Verdict.NO_ANSWER))
    assert rewards_by(f"{FILE}:alp", [*group, *never]) == [-5.0, -10.0, -15.0, -20.0, -5.0, -10.0]


def test_cosine_is_the_papers_function():
    """From 2 to 1 for right answers, from -10 to 0 for wrong ones, -10 where the limit was reached."""
    samples = [response(length, verdict) for verdict in (RIGHT, WRONG) for length in (0, 4096, 8192)]
    found = rewards_by(f"{FILE}:cosine", [*samples, response(8192, RIGHT, ended=False)])
    assert found == pytest.approx([2.0, 1.5, 1.0, -10.0, -5.0, 0.0, -10.0])
    quarter = rewards_by(f"{FILE}:cosine", [response(2048, RIGHT)])[0]
    assert quarter == pytest.approx(1 + 0.5 * (1 + math.cos(math.pi / 4)))


def test_without_the_verifier_the_message_says_what_to_give():
    with pytest.raises(RuntimeError, match="give the verifier too, as reward={math: 1.0"):
        rewards_by(f"{FILE}:kimi", group_of(response(1, None), response(2, None)))


def test_a_run_rewards_whole_groups(files):
    """On three ranks, which four groups of four do not fit; each group's rewards are those of its lengths."""
    reward = f"{{math: 1.0, {FILE}:kimi: 0.5}}"
    settings = {"allocation": "reward:d3,*:d2", "ppo.kl_coef": 0}
    steps = run(files, "grpo", "kimi", reward=reward, advantage="gdpo", **settings)
    assert len(steps) == 3 and all("reward/kimi" in step for step in steps)
    groups: dict[tuple[int, int], list[dict]] = {}
    for line in (files / "runs/own/kimi/rollouts.jsonl").open():
        record = json.loads(line)
        if not record["evaluating"]:
            groups.setdefault((record["step"], record["group"]), []).append(record)
    assert len(groups) == 12 and all(len(group) == 4 for group in groups.values())
    for group in groups.values():
        lengths = [record["num_tokens"] for record in group]
        for record in group:
            spread = max(lengths) - min(lengths)
            own = 0.5 - (record["num_tokens"] - min(lengths)) / spread if spread else 0.0
            is_right = record["verdict"] == "correct"
            expected = is_right + 0.5 * (own if is_right else min(0.0, own))
            assert record["reward"] == pytest.approx(expected, abs=1e-6)
